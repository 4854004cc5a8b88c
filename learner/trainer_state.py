"""What the learner must remember between two updates of a feed, and its one encoding as a blob (DESIGN §3.5).

With the parent's weights and this state, an update is a function of its plan: save, load and go on equals never having
stopped, byte for byte on a CPU. There is no generator state in here: every draw of a cycle comes from a generator
seeded with that cycle's own seed, so repeating a cycle repeats its draws.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from driftline.artefact.weights import pack_tensors, unpack_tensors
from driftline.config import LearnerConfig
from driftline.errors import ArtefactError
from learner.reservoir import ReservoirState

MOMENTS = "moments."
FORMAT = "1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainerState:
    """`step`: optimizer steps over all cycles (the warm-up counts on it). `moments`: AdamW's two running means of each
    trained tensor, "NAME.exp_avg" and "NAME.exp_avg_sq", fp32 on the CPU, names as in `LoraModel.parameters`.
    `reservoir` and `recent` (oldest first) are the example numbers that replay draws from, and `buffer` the identity of
    the buffer that they are numbers of. No text is in here.
    """

    step: int = 0
    moments: dict[str, Tensor] = field(default_factory=dict)
    reservoir: ReservoirState = field(default_factory=ReservoirState)
    recent: tuple[int, ...] = ()
    buffer: str | None = None

    @classmethod
    def initial(cls, section: LearnerConfig) -> "TrainerState":  # noqa: ARG003
        """The state before the first update: nothing trained, nothing remembered, whatever the section."""
        return cls()

    def without(self, seqs: Collection[int]) -> "TrainerState":
        """The state without these examples, as if replay had never kept them; counts of what was seen stay."""
        kept = tuple(entry for entry in self.reservoir.entries if entry[0] not in seqs)
        recent = tuple(seq for seq in self.recent if seq not in seqs)
        return replace(self, reservoir=replace(self.reservoir, entries=kept), recent=recent)

    def without_examples(self, buffer: str) -> "TrainerState":
        """The state for a learner on this buffer where its numbers are not of it: they would name nothing, or other
        examples, so reservoir and recent window start empty. Moments and step stay."""
        return replace(self, reservoir=ReservoirState(), recent=(), buffer=buffer)


def pack_state(state: TrainerState) -> bytes:
    """Canonical safetensors: equal states give equal bytes."""
    kept = state.reservoir
    classes = sorted({*kept.seen, *(label for _, label in kept.entries)})
    number = {label: index for index, label in enumerate(classes)}
    tensors = {f"{MOMENTS}{name}": value for name, value in state.moments.items()}
    tensors["reservoir.seqs"] = torch.tensor([seq for seq, _ in kept.entries], dtype=torch.int64)
    tensors["reservoir.classes"] = torch.tensor([number[label] for _, label in kept.entries], dtype=torch.int64)
    tensors["recent"] = torch.tensor(state.recent, dtype=torch.int64)
    metadata = {
        "format": FORMAT,
        "step": str(state.step),
        "classes": json.dumps(classes),
        "seen": json.dumps([kept.seen.get(label, 0) for label in classes]),
        "full": json.dumps(sorted(kept.full)),
        **({} if state.buffer is None else {"buffer": state.buffer}),
    }
    return pack_tensors(tensors, metadata)


def unpack_state(data: bytes) -> TrainerState:
    """The exact inverse of `pack_state`. ArtefactError(unreadable) if this is no trainer state."""
    tensors, metadata = unpack_tensors(data)
    try:
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']}, this version reads {FORMAT}")
        return TrainerState(
            step=int(metadata["step"]),
            moments={name.removeprefix(MOMENTS): one for name, one in tensors.items() if name.startswith(MOMENTS)},
            reservoir=_reservoir(tensors, metadata),
            recent=tuple(tensors["recent"].tolist()),
            buffer=metadata.get("buffer"),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ArtefactError("unreadable", f"not a trainer state: {error}") from None


def _reservoir(tensors: dict[str, Tensor], metadata: dict[str, str]) -> ReservoirState:
    classes: list[str] = json.loads(metadata["classes"])
    seqs, numbers = tensors["reservoir.seqs"].tolist(), tensors["reservoir.classes"].tolist()
    seen = dict(zip(classes, json.loads(metadata["seen"]), strict=True))
    return ReservoirState(
        entries=tuple((seq, classes[number]) for seq, number in zip(seqs, numbers, strict=True)),
        seen={label: count for label, count in seen.items() if count},
        full=frozenset(json.loads(metadata["full"])),
    )
