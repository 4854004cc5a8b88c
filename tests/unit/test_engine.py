"""The engine: admission, batches, pins, swaps, probes. No servers; a real tiny BERT, PEFT as the oracle."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from driftline import metrics
from driftline.artefact.weights import Weights
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig, FeedConfig, ServeConfig
from driftline.errors import ArtefactError, BadInput, ConfigError, NotReady, Overloaded, ServingError, UnknownVersion
from driftline.records import Manifest, Probe
from serving.batches import choose_rows
from serving.engine import Answer, Engine
from serving.probing import check_probe
from serving.slots import Resident, SlotTable
from tests.fixtures.registry import manifest_of
from tests.fixtures.replicas import Gate
from tests.fixtures.versions import make_manifest, peft_logits, random_weights

LABELS = ("negative", "neutral", "positive")
TEXTS = ["good phone", "the service was slow and the room was cold, but the food was great", "bad"]
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


@pytest.fixture(scope="module")
def versions(base: Base, tiny_base_dir: Path) -> dict[int, tuple[Manifest, Weights]]:
    weights = {version: random_weights(base, 3, seed=version) for version in range(1, 7)}
    return {version: (make_manifest(base, tiny_base_dir, one, "f", version), one) for version, one in weights.items()}


@pytest.fixture
def make_engine(base: Base) -> Iterator[Callable[..., Engine]]:
    engines = []

    def make(**section: Any) -> Engine:
        engine = Engine(base, ServeConfig(**section), {"f": FeedConfig(labels=LABELS)})
        engine.start()
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()


def serve(engine: Engine, versions: dict[int, tuple[Manifest, Weights]], version: int, revision: int) -> None:
    engine.stage("f", *versions[version])
    engine.activate("f", version, revision)


def matches(answers: Sequence[Answer], folder: Path, base: Base, weights: Weights, texts: Sequence[str]) -> bool:
    oracle = peft_logits(folder, weights, texts, alpha=16.0, max_tokens=base.max_tokens).softmax(dim=1)
    scores = torch.tensor([[answer.scores[label] for label in LABELS] for answer in answers])
    labels = [LABELS[int(row.argmax())] for row in oracle]
    return bool((scores - oracle).abs().max() < 1e-4) and [answer.label for answer in answers] == labels


# --- batches and slots, pure


def test_the_oldest_row_is_in_every_batch_and_the_budget_holds() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        lengths = torch.randint(1, 129, (int(torch.randint(1, 60, (1,), generator=generator)),), generator=generator)
        rows = choose_rows(lengths.tolist(), 512)
        chosen = [int(lengths[row]) for row in rows]
        assert 0 in rows
        assert len(set(rows)) == len(rows)
        assert chosen == sorted(chosen)
        assert len(rows) * max(chosen) <= 512 or len(rows) == 1
        if len(lengths) * int(lengths.max()) <= 512:
            assert sorted(rows) == list(range(len(lengths)))


def test_rows_of_like_length_go_together() -> None:
    assert choose_rows([10, 100, 11, 99, 10], 40) == [0, 4, 2]
    assert choose_rows([100, 10, 11, 99, 10], 200) == [3, 0]
    assert choose_rows([500], 100) == [0]


def test_thirty_two_texts_of_full_length_form_one_batch_by_default() -> None:
    section = ServeConfig()
    assert len(choose_rows([128] * 32, section.max_batch_tokens)) == 32


def test_slots_are_evicted_least_recently_used_first_and_never_while_pinned() -> None:
    table = SlotTable([1, 2])

    def claim(version: int) -> Resident:
        nothing: Any = None
        return table.claim(replace(manifest_of(version), feed="f"), nothing)

    first = claim(1)
    assert table.find("f", 1) is None, "found before it was proven"
    table.settle(first)
    second = claim(2)
    table.settle(second)
    with pytest.raises(Overloaded):
        claim(3)
    table.unpin(first)
    table.unpin(second)
    table.pin(first)
    table.unpin(first)
    third = claim(3)
    assert third.slot == second.slot
    assert table.find("f", 2) is None
    table.discard(third)
    assert claim(4).slot == third.slot


# --- answering


def test_version_zero_answers_no_label_and_equal_scores(engine: Engine) -> None:
    answers = engine.predict("f", TEXTS)
    assert [answer.label for answer in answers] == [None] * 3
    assert answers[0].scores == dict.fromkeys(LABELS, 1 / 3)
    assert answers[0].adapter_version == 0
    assert engine.active("f") == (0, 0)
    assert engine.predict("f", []) == []


def test_answers_are_counted_by_their_label(
    base: Base, engine: Engine, versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    def counted() -> dict[str, float]:
        names = (*LABELS, "_none", "_other")
        values = {
            n: metrics.SERVING.get_sample_value("driftline_answers_total", {"feed": "f", "label": n}) for n in names
        }
        return {name: value or 0.0 for name, value in values.items()}

    before = counted()
    engine.predict("f", ["one", "two"])
    serve(engine, versions, 1, 1)
    named = Counter(answer.label for answer in engine.predict("f", ["a good one", "a bad one", "some other"]))
    more = {name: value - before[name] for name, value in counted().items() if value != before[name]}
    assert more == {"_none": 2, **named}
    renamed = Engine(base, ServeConfig(), {"f": FeedConfig(labels=("other", "names", "only"))})
    renamed.start()
    try:
        serve(renamed, versions, 1, 1)
        renamed.predict("f", ["one"])
    finally:
        renamed.close()
    assert counted()["_other"] == before["_other"] + 1


def test_a_b_a_and_back_to_zero(
    engine: Engine, base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    for revision, version in enumerate((1, 2, 1), start=1):
        serve(engine, versions, version, revision)
        answers = engine.predict("f", TEXTS)
        assert matches(answers, tiny_base_dir, base, versions[version][1], TEXTS)
        assert {answer.adapter_version for answer in answers} == {version}
        assert engine.active("f") == (version, revision)
    engine.activate("f", 0, 4)
    assert engine.predict("f", TEXTS)[0].label is None
    assert len(engine.pauses_ms) == 4
    assert all(pause >= 0 for pause in engine.pauses_ms)


def test_a_swap_accounts_for_all_the_time_that_it_held_the_engine(
    engine: Engine, versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    engine.stage("f", *versions[1])
    staged = engine._residency.table.find("f", 1)
    assert staged is not None
    filling_and_probe_ms = staged.held_ms
    assert filling_and_probe_ms > 0
    engine.activate("f", 1, 1)
    assert engine.pauses_ms[-1] > filling_and_probe_ms
    assert staged.held_ms == 0, "told once"


def test_a_lone_request_is_one_batch_and_repeats_exactly(
    engine: Engine, versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    serve(engine, versions, 1, 1)
    gate = Gate(engine)
    gate.open()
    texts = ["good " * (1 + index % 7) for index in range(32)]
    first, second = engine.predict("f", texts), engine.predict("f", texts)
    assert first == second
    assert [len(batch) for batch in gate.batches] == [32, 32]


def test_requests_are_answered_by_the_version_they_were_admitted_under(
    engine: Engine, base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    for version in (2, 1):
        serve(engine, versions, version, 3 - version)
    gate = Gate(engine)
    held = gate.hold(engine)
    waiting = {version: engine.submit("f", TEXTS, version) for version in (1, 2)}
    live = engine.submit("f", TEXTS)
    swap = threading.Thread(target=engine.activate, args=("f", 2, 3))
    swap.start()
    gate.open()
    swap.join(WITHIN_S)
    assert engine.active("f") == (2, 3)
    assert held.result(WITHIN_S)[0].adapter_version == 1
    assert matches(live.result(WITHIN_S), tiny_base_dir, base, versions[1][1], TEXTS)
    for version, future in waiting.items():
        assert matches(future.result(WITHIN_S), tiny_base_dir, base, versions[version][1], TEXTS)
    assert len(gate.batches[1]) == 9, "requests and versions share a batch"
    assert len(set(gate.batches[1])) == 2


def test_nothing_pinned_is_evicted_and_full_slots_say_so(
    make_engine: Callable[..., Engine], base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    engine = make_engine(slots=4)
    engine.use_loader(lambda _, version: versions[version])
    serve(engine, versions, 1, 1)
    engine.predict("f", TEXTS, 2)
    engine.predict("f", TEXTS, 3)
    gate = Gate(engine)
    held = gate.hold(engine)
    futures = {version: engine.submit("f", TEXTS, version) for version in (2, 3)}
    with pytest.raises(Overloaded, match=r"serve\.slots"):
        engine.submit("f", TEXTS, 4)
    gate.open()
    held.result(WITHIN_S)
    for version, future in futures.items():
        assert matches(future.result(WITHIN_S), tiny_base_dir, base, versions[version][1], TEXTS)
    assert matches(engine.predict("f", TEXTS, 4), tiny_base_dir, base, versions[4][1], TEXTS)
    assert engine.active("f") == (1, 1)


def test_one_slot_is_always_left_for_a_swap(
    make_engine: Callable[..., Engine], versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    engine = make_engine(slots=3)
    engine.use_loader(lambda _, version: versions[version])
    serve(engine, versions, 1, 1)
    engine.predict("f", TEXTS, 2)
    engine.predict("f", TEXTS, 3)
    gate = Gate(engine)
    futures = [gate.hold(engine), engine.submit("f", TEXTS, 2)]
    with pytest.raises(Overloaded):
        engine.submit("f", TEXTS, 3)
    swap = ThreadPoolExecutor(1).submit(serve, engine, versions, 4, 2)
    gate.open()
    swap.result(WITHIN_S)
    assert engine.active("f") == (4, 2)
    assert [len(future.result(WITHIN_S)) for future in futures] == [1, 3]


def test_evicted_versions_come_back_from_the_host_cache(
    make_engine: Callable[..., Engine], base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    engine = make_engine(slots=3, host_cache_versions=4)
    loads: list[int] = []

    def load(_: str, version: int) -> tuple[Manifest, Weights]:
        loads.append(version)
        return versions[version]

    engine.use_loader(load)
    for version in (1, 2, 3, 4, 1, 2, 3, 4):
        assert matches(engine.predict("f", TEXTS, version), tiny_base_dir, base, versions[version][1], TEXTS)
    assert loads == [1, 2, 3, 4]
    assert engine.restage("f", 1)
    assert not engine.restage("f", 5)


def test_many_threads_many_versions_many_swaps(
    make_engine: Callable[..., Engine], base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    engine = make_engine(slots=4, max_batch_tokens=128)
    engine.use_loader(lambda _, version: versions[version])
    oracle = {
        version: peft_logits(tiny_base_dir, weights, TEXTS, alpha=16.0, max_tokens=base.max_tokens).softmax(1)
        for version, (_, weights) in versions.items()
    }
    serve(engine, versions, 1, 1)

    def client(number: int) -> int:
        wrong = 0
        for turn in range(40):
            version = 1 + (number + turn) % 4 if number % 4 == 0 else None
            try:
                answers = engine.predict("f", TEXTS, version)
            except Overloaded:
                continue
            scores = torch.tensor([list(answer.scores.values()) for answer in answers])
            [answered] = {answer.adapter_version for answer in answers}
            wrong += bool((scores - oracle[answered]).abs().max() > 1e-3) or version not in (None, answered)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        for revision in range(2, 40):
            version = 1 + revision % 3
            while True:
                try:
                    serve(engine, versions, version, revision)
                    break
                except Overloaded:
                    continue
        assert [one.result(WITHIN_S) for one in clients] == [0] * 8
    assert engine.queued_inputs == 0
    assert sum(one.pins for one in engine._residency.table._residents.values()) == 1, (
        "only the live version stays pinned"
    )


# --- what goes wrong


def test_unknown_feeds_and_versions(engine: Engine) -> None:
    with pytest.raises(BadInput, match="known feeds: f"):
        engine.predict("g", TEXTS)
    with pytest.raises(NotReady):
        engine.predict("f", TEXTS, 7)

    def unknown(feed: str, version: int) -> tuple[Manifest, Weights]:
        raise UnknownVersion(f"feed {feed} has no version {version}")

    engine.use_loader(unknown)
    with pytest.raises(UnknownVersion):
        engine.predict("f", TEXTS, 7)


def test_too_few_slots_for_the_feeds_is_a_config_error(base: Base) -> None:
    with pytest.raises(ConfigError, match=r"serve\.slots = 3"):
        Engine(base, ServeConfig(slots=3), dict.fromkeys("ab", FeedConfig(labels=LABELS)))


def test_a_full_queue_refuses_and_says_when_to_come_back(
    make_engine: Callable[..., Engine], versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    engine = make_engine(max_queue_inputs=4)
    serve(engine, versions, 1, 1)
    gate = Gate(engine)
    futures = [gate.hold(engine), engine.submit("f", TEXTS)]
    with pytest.raises(Overloaded) as refused:
        engine.submit("f", TEXTS)
    assert refused.value.retry_after_s > 0
    futures.append(engine.submit("f", ["one more fits"]))
    gate.open()
    assert all(future.result(WITHIN_S) for future in futures)
    assert engine.predict("f", TEXTS * 4), "a request larger than the queue is taken when nothing waits"


def test_a_failing_batch_fails_its_requests_only(
    engine: Engine, base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    serve(engine, versions, 1, 1)
    forward = engine._bank.forward
    failures = iter([True, False, False])

    def sometimes(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if next(failures):
            raise RuntimeError("out of memory")
        return forward(*args)

    engine._bank.forward = sometimes  # type: ignore[method-assign]
    with pytest.raises(ServingError, match="RuntimeError"):
        engine.predict("f", TEXTS)
    assert matches(engine.predict("f", TEXTS), tiny_base_dir, base, versions[1][1], TEXTS)
    assert engine.alive


def test_weights_that_overflow_on_a_text_fail_that_request(
    engine: Engine, versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    serve(engine, versions, 1, 1)
    forward = engine._bank.forward

    def overflowing(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, features = forward(*args)
        return outputs * float("nan"), features

    engine._bank.forward = overflowing  # type: ignore[method-assign]
    with pytest.raises(ServingError, match="no finite scores"):
        engine.predict("f", TEXTS)
    engine._bank.forward = forward  # type: ignore[method-assign]
    assert engine.predict("f", TEXTS)


def test_a_probe_mismatch_leaves_everything_as_it_was(
    engine: Engine, base: Base, versions: dict[int, tuple[Manifest, Weights]], tiny_base_dir: Path
) -> None:
    serve(engine, versions, 1, 1)
    with pytest.raises(ArtefactError, match="probe logits differ") as refused:
        engine.stage("f", versions[2][0], versions[3][1])
    assert refused.value.code == "probe_mismatch"
    assert not engine.resident("f", 2)
    with pytest.raises(ServingError, match="not staged"):
        engine.activate("f", 2, 2)
    assert engine.active("f") == (1, 1)
    assert matches(engine.predict("f", TEXTS), tiny_base_dir, base, versions[1][1], TEXTS)
    serve(engine, versions, 2, 2)
    assert matches(engine.predict("f", TEXTS), tiny_base_dir, base, versions[2][1], TEXTS)


def test_the_probe_compares_logits_and_serves_ties() -> None:
    expected = torch.tensor([[1.0, 1.0005], [0.0, 2.0]])
    probe = Probe(logits=tuple(tuple(row) for row in expected.tolist()))
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    check_probe([expected + 5e-4], probe, "f", 1, cpu)
    tie = torch.tensor([[1.0004, 1.0], [0.0, 2.0]])  # another label, from logits that are the trainer's
    check_probe([tie], probe, "f", 1, cpu)
    turned = torch.tensor([[1.0, 1.0005], [2.0, 0.0]])
    for wrong in (expected + 2e-3, turned, expected * float("nan"), torch.zeros(2, 3)):
        with pytest.raises(ArtefactError) as refused:
            check_probe([expected, wrong], probe, "f", 1, cpu)
        assert refused.value.code == "probe_mismatch"
    check_probe([expected + 4e-2], probe, "f", 1, cuda)


def test_staging_waits_for_no_more_than_one_batch(
    engine: Engine, versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    serve(engine, versions, 1, 1)
    gate = Gate(engine)
    futures = [gate.hold(engine)]
    futures += [engine.submit("f", ["good " * 60] * 32) for _ in range(8)]
    staging = ThreadPoolExecutor(1).submit(engine.stage, "f", *versions[2])
    gate.open()
    staging.result(WITHIN_S)
    assert all(future.result(WITHIN_S) for future in futures)
    probes = [index for index, slots in enumerate(gate.batches) if len(slots) == 8 and slots[0] != gate.batches[0][0]]
    assert len(probes) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_fails_what_waits_and_takes_nothing_more(
    engine: Engine, versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    serve(engine, versions, 1, 1)
    gate = Gate(engine)
    held, waiting = gate.hold(engine), engine.submit("f", TEXTS)

    def bug() -> list[Any]:
        raise AssertionError("a bug")

    engine._loop._next_batch = bug  # type: ignore[method-assign]
    gate.open()
    assert held.result(WITHIN_S)
    with pytest.raises(ServingError, match="the engine died"):
        waiting.result(WITHIN_S)
    engine._loop._thread.join(WITHIN_S)
    assert not engine.alive
    with pytest.raises(NotReady):
        engine.predict("f", TEXTS)


def test_closing_answers_what_was_admitted_and_refuses_the_rest(
    make_engine: Callable[..., Engine], versions: dict[int, tuple[Manifest, Weights]]
) -> None:
    engine = make_engine(max_batch_tokens=64)
    serve(engine, versions, 1, 1)
    gate = Gate(engine)
    futures = [gate.hold(engine)]
    futures += [engine.submit("f", ["good " * 50] * 5) for _ in range(5)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.open()
    closing.join(WITHIN_S)
    assert [len(future.result(0)) for future in futures] == [1, 5, 5, 5, 5, 5]
    with pytest.raises(NotReady):
        engine.predict("f", TEXTS)
    with pytest.raises(NotReady):
        engine.stage("f", *versions[2])
    engine.close()


# --- labels of the version, not of the config


def test_a_version_answers_with_its_own_labels_and_version_zero_with_the_configs(
    make_engine: Callable[..., Engine], base: Base, tiny_base_dir: Path
) -> None:
    engine = make_engine()
    two = random_weights(base, 2, seed=11)
    engine.stage("f", make_manifest(base, tiny_base_dir, two, "f", 8, labels=("bad", "good")), two)
    engine.activate("f", 8, 1)
    three = random_weights(base, 3, seed=12)
    other = make_manifest(base, tiny_base_dir, three, "f", 9, labels=("positive", "negative", "mixed"))
    engine.use_loader(lambda _feed, _version: (other, three))
    for version, weights, labels in ((None, two, ("bad", "good")), (9, three, other.labels)):
        oracle = peft_logits(tiny_base_dir, weights, TEXTS, alpha=16.0, max_tokens=base.max_tokens).softmax(dim=1)
        for answer, row in zip(engine.predict("f", TEXTS, version), oracle.tolist(), strict=True):
            assert answer.scores == pytest.approx(dict(zip(labels, row, strict=True)), abs=1e-4)
            assert answer.label == labels[row.index(max(row))]
    assert engine.predict("f", TEXTS, 0)[0].scores == pytest.approx(dict.fromkeys(LABELS, 1 / 3))
    assert engine.labels("f") == LABELS
