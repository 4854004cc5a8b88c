"""Every task keeps what `driftline.tasks.Task` promises, and the names that configs write are those there are."""

import math
import subprocess
import sys
from typing import get_args

import pytest
import torch

from driftline.config import FeedConfig
from driftline.errors import ArtefactError
from driftline.names import TaskName
from driftline.tasks import TASKS, Task, task_named
from tests.fixtures.tasks import Ordinal

LABELS = ("low", "middle", "high")


@pytest.fixture(params=[*TASKS.values(), Ordinal()], ids=lambda task: task.name)
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


def outputs(task: Task, count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, task.rows(LABELS), generator=generator) * 3


def test_a_config_names_exactly_the_tasks_there_are() -> None:
    assert set(get_args(TaskName)) == set(TASKS) == {task.name for task in TASKS.values()}
    assert all(task_named(name).name == name for name in TASKS)
    with pytest.raises(ArtefactError, match="regression") as caught:
        task_named("regression")
    assert caught.value.code == "wrong_task"


def test_tasks_are_light() -> None:
    """So that config checks, status and the fast clock may ask them."""
    code = "import sys, driftline.tasks; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy", "scipy", "transformers"} & set(loaded) == set()


def test_an_unknown_label_has_no_target(task: Task) -> None:
    targets = task.targets(["high", "nothing", "low"], LABELS)
    assert targets[1] is None
    assert None not in (targets[0], targets[2])


def test_following_the_loss_leads_to_the_right_answers(task: Task) -> None:
    wanted = ["low", "high", "middle", "high"]
    head = torch.zeros(len(wanted), task.rows(LABELS), requires_grad=True)
    optimizer = torch.optim.SGD([head], lr=1.0)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = task.loss(head, task.targets(wanted, LABELS))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert task.answers(head.detach(), LABELS) == wanted


def test_the_loss_is_a_sum_over_the_batch(task: Task) -> None:
    rows = outputs(task, 6)
    targets = task.targets(["low", "high", "middle"] * 2, LABELS)
    alone = [float(task.loss(row[None], [target])) for row, target in zip(rows, targets, strict=True)]
    assert float(task.loss(rows, targets)) == pytest.approx(sum(alone), rel=1e-5)


def test_scores_are_probabilities_and_come_to_the_answer(task: Task) -> None:
    rows = outputs(task)
    scores = task.scores(rows, [LABELS] * len(rows))
    for one in scores:
        assert list(one) == list(LABELS)
        assert math.fsum(one.values()) == pytest.approx(1, abs=1e-6)
    assert [task.label(one) for one in scores] == task.answers(rows, LABELS)


def test_each_row_is_scored_over_its_own_labels(task: Task) -> None:
    """A batch mixes versions with other numbers of labels: their outputs are the first columns."""
    few, rows = LABELS[:2], outputs(task)
    alone = task.scores(rows[:, : task.rows(few)], [few] * len(rows))
    mixed = task.scores(rows, [few, LABELS] * (len(rows) // 2))
    for place in range(0, len(rows), 2):
        assert list(mixed[place]) == list(few)
        assert mixed[place] == pytest.approx(alone[place], abs=1e-6)


def test_what_is_not_finite_is_told(task: Task) -> None:
    rows = torch.full((1, task.rows(LABELS)), float("nan"))
    assert any(map(math.isnan, task.scores(rows, [LABELS])[0].values()))


def test_a_head_of_zeros_is_blank(task: Task) -> None:
    (scores,) = task.scores(torch.zeros(1, task.rows(LABELS)), [LABELS])
    assert task.blank(LABELS) == pytest.approx(scores)


def test_nothing_known_is_no_answer(task: Task) -> None:
    assert task.answers(outputs(task, 3), LABELS, frozenset()) == [None] * 3


def test_rows_stay_where_labels_do(task: Task) -> None:
    assert len(task.moved_rows(LABELS, FeedConfig(labels=(*LABELS, "more")))) == task.rows((*LABELS, "more"))


def test_a_missing_answer_is_wrong_and_equal_versions_are_equal(task: Task) -> None:
    truth = dict(enumerate(LABELS * 40))
    right, none = dict(truth), dict.fromkeys(truth)
    assert all(task.is_right(right[seq], truth[seq]) for seq in truth)
    assert not any(task.is_right(none[seq], truth[seq]) for seq in truth)
    same = task.compare(right, right, truth, list(truth))
    assert (same.n, same.loss, same.candidate, same.reference, same.p_value) == (120, 0, 1, 1, 1)
    worse = task.compare(none, right, truth, list(truth))
    assert (worse.loss, worse.candidate, worse.reference) == (1, 0, 1)
    assert worse.p_value < 1e-30
    assert task.figures(right, truth, list(truth)).accuracy == 1
    assert task.figures(right, truth, list(truth), by_class=False).recall == {}


def test_a_guesser_is_objected_to_where_the_incumbent_is_better(task: Task) -> None:
    truth = dict(enumerate(LABELS * 40))
    guesser, good = dict.fromkeys(truth, "low"), dict(truth)
    (reason,) = task.objections(guesser, good, truth, list(truth), 0.05)
    assert (reason.code, reason.holds) == ("answers_one_class", False)
    assert task.objections(good, guesser, truth, list(truth), 0.05) == []


def test_of_equal_scores_the_first_label_wins() -> None:
    """As everywhere in a classification: a tie must not depend on who asks."""
    task = task_named("classification")
    rows = torch.tensor([[0.5, 0.5, 0.1], [0.1, 0.7, 0.7]])
    assert (
        [task.label(one) for one in task.scores(rows, [LABELS] * 2)] == task.answers(rows, LABELS) == ["low", "middle"]
    )
