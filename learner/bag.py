"""A bag of named tensors, each with an owner who alone knows what they mean, as one canonical blob.

Guards that owners cannot touch each other's: a name is "OWNER.NAME", and an owner sees its own, without the prefix.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from torch import Tensor

from driftline.artefact.weights import pack_tensors

__all__ = ["Owner", "Share", "pack_bag", "unpack_bag"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """What one owner keeps: tensors by name (any dtype that safetensors has, on the CPU), and as JSON what is none."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Owner(Protocol):
    """Something that the learner remembers. `Owner()` is what it is before the first update. Pure."""

    def pack(self) -> Share:
        """All of it; equal owners pack equal shares."""

    @classmethod
    def unpack(cls, share: Share) -> Self:
        """The exact inverse of `pack`. KeyError, IndexError, TypeError or ValueError where it is not one's share."""


def pack_bag(owners: Mapping[str, Owner], header: Mapping[str, str]) -> bytes:
    """Safetensors: equal owners and header (text by name) give equal bytes. An owner's name has no dot."""
    shares = {name: owner.pack() for name, owner in owners.items()}
    tensors = {f"{name}.{key}": one for name, share in shares.items() for key, one in share.tensors.items()}
    facts = {name: share.facts for name, share in shares.items()}
    return pack_tensors(tensors, {**header, "owners": json.dumps(facts, sort_keys=True)})


def unpack_bag(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, Share]:
    """Each owner's share, whoever it is, of a bag that `unpack_tensors` read. ValueError if it was none."""
    try:
        facts = json.loads(header["owners"])
        shares = {name: Share(facts=one) for name, one in facts.items()}
        for name, tensor in tensors.items():
            owner, _, key = name.partition(".")
            shares[owner].tensors[key] = tensor
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"no bag of tensors with owners: {error!r}") from None
    return shares
