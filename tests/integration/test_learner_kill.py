"""The learner killed with SIGKILL, at random moments and between every two steps: nothing is lost, nothing twice."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftline.artefact.manifest import Trust
from driftline.artefact.weights import pack_body, pack_head
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig
from driftline.names import Keys
from driftline.registry import Registry, connect
from driftline.tasks import task_named
from learner.model import LoraModel
from learner.trainer_state import pack_state
from learner.training import Training
from learner.versions import Versions
from tests.fixtures.learner_process import Child, Nursery
from tests.fixtures.learning import FEED, School, section

KILLS = 20
SMALL: dict[str, Any] = {"schedule": {"min_examples": 12, "max_examples": 20}}
LEFT_OVER = 11


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu", max_tokens=64))


@pytest.fixture(scope="module")
def nursery(tiny_base_dir: Path) -> Iterator[Nursery]:
    nursery = Nursery(tiny_base_dir)
    yield nursery
    nursery.close()


class Trial:
    """One buffer and registry, the processes that work on them, and what must hold in the end."""

    def __init__(self, folder: Path, redis_url: str, prefix: str, base: Base) -> None:
        self.client = connect(redis_url, prefix)
        self.registry = Registry(self.client, Keys(prefix))
        self.school = School(folder=folder, registry=self.registry, base=base, section=section(**SMALL))
        self.order: dict[str, Any] = {
            "folder": str(folder),
            "redis": redis_url,
            "prefix": prefix,
            "until": LEFT_OVER,
            "section": SMALL,
            "lease_ttl_s": 60.0,
        }

    def start(self, nursery: Nursery, **more: Any) -> Child:
        """The next life. The lease of a killed one has run out, which took no time here."""
        self.client.delete(Keys(self.order["prefix"]).lease(FEED, "learner"))
        return nursery.start(**self.order, **more)

    def close(self) -> None:
        self.school.close()
        self.client.close()

    def check(self) -> None:
        """Nothing lost, nothing twice, and every version is what its plan makes of its parent."""
        buffer, audit = self.school.buffer, self.registry.audit(FEED)
        cycles = buffer.ledger.cycles(FEED)
        assert {row.outcome for row in cycles} <= {"promoted", "rejected"}
        promoted = [row.cycle.version for row in cycles if row.outcome == "promoted"]
        assert [entry.version for entry in audit] == promoted, "none published twice, none lost"
        assert [entry.revision for entry in audit] == list(range(1, len(promoted) + 1))
        assert self.registry.versions(FEED) == sorted(row.cycle.version for row in cycles)
        assert self.registry.live(FEED).version == promoted[-1]
        lineage = set(buffer.ledger.lineage(FEED, promoted[-1]))
        times = Counter(seq for row in cycles if row.cycle.version in lineage for seq in row.cycle.plan.fresh)
        assert set(times.values()) == {1}, "no example is learned twice"
        counts = buffer.counts(FEED)
        assert counts.learned == len(times)
        assert counts.examples == counts.holdouts + counts.learned + counts.fresh + counts.retired + counts.remembered
        self._check_bytes()

    def _check_bytes(self) -> None:
        school = self.school
        model = LoraModel(school.base, task_named(school.section.task), school.section.labels, school.section.learner)
        versions = Versions(FEED, self.registry, Trust.of(school.signer.public_key), school.section, model)
        training = Training(FEED, school.section, school.buffer, model)
        for row in school.buffer.ledger.cycles(FEED):
            loaded = versions.load(row.cycle.version)
            again = training.update(row.cycle, versions.load(row.cycle.parent))
            assert loaded.weights is not None
            assert loaded.state is not None
            assert pack_body(loaded.weights) == pack_body(again.result.weights)
            assert pack_head(loaded.weights) == pack_head(again.result.weights)
            assert pack_state(loaded.state) == pack_state(again.state)

    def all_blobs(self) -> list[tuple[str, str, str | None]]:
        return [self.school.parts(version) for version in self.registry.versions(FEED)]


@pytest.fixture
def trial(tmp_path: Path, redis_url: str, unique: str, base: Base) -> Iterator[Trial]:
    trial = Trial(tmp_path / "trial", redis_url, unique, base)
    yield trial
    trial.close()


@pytest.fixture
def calm(tmp_path: Path, redis_url: str, unique: str, base: Base) -> Iterator[Trial]:
    """The same, never killed."""
    calm = Trial(tmp_path / "calm", redis_url, f"{unique}-calm", base)
    yield calm
    calm.close()


def test_killed_twenty_times_at_random_moments(trial: Trial, nursery: Nursery) -> None:
    trial.school.add(60)
    first = trial.start(nursery)
    assert first.wait() == 0
    length_s = max(line["seconds"] for line in first.said if "turn" in line)
    trial.school.add(900)
    chance, waiting, cut_short = random.Random(20), threading.Event(), 0
    for _ in range(KILLS):
        child = trial.start(nursery)
        assert child.hears("ready")
        waiting.wait(chance.uniform(0.0, 2 * length_s))
        child.kill()
        cut_short += trial.school.buffer.ledger.open_cycle(FEED) is not None
    last = trial.start(nursery)
    assert last.wait() == 0
    assert cut_short >= KILLS // 4, "the kills are to hit open cycles"
    assert any("turn" in line for line in last.said), "there is to be work for every process"
    assert trial.school.buffer.ledger.new_count(FEED) <= LEFT_OVER
    trial.check()


STEPS = [
    ("registry", "next_version", "before", 1),
    ("registry", "next_version", "after", 1),
    ("ledger", "take", "after", 1),
    ("exams", "cache_predictions", "after", 1),
    ("registry", "put_blob", "before", 1),
    ("registry", "put_blob", "after", 2),
    ("registry", "put_blob", "after", 3),
    ("registry", "publish", "before", 1),
    ("registry", "publish", "after", 1),
    ("ledger", "ack", "before", 1),
    ("ledger", "ack", "after", 1),
    ("ledger", "reconcile", "after", 2),
    ("registry", "collect_garbage", "after", 1),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: "-".join(map(str, step)))
def test_killed_between_two_steps(trial: Trial, calm: Trial, nursery: Nursery, step: tuple[Any, ...]) -> None:
    for one in (trial, calm):
        one.school.add(120)
    for kill in (step, step):  # the first cycle is the first version's, the second has a parent and replay
        assert trial.start(nursery, die=kill).wait() == -9
    assert trial.start(nursery).wait() == 0
    assert calm.start(nursery).wait() == 0
    trial.check()
    if step[:3] != ("registry", "next_version", "after"):  # else there are gaps, and other seeds
        assert trial.all_blobs() == calm.all_blobs()
