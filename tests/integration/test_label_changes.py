"""Labels changed on a feed that has state: real processes say so first, and the cycle goes on over the change."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from driftline.artefact.manifest import Trust, decode_manifest
from driftline.artefact.weights import pack_parts
from driftline.assembly.existing import existing_registry
from driftline.assembly.label_changes import require_labels
from driftline.assembly.wiring import open_buffer
from driftline.base import Base, load_base
from driftline.cli.label_changes import changes_in_words, labels_of_version
from driftline.cli.status import collect
from driftline.clock import Deadline
from driftline.config import BaseModelConfig, load_config
from driftline.errors import ConfigError
from driftline.records import Event
from driftline.registry import Registry
from learner.trainer_state import pack_state
from tests.fixtures.buffers import event
from tests.fixtures.learning import FEED, START, School, reviews
from tests.fixtures.ports import free_ports
from tests.fixtures.replicas import Replica, eventually, feed_config

THREE = ("negative", "neutral", "positive")
WORDS = {"negative": "awful", "neutral": "okay", "positive": "great", "mixed": "uneven"}
TEXTS = ["awful awful film", "great great phone", "okay okay room"]


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu", max_tokens=64))


@pytest.fixture
def school(registry: Registry, base: Base, tmp_path: Path) -> Iterator[School]:
    school = School(folder=tmp_path / "school", registry=registry, base=base)
    school.change(labels=THREE)
    yield school
    school.close()


def labelled(school: School, count: int, labels: tuple[str, ...]) -> list[Event]:
    found = []
    for one in reviews(school.added, count):
        label = labels[school.added % len(labels)]
        text = f"{WORDS.get(label, label)} {WORDS.get(label, label)} {one.text.split()[3]} {school.added}"
        found.append(replace(one, label=label, text=text, value=text.encode()))
        school.added += 1
    return found


def turn(school: School, labels: tuple[str, ...], count: int = 90) -> int:
    """Learn from so many more examples; the version that came out of it."""
    school.append(labelled(school, count, labels))
    learner = school.learner()
    learner.keep_house()
    report = learner.turn()
    assert report is not None
    learner.lease.release()
    return report.cycle.version


def scores(replica: Replica, version: int | None = None) -> list[dict[str, float]]:
    return [answer.scores for answer in replica.engine.predict(FEED, TEXTS, version)]


@pytest.fixture
def replica(school: School, base: Base, tmp_path: Path) -> Iterator[Replica]:
    trust = Trust.of(school.signer.public_key)
    with Replica(school.registry, trust, base, {FEED: feed_config(labels=THREE)}, tmp_path) as replica:
        replica.watch()
        yield replica


def test_a_class_is_added_and_a_replica_serves_old_and_new_without_a_failed_request(
    school: School, replica: Replica
) -> None:
    first = turn(school, THREE)
    assert school.live() == first
    assert eventually(lambda: replica.live(FEED) == first)
    before = scores(replica)
    head = school.learner()._shop.versions.load(first).weights
    assert head is not None

    adopted = school.change(labels=("mixed", *THREE))
    assert adopted.change.added == ("mixed",)
    learner = school.learner()
    parent = learner._shop.versions.load(first)
    assert parent.weights is not None
    assert torch.equal(parent.weights.head_weight[1:], head.head_weight)
    assert not parent.weights.head_weight[0].any()
    assert parent.knows == set(THREE)
    learner.lease.release()

    answered: list[int] = []
    second = turn(school, ("mixed", *THREE), 120)
    while replica.live(FEED) != school.live():
        answered.append(len(replica.engine.predict(FEED, TEXTS)))
    assert set(answered) <= {3}
    assert school.live() == second, school.manifest(second).decision
    assert school.manifest(second).labels == ("mixed", *THREE)
    assert set(scores(replica)[0]) == {"mixed", *THREE}
    assert [set(row) for row in scores(replica, first)] == [set(THREE)] * 3
    assert scores(replica, first) == [pytest.approx(row, abs=1e-6) for row in before]
    pooled = [
        r for r in school.manifest(second).decision.reasons if r.reference == "pooled" and r.against != "majority"
    ]
    known = [one for one in school.buffer.exams.segments(FEED) for _ in one.holdouts]
    assert pooled[0].n is not None
    assert pooled[0].n < len(known), "hold-outs of 'mixed' are not compared on"

    live = school.registry.live(FEED)
    school.registry.rollback(FEED, first, expected_revision=live.revision, actor="ana", reason="test", at=START)
    assert eventually(lambda: replica.live(FEED) == first)
    assert scores(replica) == [pytest.approx(row, abs=1e-6) for row in before]


def test_a_class_is_removed_renamed_and_put_back_on_one_state_folder(school: School, replica: Replica) -> None:
    first = turn(school, THREE)
    adopted = school.change(labels=("negative", "positive"), retired_labels=("neutral",))
    assert adopted.withdrawn > 0
    second = turn(school, ("negative", "positive"))
    assert school.manifest(second).labels == ("negative", "positive")
    gone = school.buffer.labels.withdrawn(FEED, range(1, 1000))
    manifest = school.manifest(second)
    learned = {
        n for first, last in (*manifest.examples.fresh, *manifest.examples.replayed) for n in range(first, last + 1)
    }
    remembered = school.learner()._shop.versions.load(second).state
    assert remembered is not None
    assert gone
    assert gone.isdisjoint(learned)
    assert gone.isdisjoint({seq for seq, _ in remembered.reservoir.entries} | set(remembered.recent.seqs))

    adopted = school.change(labels=("bad", "positive"), retired_labels=("neutral",), label_map={"negative": "bad"})
    assert adopted.change.renamed == {"negative": "bad"}
    third = turn(school, ("bad", "positive"))
    assert school.manifest(third).labels == ("bad", "positive")

    adopted = school.change(labels=("positive", "neutral", "bad"), label_map={"negative": "bad"})
    assert (adopted.change.added, adopted.restored) == (("neutral",), len(gone))
    fourth = turn(school, ("positive", "neutral", "bad"))
    assert school.manifest(fourth).labels == ("positive", "neutral", "bad")
    assert school.buffer.counts(FEED).withdrawn == 0
    assert eventually(lambda: replica.live(FEED) == school.live())
    for version in (first, second, third, fourth):
        assert [set(row) for row in scores(replica, version)] == [set(school.manifest(version).labels)] * 3


def test_reordered_labels_change_no_answer(school: School, replica: Replica) -> None:
    first = turn(school, THREE)
    assert eventually(lambda: replica.live(FEED) == first)
    served = scores(replica)
    school.change(labels=THREE[::-1])
    learner = school.learner()
    learner._shop.model.load(learner._shop.versions.load(first).weights)
    logits = learner._shop.model.predict(TEXTS).softmax(dim=1).tolist()
    for row, expected in zip(logits, served, strict=True):
        assert dict(zip(THREE[::-1], row, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_an_open_cycle_of_a_class_given_up_is_abandoned_and_the_next_one_learns(school: School) -> None:
    school.append(labelled(school, 90, THREE))
    learner = school.learner()
    cycle = learner._take(learner._live(), None)
    assert cycle is not None
    school.change(labels=("negative", "positive"), retired_labels=("neutral",))
    learner = school.learner()
    assert learner.turn() is None
    assert [row.outcome for row in school.buffer.ledger.cycles(FEED)] == ["abandoned"]
    report = learner.turn()
    assert report is not None
    assert report.outcome == "promoted"


def test_where_labels_did_not_change_a_parent_is_what_it_was_byte_for_byte(school: School) -> None:
    first = turn(school, THREE)
    found = school.learner()._shop.versions.load(first)
    assert found.weights is not None
    assert found.state is not None
    packed = {**pack_parts(found.weights), "trainer_state": pack_state(found.state)}
    found_parts = {name: hashlib.sha256(data).hexdigest() for name, data in packed.items()}
    assert found_parts.items() <= school.parts(first).items()
    assert found.knows is None


# --- the processes


@pytest.fixture
def config(tmp_path: Path, tiny_base_dir: Path) -> Callable[..., Path]:
    port, admin_port = free_ports(2)

    def write(labels: tuple[str, ...], more: str = "") -> Path:
        path = tmp_path / "driftline.toml"
        path.write_text(
            f'[base]\nmodel = "{tiny_base_dir}"\nmax_tokens = 48\ndevice = "cpu"\n'
            f"[serve]\nport = {port}\nadmin_port = {admin_port}\nthreads = 1\n"
            f"[feed.reviews]\nlabels = {json.dumps(labels)}\n{more}\n"
        )
        return path

    return write


def with_examples(path: Path) -> None:
    loaded = load_config(path)
    with closing(open_buffer(loaded)) as buffer:
        buffer.labels.adopt(FEED, datetime.now(UTC))
        records = [event(f"e{n}", n, label=THREE[n % 3]) for n in range(30)]
        buffer.intake.append(records, {}, datetime.now(UTC))


def run(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "driftline.cli", *arguments, "-c", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def test_every_process_says_the_same_first_and_ends_with_exit_code_2(config: Callable[..., Path]) -> None:
    with_examples(config(THREE))
    path = config(("negative", "positive"))
    files = sorted(one for one in (path.parent / "state").rglob("*") if one.is_file() and "sqlite3-" not in one.name)
    said = set()
    for verb in ("up", "ingest"):
        done = run(path, verb)
        assert done.returncode == 2, done.stderr
        said.add(done.stderr.strip())
    found = sorted(one for one in (path.parent / "state").rglob("*") if one.is_file() and "sqlite3-" not in one.name)
    assert [one for one in found if one.name != "up.lock"] == files, "nothing was started"
    for verb in ("learn", "serve", "score"):
        done = run(path, verb)
        assert done.returncode == 2, done.stderr
        said.add(done.stderr.strip().splitlines()[-1])
    run(path, "stop")
    assert len(said) == 1, said
    (sentence,) = said
    assert "leaves out 'neutral', which the feed's state has: put it back" in sentence

    checked = run(path, "check", "--json")
    assert checked.returncode == 1
    wrong = [one["detail"] for one in json.loads(checked.stdout)["checks"] if one["ok"] is False]
    assert [f"error: {one}" for one in wrong] == [sentence], "what Redis was not asked is unknown, not wrong"


def test_check_says_what_will_happen(config: Callable[..., Path]) -> None:
    with_examples(config(THREE))
    more = 'retired_labels = ["neutral"]\n[feed.reviews.label_map]\n"negative" = "bad"'
    path = config(("positive", "bad", "mixed"), more)
    ok, lines = changes_in_words(load_config(path), FEED)
    assert ok
    assert lines == [
        "adds 'mixed': the head gets a row of zeros",
        "retires 'neutral': 10 examples will be set aside from learning and measuring",
        "renames 'negative' into 'bad': 10 examples will have that label",
        "changes the order: the head's rows move along, answers by name stay the same",
    ]
    checked = run(path, "check", "--json")
    details = [one["detail"] for one in json.loads(checked.stdout)["checks"] if one["name"] == "labels of reviews"]
    assert details[:4] == lines
    with closing(open_buffer(load_config(path))) as buffer:
        buffer.labels.adopt(FEED, datetime.now(UTC))
    assert changes_in_words(load_config(path), FEED) == (True, []), "what was done is not announced again"
    path = config((*THREE[1:], "bad", "mixed"), '[feed.reviews.label_map]\n"negative" = "bad"')
    _, lines = changes_in_words(load_config(path), FEED)
    assert lines[0] == (
        "adds 'neutral': the head gets a row of zeros; 10 examples that were set aside will be learned again"
    )


def test_a_new_installation_has_nothing_to_say(config: Callable[..., Path]) -> None:
    loaded = load_config(config(THREE))
    require_labels(loaded)
    assert changes_in_words(loaded, FEED) == (True, [])
    with_examples(config(THREE))
    changed = load_config(config(("neutral", "positive")))
    with pytest.raises(ConfigError, match="leaves out 'negative'"):
        require_labels(changed)


def test_making_a_version_of_other_labels_live_says_so(school: School, config: Callable[..., Path]) -> None:
    manifest = school.manifest(turn(school, THREE))
    same, consented, refused = (
        labels_of_version(load_config(config(labels, more)), FEED, manifest)
        for labels, more in ((THREE, ""), (THREE[::2], 'retired_labels = ["neutral"]'), (THREE[::2], ""))
    )
    assert same == ""
    assert consented == "; version 1 answers with its own labels: negative, neutral, positive"
    assert refused.startswith(
        f"{consented}; processes refuse to start until the config says so, too: feed.reviews.labels"
    )


@contextmanager
def up(path: Path, log: Path) -> Iterator[Callable[[Callable[[], object]], None]]:
    """`driftline up`, ended at the end; what is yielded waits for a condition as long as it runs."""
    with log.open("a") as output:
        command = [sys.executable, "-m", "driftline.cli", "up", "-c", str(path)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    deadline, tick = Deadline(400.0), threading.Event()

    def wait_for(condition: Callable[[], object]) -> None:
        while not condition():
            assert process.poll() is None, log.read_text()[-3000:]
            assert not deadline.expired(), log.read_text()[-3000:]
            tick.wait(0.1)

    try:
        yield wait_for
    finally:
        process.terminate()
        assert process.wait(90) == 0, log.read_text()[-3000:]


@pytest.mark.timeout(600)
def test_up_goes_on_over_two_changes_on_one_state_folder(config: Callable[..., Path], tmp_path: Path) -> None:
    quick = (
        "\n[feed.reviews.schedule]\nevery_s = 1\nmin_examples = 40\nmax_examples = 150\n"
        "[feed.reviews.learner]\nthreads = 1\nlearning_rate = 0.01\n[feed.reviews.gate]\nmin_holdouts = 500\n"
    )
    log, sent = tmp_path / "up.log", 0

    def produce(path: Path, labels: tuple[str, ...]) -> None:
        nonlocal sent
        events = [
            {"id": f"e{n}", "text": f"{WORDS[labels[n % len(labels)]]} thing {n}", "label": labels[n % len(labels)]}
            for n in range(sent, sent + 120)
        ]
        sent += 120
        file = tmp_path / f"events-{sent}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in events))
        assert run(path, "produce", str(file)).returncode == 0

    def feed(path: Path) -> dict[str, Any]:
        return dict(collect(load_config(path), [FEED])["feeds"][FEED])

    def runs(path: Path) -> bool:
        """Whether `up` has started everything, the Redis included."""
        processes = collect(load_config(path), [FEED])["processes"].values()
        return len([one for one in processes if one["pid"]]) == 5

    def served(path: Path) -> set[str]:
        with closing(existing_registry(load_config(path))) as registry:  # type: ignore[type-var]
            assert registry is not None
            live = registry.live(FEED).version
            return set(decode_manifest(registry.manifest(FEED, live).document).labels) if live else set()

    path = config(THREE, quick)
    with up(path, log) as wait_for:
        wait_for(lambda: runs(path))
        produce(path, THREE)
        wait_for(lambda: served(path) == set(THREE))

    changed = (*THREE[::2], "mixed")
    path = config(changed, f'retired_labels = ["neutral"]{quick}')
    with up(path, log) as wait_for:
        wait_for(lambda: (counts := feed(path)["counts"]) is not None and counts.withdrawn == 40)
        produce(path, changed)
        wait_for(lambda: served(path) == set(changed))

    path = config(THREE, 'retired_labels = ["mixed"]' + quick)
    with up(path, log) as wait_for:
        wait_for(lambda: runs(path))
        produce(path, THREE)
        wait_for(lambda: served(path) == set(THREE) and feed(path)["counts"].fresh < 40)
        found = feed(path)["counts"]
        assert (found.withdrawn, found.examples, found.by_reason) == (40, 360, {})
