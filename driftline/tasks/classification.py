"""One of several classes for each text: a head row for each, cross-entropy, the class with the greatest score."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from driftline.figures import Figures, figures_on
from driftline.label_change import LabelTerms, current_name
from driftline.records import GateReason
from driftline.tasks.comparison import Answers, Comparison, compare_right

if TYPE_CHECKING:
    from torch import Tensor

    from driftline.tasks.majority import Standing


@dataclass(frozen=True, slots=True)
class Classification:
    """`driftline.tasks.Task`. A label's target is its place among the labels, which is its row of the head."""

    name: str = "classification"

    def rows(self, labels: Sequence[str]) -> int:
        """One for each class."""
        return len(labels)

    def moved_rows(self, before: Sequence[str], terms: LabelTerms) -> list[int | None]:
        """By name, renames followed. Of classes merged by a rename, the row of the one that had the name counts, else
        the first."""
        named = [current_name(label, terms) for label in before]
        rows = {name: index for index, name in reversed(list(enumerate(named)))}
        rows |= {label: index for index, label in enumerate(before) if label in terms.labels}
        return [rows.get(label) for label in terms.labels]

    def targets(self, wanted: Sequence[str], labels: Sequence[str]) -> list[int | None]:
        """Indices into `labels`."""
        index = {label: i for i, label in enumerate(labels)}
        return [index.get(label) for label in wanted]

    def loss(self, outputs: "Tensor", targets: Sequence[int]) -> "Tensor":
        """Cross-entropy of softmax(outputs)."""
        import torch

        wanted = torch.tensor(targets, device=outputs.device)  # (B,) int64
        return torch.nn.functional.cross_entropy(outputs, wanted, reduction="sum")

    def taught_rows(self, targets: Sequence[int], rows: int) -> Collection[int]:
        """Each class its own: from the others' examples it could only learn to be silent."""
        return {target for target in targets if target < rows}

    def scores(self, outputs: "Tensor", labels: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Softmax over each row's own classes, in fp64: they sum to 1."""
        import torch

        counts = torch.tensor([len(own) for own in labels]).unsqueeze(1)  # (B, 1)
        outside = torch.arange(outputs.shape[1]).unsqueeze(0) >= counts  # (B, R)
        scores = outputs.double().masked_fill(outside, float("-inf")).softmax(dim=1).tolist()
        return [dict(zip(own, row, strict=False)) for own, row in zip(labels, scores, strict=True)]

    def blank(self, labels: Sequence[str]) -> dict[str, float]:
        """Every class alike."""
        return dict.fromkeys(labels, 1.0 / len(labels))

    def label(self, scores: Mapping[str, float]) -> str:
        """The class with the greatest score; the first of equal ones."""
        return max(scores, key=scores.__getitem__)

    def answers(
        self, outputs: "Tensor", labels: Sequence[str], knows: Collection[str] | None = None
    ) -> list[str | None]:
        """The class with the greatest output among those it knows; a class that is new has a row of zeros."""
        columns = [column for column, label in enumerate(labels) if knows is None or label in knows]
        if not columns:
            return [None] * len(outputs)
        return [labels[columns[winner]] for winner in outputs[:, columns].argmax(dim=1).tolist()]

    def is_right(self, answer: str | None, truth: str) -> bool:
        """The same class."""
        return answer == truth

    def figures(
        self, answers: Answers, truth: Mapping[int, str], seqs: Sequence[int], *, by_class: bool = True
    ) -> Figures:
        """Accuracy and macro-F1; by class, the recalls."""
        return figures_on(answers, truth, seqs, recall=by_class)

    def compare(
        self, candidate: Answers, reference: Answers, truth: Mapping[int, str], seqs: Sequence[int]
    ) -> Comparison:
        """Accuracies, by exact McNemar."""
        return compare_right((candidate.get(seq) == truth[seq], reference.get(seq) == truth[seq]) for seq in seqs)

    def objections(
        self,
        candidate: Answers,
        incumbent: Answers,
        truth: Mapping[int, str],
        seqs: Sequence[int],
        significance: float | None,
    ) -> list[GateReason]:
        """A candidate that answers one class only, or is not shown to do more than answer the most frequent one
        (`driftline.tasks.majority`), is rejected where the incumbent is shown to and has the greater mean recall; where
        nothing better is live it may go live, and the reason says what it is. Without a test only one that answers a
        single class is looked at, and what stands there counts."""
        from driftline.tasks.majority import standing

        ours, theirs = standing(candidate, truth, seqs), standing(incumbent, truth, seqs)
        if ours is None or theirs is None:
            return []
        one_class = len(ours.answered) == 1
        if not one_class and (significance is None or ours.p_value < significance):
            return []
        shown = len(theirs.answered) > 1 if significance is None else theirs.p_value < significance
        better_is_live = shown and theirs.balanced > ours.balanced
        return [_guesses(ours, len(seqs), holds=not better_is_live)]


def _guesses(ours: "Standing", n: int, *, holds: bool) -> GateReason:
    one_class = len(ours.answered) == 1
    return GateReason(
        code="answers_one_class" if one_class else "not_above_majority",
        holds=holds,
        against="majority",
        reference="pooled",
        n=n,
        candidate_accuracy=ours.accuracy,
        reference_accuracy=ours.share,
        p_value=ours.p_value,
        detail=ours.answered[0] if one_class else ours.majority,
    )
