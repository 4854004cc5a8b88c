"""What a model learns to do: everything that is particular to a task stands in one object (DESIGN §4).

A task is one file here, one line in `TASKS` and its name in `driftline.names.TaskName`; nothing else branches on it.
Whoever has a config or a manifest asks `task_named`. Importing this needs no torch: a task imports it where it counts.

`outputs` in signatures are what the one linear head gives for a batch, fp32: (B, R), with R rows for `labels`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from driftline.errors import ArtefactError
from driftline.figures import Figures
from driftline.label_change import LabelTerms
from driftline.records import GateReason
from driftline.tasks.classification import Classification
from driftline.tasks.comparison import Answers, Comparison

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TASKS", "Answers", "Comparison", "Task", "task_named"]


class Task(Protocol):
    """Pure: no I/O, no state, no randomness; the same arguments give the same answer. A class is named by its label, as
    labels and answers travel, in the order of the head's rows; what a label is to the loss only the task knows.
    """

    @property
    def name(self) -> str:
        """As config and manifests write it."""

    # --- the head

    def rows(self, labels: Sequence[str]) -> int:
        """R: how many rows the head has for these labels."""

    def moved_rows(self, before: Sequence[str], terms: LabelTerms) -> list[int | None]:
        """For each row of the head under the config's labels the one that it was under those `before`; None: it is
        new, and starts with zeros."""

    # --- learning

    def targets(self, wanted: Sequence[str], labels: Sequence[str]) -> list[Any]:
        """What the loss takes for each wanted label; None for one that is not among `labels`."""

    def loss(self, outputs: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """The loss summed over the batch, a scalar in nats, to be differentiated."""

    def taught_rows(self, targets: Sequence[Any], rows: int, /) -> Collection[int]:
        """Those of the head's `rows` that examples with these targets teach when to answer. A row that no example ever
        taught stays out of the answer."""

    # --- answering

    def scores(self, outputs: "Tensor", labels: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """For each row of the batch its scores over its own `labels`, whose outputs are its first columns; NaN where an
        output is not finite."""

    def blank(self, labels: Sequence[str]) -> dict[str, float]:
        """The scores of a head of zeros, which knows nothing (version 0)."""

    def label(self, scores: Mapping[str, float]) -> str:
        """The answer that these scores come to."""

    # --- judging

    def answers(
        self, outputs: "Tensor", labels: Sequence[str], knows: Collection[str] | None = None
    ) -> list[str | None]:
        """The answer of each row, of what the head `knows` (None: all labels), since rows that are new in it would
        answer, too; None where it knows nothing."""

    def is_right(self, answer: str | None, truth: str) -> bool:
        """Whether an answer counts as right; a missing one never does."""

    def figures(
        self, answers: Answers, truth: Mapping[int, str], seqs: Sequence[int], *, by_class: bool = True
    ) -> Figures:
        """The exam on these example numbers, at least one. `by_class` False leaves out what grows with the classes."""

    def compare(
        self, candidate: Answers, reference: Answers, truth: Mapping[int, str], seqs: Sequence[int]
    ) -> Comparison:
        """Two versions on the same hold-outs, at least one."""

    def objections(
        self,
        candidate: Answers,
        incumbent: Answers,
        truth: Mapping[int, str],
        seqs: Sequence[int],
        significance: float | None,
    ) -> list[GateReason]:
        """What there is to say against a candidate that is not shown to do more than guess, at this significance.
        None: the hold-outs are too few for a test. A reason that does not hold rejects it."""


TASKS: dict[str, Task] = {task.name: task for task in (Classification(),)}


def task_named(name: str) -> Task:
    """The task that a config or a manifest names. ArtefactError(wrong_task) for one that this Driftline has not."""
    if name not in TASKS:
        raise ArtefactError("wrong_task", f"task {name!r} is none of this Driftline's ({', '.join(TASKS)})")
    return TASKS[name]
