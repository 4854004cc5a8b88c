"""A class that a version never learned an example of: its head stays silent about it, and so does the expert `head`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from driftline.artefact.weights import Weights
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig, LearnerConfig
from driftline.experts import Block, Partial, probabilities
from driftline.experts.head import FLOOR, UNTRAINED, Head, log_probabilities
from driftline.tasks import task_named
from learner.model import LoraModel
from learner.update import Lesson, UpdateResult, run_update

TASK = task_named("classification")
LABELS = ("a", "b", "c", "d")
TEXTS = {0: ["good film", "great staff"], 1: ["bad film", "poor staff"], 2: ["slow phone", "late phone"]}
SECTION = LearnerConfig(learning_rate=1e-2, batch_examples=4, warmup_steps=0, threads=1)


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


def lessons(base: Base, *targets: int) -> list[Lesson]:
    pairs = [(text, target) for target in targets for text in TEXTS[target]] * 3
    tokens = base.tokenize([text for text, _ in pairs])
    return [Lesson(tokens=ids, target=target) for ids, (_, target) in zip(tokens, pairs, strict=True)]


def updated(base: Base, parent: UpdateResult | None, *targets: int, dtype: str = "float32") -> UpdateResult:
    model = LoraModel(base, TASK, LABELS, SECTION)
    model.load(parent.weights if parent else None)
    section = SECTION.model_copy(update={"dtype": dtype})
    return run_update(model, parent.state if parent else None, lessons(base, *targets), [], section, 0)


def scores(base: Base, weights: Weights) -> dict[str, float]:
    model = LoraModel(base, TASK, LABELS, SECTION)
    model.load(weights)
    return TASK.scores(model.predict(["good film"]), [LABELS])[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_class_without_an_example_has_no_part_in_the_head(base: Base, dtype: str) -> None:
    found = updated(base, None, 0, 1, dtype=dtype).weights
    assert found.head_weight[:2].any(dim=1).all()
    assert not found.head_weight[2:].any(), "the others' examples moved nothing there"
    assert found.head_bias[2:].tolist() == [UNTRAINED, UNTRAINED]
    answered = scores(base, found)
    assert max(answered["c"], answered["d"]) < 1e-100
    assert sum(answered.values()) == pytest.approx(1)


def test_its_first_example_lets_it_in_and_the_rest_goes_on(base: Base) -> None:
    first = updated(base, None, 0, 1)
    found = updated(base, first, 0, 1, 2)
    assert found.weights.head_weight[2].any()
    assert found.weights.head_bias[2] > -5, "it started from zero, not from where it was kept out"
    assert found.weights.head_bias[3] == UNTRAINED
    later = updated(base, found, 0, 1)
    assert later.weights.head_bias[2] > -5, "a class that was learned once stays in, also in an update without it"
    assert scores(base, later.weights)["c"] > 0


def test_a_head_of_before_which_learned_to_be_silent_about_a_class_stays_as_it_is(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, SECTION)
    silent = torch.full_like(model.weights().head_weight, 0.01)
    model.load(Weights(body=model.weights().body, head_weight=silent, head_bias=torch.full((4,), -1.0)))
    model.admit({0})
    assert model.weights().head_bias.tolist() == [-1.0] * 4


def head_of(logits: list[list[float]], own: tuple[str, ...], labels: tuple[str, ...]) -> Block:
    found = log_probabilities(np.array(logits, np.float32), own, labels)
    nothing = Partial.none(len(logits), 4)
    return Block(texts=("",) * len(logits), features=nothing, head=Partial.full(found))


def test_of_a_class_that_the_head_does_not_know_the_expert_says_nothing() -> None:
    block = head_of([[2.0, 0.0, UNTRAINED]], ("a", "b", "c"), ("a", "new", "b", "c"))
    assert block.head.values.argmax() == 0, "who asks for the head's own answer gets one that it knows"
    found = Head().score({}, block)
    known = np.log(np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum())
    np.testing.assert_allclose(found.values, [[known[0], 0, known[1], 0]], atol=1e-6)
    assert found.silent is not None
    assert found.silent.tolist() == [[False, True, False, True]]


def test_so_the_others_decide_between_what_it_knows_and_what_it_does_not() -> None:
    """Two known classes that the others find as likely as each other, a new one that they find twice as likely as both
    together: the head, sure of one of the two, changes nothing about the new one's odds against that one."""
    sure = Head().score({}, head_of([[9.0, 0.0, UNTRAINED]], LABELS[:3], LABELS[:3])).values[0]
    before = np.log([0.5, 0.5, 2.0])
    after = probabilities((before + sure)[None])[0]
    assert after[2] == pytest.approx(2 / 2.5, abs=1e-3)
    assert after[0] > 0.19


def test_an_unlikely_class_is_not_an_unknown_one() -> None:
    found = Head().score({}, head_of([[0.0, -60.0]], ("a", "b"), ("b", "a")))
    assert found.values.tolist() == [[FLOOR, 0.0]]
    assert not found.silent.any()
