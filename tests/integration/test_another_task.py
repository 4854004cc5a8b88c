"""A task that is no classification, from buffer to answer: nothing outside `driftline/tasks` knows what it is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driftline import tasks
from driftline.artefact.manifest import Trust
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig
from driftline.registry import Registry
from tests.fixtures.learning import FEED, School, reviews
from tests.fixtures.replicas import Replica, eventually
from tests.fixtures.tasks import Ordinal

ORDER = ("awful", "bad", "fair", "good", "great")
THINGS = ("film", "phone", "room", "book", "meal", "ship", "coat")


@pytest.fixture
def school(
    registry: Registry, tiny_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[School]:
    monkeypatch.setitem(tasks.TASKS, "ordinal", Ordinal())
    base: Base = load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu", max_tokens=64))
    school = School(folder=tmp_path / "school", registry=registry, base=base)
    school.change(labels=ORDER)
    school.section = school.section.model_copy(update={"task": "ordinal"})
    yield school
    school.close()


def add(school: School, count: int) -> None:
    events = []
    for number, one in enumerate(reviews(school.added, count), start=school.added):
        label = ORDER[number % len(ORDER)]
        text = f"{label} {label} {label} {THINGS[number % len(THINGS)]} {number}"
        events.append(replace(one, label=label, text=text, value=text.encode()))
    school.append(events)
    school.added += count


def test_it_learns_is_judged_is_served_and_goes_on(school: School, tmp_path: Path) -> None:
    learner = school.learner()
    for _ in range(6):
        add(school, 120)
        learner.keep_house()
        report = learner.turn()
        assert report is not None
    manifest = school.manifest(school.live())
    assert manifest.task == "ordinal"
    assert {len(row) for row in manifest.probe.logits} == {len(ORDER) - 1}
    assert manifest.evaluation["pooled"].accuracy > 0.5, "the majority has 0.2"
    with Replica(
        school.registry, Trust.of(school.signer.public_key), school.base, {FEED: school.section}, tmp_path
    ) as replica:
        blank = replica.watch().engine.predict(FEED, ["ok"], 0)[0]
        assert blank.label is None
        assert blank.scores["awful"] == blank.scores["great"] == 0.5, "a cumulative link of zeros"
        assert eventually(lambda: replica.live(FEED) == school.live())
        texts = [f"{label} {label} {label} film 7" for label in ORDER]
        answers = replica.engine.predict(FEED, texts)
        assert sum(answer.label == label for answer, label in zip(answers, ORDER, strict=True)) >= 3
