"""A version's head and state under other labels: what it knew of the classes that stay is the same."""

import pytest
import torch

from driftline.artefact.weights import Weights
from driftline.config import FeedConfig
from driftline.tasks import task_named
from learner.moments import Moments
from learner.recent import RecentWindow
from learner.relabel import fit_state, fit_weights
from learner.reservoir import ReservoirState
from learner.trainer_state import TrainerState, pack_state, unpack_state

TASK = task_named("classification")
OLD = ("negative", "neutral", "positive")


def terms(*labels: str, retired: tuple[str, ...] = (), **renames: str) -> FeedConfig:
    return FeedConfig(labels=labels, retired_labels=retired, label_map=renames)


CHANGES = {
    "added": terms(*OLD, "mixed"),
    "added in front": terms("mixed", *OLD),
    "removed": terms("negative", "positive", retired=("neutral",)),
    "renamed": terms("bad", "neutral", "positive", negative="bad"),
    "reordered": terms("positive", "negative", "neutral"),
    "all at once": terms("mixed", "good", "negative", retired=("neutral",), positive="good"),
}


@pytest.mark.parametrize("config", CHANGES.values(), ids=CHANGES)
def test_logits_of_the_classes_that_stay_are_the_same_and_new_rows_are_zero(config: FeedConfig) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = Weights(
        body={"a.lora_A": torch.randn(2, 5, generator=generator)},
        head_weight=torch.randn(3, 5, generator=generator),
        head_bias=torch.randn(3, generator=generator),
    )
    features = torch.randn(7, 5, generator=generator)
    fitted = fit_weights(weights, TASK.moved_rows(OLD, config))
    before = {name: features @ w + b for name, w, b in zip(OLD, weights.head_weight, weights.head_bias, strict=True)}
    after = features @ fitted.head_weight.T + fitted.head_bias
    assert fitted.body is weights.body
    for column, label in enumerate(config.labels):
        was = next((old for old in OLD if old == label or config.label_map.get(old) == label), None)
        expected = torch.zeros(7) if was is None else before[was]
        assert float((after[:, column] - expected).abs().max()) < 1e-6


def test_of_merged_classes_the_one_that_had_the_name_keeps_its_row() -> None:
    assert TASK.moved_rows(OLD, terms("negative", "positive", neutral="negative")) == [0, 2]
    assert TASK.moved_rows(OLD, terms("positive", "negative", neutral="positive")) == [2, 0]
    assert TASK.moved_rows(OLD, terms("rest", "positive", negative="rest", neutral="rest")) == [0, 2]


def test_moments_and_reservoir_follow_the_classes() -> None:
    moments = {
        "a.lora_A.exp_avg": torch.ones(2, 5),
        "head.weight.exp_avg": torch.arange(15.0).reshape(3, 5),
        "head.weight.exp_avg_sq": torch.arange(15.0).reshape(3, 5) + 100,
        "head.bias.exp_avg": torch.tensor([1.0, 2.0, 3.0]),
        "head.bias.exp_avg_sq": torch.tensor([4.0, 5.0, 6.0]),
    }
    state = TrainerState(
        optimizer=Moments(step=12, means=moments),
        reservoir=ReservoirState(
            entries=((1, "negative"), (2, "neutral"), (3, "positive"), (4, "negative")),
            seen={"negative": 20, "neutral": 10, "positive": 5},
            full=frozenset({"negative", "neutral", ""}),
        ),
        recent=RecentWindow((3, 4)),
        buffer="b",
    )
    config = CHANGES["all at once"]
    fitted = fit_state(state, TASK.moved_rows(OLD, config), config)
    assert fitted.optimizer.means["a.lora_A.exp_avg"] is moments["a.lora_A.exp_avg"]
    assert fitted.optimizer.means["head.bias.exp_avg"].tolist() == [0.0, 3.0, 1.0]
    assert fitted.optimizer.means["head.bias.exp_avg_sq"].tolist() == [0.0, 6.0, 4.0]
    for kind in ("exp_avg", "exp_avg_sq"):
        was = moments[f"head.weight.{kind}"]
        assert torch.equal(fitted.optimizer.means[f"head.weight.{kind}"], torch.stack([torch.zeros(5), was[2], was[0]]))
    assert fitted.reservoir.entries == ((1, "negative"), (3, "good"), (4, "negative"))
    assert fitted.reservoir.seen == {"negative": 20, "good": 5}
    assert fitted.reservoir.full == {"negative", ""}
    assert (fitted.optimizer.step, fitted.recent.seqs, fitted.buffer) == (12, (3, 4), "b")
    assert pack_state(unpack_state(pack_state(fitted))) == pack_state(fitted)


def test_the_same_labels_are_the_same_rows() -> None:
    assert TASK.moved_rows(OLD, terms(*OLD)) == [0, 1, 2]
