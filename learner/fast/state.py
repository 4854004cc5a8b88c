"""A feed's whole fast state, and its one encoding: to go on from, to start replicas from, to come back to (§3.9).

Covered: a state of another Driftline's making, or of another feed's labels, is told apart from damage. Guards that
saving, loading and going on equals never having stopped, byte for byte.
"""

from dataclasses import dataclass

import msgspec

from driftline.errors import ArtefactError
from driftline.experts import ExpertState
from driftline.experts.packing import pack_states, unpack_states
from learner.fast.watch import WatchState

__all__ = ["FastState", "pack_fast_state", "pack_scoring", "unpack_fast_state"]

FORMAT = 2
READ = (1, 2)
"""With 2 came another packing of the experts' arrays."""


@dataclass(slots=True, kw_only=True)
class FastState:
    """What the fast clock knows. `experts` are of `labels`, in this order; arrays are changed in place by `apply` only.

    `epoch`, `number`, `mark` and `last_seq` are those of the last pulse (`driftline.records.Pulse`); `version` was live
    when it was made.
    """

    epoch: str
    number: int
    mark: bytes
    last_seq: int
    version: int
    labels: tuple[str, ...]
    watch: WatchState
    experts: dict[str, ExpertState]


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    epoch: str
    number: int
    mark: bytes
    last_seq: int
    version: int
    labels: tuple[str, ...]
    watch: WatchState
    experts: bytes


def pack_fast_state(state: FastState) -> bytes:
    """Everything. Equal states give equal bytes."""
    packed = _Packed(
        FORMAT,
        state.epoch,
        state.number,
        state.mark,
        state.last_seq,
        state.version,
        state.labels,
        state.watch,
        pack_states(state.experts),
    )
    return msgspec.msgpack.encode(packed)


def unpack_fast_state(data: bytes) -> FastState:
    """The inverse. ArtefactError(unreadable)."""
    try:
        packed = msgspec.msgpack.decode(data, type=_Packed)
        if packed.format not in READ:
            raise ValueError(f"it has format {packed.format}, this Driftline reads up to {FORMAT}")
        experts = unpack_states(packed.experts)
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtefactError("unreadable", f"not a fast state: {error}") from None
    return FastState(
        epoch=packed.epoch,
        number=packed.number,
        mark=packed.mark,
        last_seq=packed.last_seq,
        version=packed.version,
        labels=packed.labels,
        watch=packed.watch,
        experts=experts,
    )


def pack_scoring(state: FastState) -> bytes:
    """The part that replicas answer with: the scoring arrays of all experts."""
    return pack_states({name: ExpertState(scoring=one.scoring) for name, one in state.experts.items()})
