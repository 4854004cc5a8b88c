"""A version's head and trainer state under other labels than it was made with: rows move by name, new ones are zero.

Guards that what a version knows of a class survives when classes are added, removed, renamed or reordered beside it:
the logits of the classes that stay are the same numbers. Where nothing changed, what comes in goes out, byte for byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from driftline.artefact.weights import Weights
from driftline.label_change import LabelTerms, current_name
from learner.reservoir import EVERYTHING, ReservoirState
from learner.trainer_state import TrainerState

Rows = Sequence[int | None]
"""As `Task.moved_rows` tells them."""


def fit_weights(weights: Weights, rows: Rows) -> Weights:
    """The same body; the head's rows in their new places."""
    head_weight, head_bias = _moved(weights.head_weight, rows), _moved(weights.head_bias, rows)  # (R', d), (R',)
    return replace(weights, head_weight=head_weight, head_bias=head_bias)


def fit_state(state: TrainerState, rows: Rows, terms: LabelTerms) -> TrainerState:
    """AdamW's moments of the head moved as the head is; the reservoir under the classes' names of today, without the
    classes that are gone. The recent window holds numbers only: `Training` drops what the buffer has withdrawn."""
    optimizer = state.optimizer.with_head(lambda means: _moved(means, rows))
    return replace(state, optimizer=optimizer, reservoir=rename_reservoir(state.reservoir, terms))


def rename_reservoir(kept: ReservoirState, terms: LabelTerms) -> ReservoirState:
    """Entries, counts and full classes by today's names; what is of no class any more is let go."""
    named = [(seq, current_name(label, terms)) for seq, label in kept.entries]
    full = {name for one in kept.full if (name := current_name(one, terms)) in (*terms.labels, EVERYTHING)}
    return ReservoirState(
        entries=tuple((seq, label) for seq, label in named if label in terms.labels),
        seen=_counted(kept.seen, terms),
        full=frozenset(full),
    )


def _counted(seen: Mapping[str, int], terms: LabelTerms) -> dict[str, int]:
    counts: dict[str, int] = {}
    for label, count in seen.items():
        if (name := current_name(label, terms)) in terms.labels:
            counts[name] = counts.get(name, 0) + count
    return counts


def _moved(tensor: Tensor, rows: Rows) -> Tensor:
    """(R, …) → (R', …): row i is what row `rows[i]` was, or zeros."""
    zero = torch.zeros_like(tensor[0])
    return torch.stack([zero if row is None else tensor[row] for row in rows])
