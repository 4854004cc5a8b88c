"""The recent window: the last examples of the stream, by number, which replay may draw from. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch

from learner.bag import Share


@dataclass(frozen=True, slots=True)
class RecentWindow:
    """`Owner` of the example numbers `seqs`, oldest first."""

    seqs: tuple[int, ...] = ()

    def followed_by(self, seqs: Iterable[int], limit: int) -> "RecentWindow":
        """With these behind it; the newest `limit`."""
        return RecentWindow((*self.seqs, *seqs)[-limit:])

    def without(self, seqs: Collection[int]) -> "RecentWindow":
        """As if these had never come."""
        return RecentWindow(tuple(seq for seq in self.seqs if seq not in seqs))

    def pack(self) -> Share:
        return Share(tensors={"seqs": torch.tensor(self.seqs, dtype=torch.int64)})  # (N,)

    @classmethod
    def unpack(cls, share: Share) -> "RecentWindow":
        return cls(tuple(share.tensors["seqs"].tolist()))
