"""What the learner must remember between two updates of a feed, and its one encoding as a blob (DESIGN §3.5).

With the parent's weights and this state, an update is a function of its plan: save, load and go on equals never having
stopped, byte for byte on a CPU. There is no generator state in here: every draw of a cycle comes from a generator
seeded with that cycle's own seed, so repeating a cycle repeats its draws.

It is a bag of tensors with owners (`learner.bag`): a further one is a class with `pack` and `unpack`, and a field here.
Between Driftlines: an owner that the blob does not have starts as before the first update; one that this Driftline does
not know is let go, and said so, because it would describe weights that training here moves away from.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from torch import Tensor

from driftline.artefact.weights import unpack_tensors
from driftline.errors import ArtefactError
from learner.bag import Owner, Share, pack_bag, unpack_bag
from learner.moments import Moments
from learner.recent import RecentWindow
from learner.reservoir import ReservoirState

log = structlog.get_logger()

FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainerState:
    """A field for each owner, by its name. `reservoir` and `recent` hold the example numbers that replay draws from,
    and `buffer` is the identity of the buffer that they are numbers of. No text is in here.
    """

    optimizer: Moments = field(default_factory=Moments)
    reservoir: ReservoirState = field(default_factory=ReservoirState)
    recent: RecentWindow = field(default_factory=RecentWindow)
    buffer: str | None = None

    def without(self, seqs: Collection[int]) -> "TrainerState":
        """The state without these examples, as if replay had never kept them; counts of what was seen stay."""
        return replace(self, reservoir=self.reservoir.without(seqs), recent=self.recent.without(seqs))

    def without_examples(self, buffer: str) -> "TrainerState":
        """The state for a learner on this buffer where its numbers are not of it: they would name nothing, or other
        examples, so reservoir and recent window start empty. The optimizer goes on."""
        return replace(self, reservoir=ReservoirState(), recent=RecentWindow(), buffer=buffer)


OWNERS: dict[str, type[Owner]] = {"optimizer": Moments, "reservoir": ReservoirState, "recent": RecentWindow}


def pack_state(state: TrainerState) -> bytes:
    """Canonical: equal states give equal bytes."""
    header = {"format": str(FORMAT)} | ({} if state.buffer is None else {"buffer": state.buffer})
    return pack_bag({name: getattr(state, name) for name in OWNERS}, header)


def unpack_state(data: bytes) -> TrainerState:
    """The exact inverse of `pack_state`; also reads format 1. ArtefactError(unreadable) if this is no trainer state, or
    a newer format's."""
    tensors, header = unpack_tensors(data)
    try:
        written_in = int(header["format"])
        if written_in > FORMAT:
            raise ValueError(f"format {written_in}, this Driftline reads up to {FORMAT}")
        shares = _shares_of_format_1(tensors, header) if written_in == 1 else unpack_bag(tensors, header)
        _tell_unknown(shares)
        owners: dict[str, Any] = {name: own.unpack(shares[name]) for name, own in OWNERS.items() if name in shares}
        return TrainerState(**owners, buffer=header.get("buffer"))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ArtefactError("unreadable", f"not a trainer state: {error}") from None


def _tell_unknown(shares: dict[str, Share]) -> None:
    if unknown := sorted(shares.keys() - OWNERS.keys()):
        log.warning("trainer_state_let_go", owners=unknown, reason="another Driftline wrote them; this one knows none")


def _shares_of_format_1(tensors: dict[str, Tensor], header: dict[str, str]) -> dict[str, Share]:
    """What was written before owners had names."""
    means = {name.removeprefix("moments."): one for name, one in tensors.items() if name.startswith("moments.")}
    kept = {"seqs": tensors["reservoir.seqs"], "classes": tensors["reservoir.classes"]}
    told = {name: json.loads(header[name]) for name in ("classes", "seen", "full")}
    return {
        "optimizer": Share(tensors=means, facts={"step": int(header["step"])}),
        "reservoir": Share(tensors=kept, facts=told),
        "recent": Share(tensors={"seqs": tensors["recent"]}),
    }
