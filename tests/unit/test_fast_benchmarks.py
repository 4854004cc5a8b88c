"""What the fast clock is measured with: moments of answers, states made again, fp16 roundings, windows; hand-made."""

import numpy as np
import pytest

from benchmarks.acceptance.fast import _clock_rows
from benchmarks.drills.fast_clock import verdicts
from benchmarks.fresh_answers import _roundings
from benchmarks.installation import Setting
from benchmarks.poison import labels_until, poison, windows, worst_below
from benchmarks.probes import Probe, first_with, gaps_s
from benchmarks.pulse_log import PulseLog
from driftline.artefact.pulse import mark
from driftline.experts import Cells, ExpertState
from driftline.experts.packing import pack_changes, pack_states
from driftline.records import Pulse, Snapshot


def probe(received: float, pulse: int | None) -> Probe:
    answer = None if pulse is None else {"pulse": pulse}
    return Probe(sent=0.0, received=received, text="a", answer=answer, failure="HTTP 500" if answer is None else None)


def test_a_label_is_answered_by_the_first_answer_that_knows_its_pulse_or_a_later_one() -> None:
    done = [probe(3.0, 5), probe(1.0, 2), probe(2.0, None), probe(2.5, 2), probe(4.0, 4)]
    assert first_with(done, [1, 2, 3, 5, 6]) == [1.0, 1.0, 3.0, 3.0, None]
    assert first_with([], [1]) == [None]
    assert gaps_s(done) == [1.5, 0.5, 1.0]


def changed(cell: int, value: float) -> bytes:
    cells = Cells(places=np.array([cell]), values=np.array([value], np.float32))
    return pack_changes({"ridge": {"w": cells}})


def pulse(number: int, before: bytes, cell: int) -> Pulse:
    change = changed(cell, float(number))
    return Pulse(feed="f", epoch="e", number=number, before=before, last_seq=9, fell_back=False, change=change)


def snapshot(number: int, its_mark: bytes, *w: float) -> tuple[Snapshot, bytes]:
    found = Snapshot(
        feed="f", epoch="e", number=number, mark=its_mark, last_seq=9, fell_back=False, labels=("a", "b"), sha256=""
    )
    return found, pack_states({"ridge": ExpertState(scoring={"w": np.array(w, np.float32)})})


def test_states_are_made_again_from_snapshots_and_the_pulses_that_follow() -> None:
    fourth = pulse(4, b"third", 0)
    fifth = pulse(5, mark(fourth), 1)
    seventh = pulse(7, b"a sixth that nobody has seen", 1)
    log = PulseLog(pulses={one.number: one for one in (fourth, fifth, seventh)})
    log.snapshots = {3: snapshot(3, b"third", 0, 0, 1), 5: snapshot(5, mark(fifth), 4, 5, 1)}
    found = {state.number: arrays["ridge"]["w"].tolist() for state, arrays in log.states(("head", "ridge"))}
    assert found == {3: [0, 0, 1], 4: [4, 0, 1], 5: [4, 5, 1]}
    log.snapshots[7] = snapshot(7, b"", 7, 7, 7)
    assert [state.number for state, _ in log.states(("ridge",))] == [3, 4, 5, 7]
    log.snapshots[5] = snapshot(5, mark(fifth), 4, 5, 2)
    with pytest.raises(RuntimeError, match="pulse 5"):
        list(log.states(("ridge",)))


def test_an_example_belongs_to_the_first_pulse_that_learned_it() -> None:
    assert PulseLog(lessons={2: (1, 3), 4: (3, 5)}).pulse_of() == {1: 2, 3: 2, 5: 4}


def test_only_numbers_next_to_the_middle_are_rounded_the_other_way() -> None:
    step = 2.0**-10  # between fp16 numbers from 1 to 2
    row = np.array([1 + 0.5 * step + 1e-7, 1 + 0.4 * step, -1 - 0.5 * step + 2e-7], np.float32)
    found = [(count, half.tolist()) for count, half in _roundings(row)]
    assert found == [
        (0, [1 + step, 1, -1]),
        (1, [1, 1, -1]),
        (1, [1 + step, 1, -1 - step]),
        (2, [1, 1, -1 - step]),
    ]


def test_poison_gives_events_of_the_range_each_others_labels() -> None:
    events = [{"id": str(number), "label": str(number)} for number in range(50)]
    found = poison(events, range(10, 40), seed=0)
    labels = [one["label"] for one in found]
    assert [one["id"] for one in found] == [one["id"] for one in events]
    assert labels[:10] + labels[40:] == [str(number) for number in (*range(10), *range(40, 50))]
    assert sorted(labels[10:40], key=int) == [str(number) for number in range(10, 40)]
    assert sum(labels[number] == str(number) for number in range(10, 40)) < 5
    assert labels_until([(9, False), (10, False), (11, True), (12, False), (13, False)], 10, 13) == 2


def test_the_worst_window_is_found_wherever_it_begins() -> None:
    head = [True, True, True, False, False]
    ours = [True, False, False, False, True]
    assert worst_below(ours, head, 2) == 100
    assert worst_below(ours, head, 3) == pytest.approx(200 / 3)
    assert worst_below(head, head, 3) == 0
    assert worst_below([True, True], [False, True], 2) == -50
    assert windows({"ours": ours, "head": head}, 2) == [
        {"end": 2, "ours": 0.5, "head": 1.0},
        {"end": 4, "ours": 0.0, "head": 0.5},
    ]


def test_a_setting_may_leave_the_schedule_to_driftline() -> None:
    assert "min_examples" not in Setting(redis_url="embedded", min_examples=None).toml(1, 2)
    assert "min_examples = 250\n" in Setting(redis_url="embedded").toml(1, 2)


def test_the_drill_is_judged_by_what_was_promised() -> None:
    outage = {"never_answered": 0, "last_answered_after_s": 1.0}
    found = {
        "steady": {"never_answered": 0, "labels": 1000, "label_to_answer_s": {"p50": 1.0, "p99": 2.0}},
        "promoted_meanwhile": 2,
        "pulse_apply_ms": {"pulses": 9, "p99_at_most": 1.0},
        "requests": 10,
        "requests_failed": 0,
        "answers": {
            "compared": 5,
            "sampled": 5,
            "beyond_tolerance": 0,
            "versions": 2,
            "pulses": 3,
            "max_difference": 1e-6,
        },
        "gone_s": 30.0,
        "killed": outage,
        "hung": outage,
        "learned": dict.fromkeys(("missing", "twice", "holdouts_learned", "given_and_not_there"), 0),
        "replicas_at_the_newest_pulse": True,
    }
    assert all(verdicts(found).values())
    rows = _clock_rows(found | {"verdicts": verdicts(found)})
    assert {row.verdict for row in rows} == {"met"}
    for worse, name in (
        ({"steady": {**found["steady"], "label_to_answer_s": {"p50": 1.0, "p99": 2.1}}}, "soon"),
        ({"steady": {**found["steady"], "never_answered": 1}}, "soon"),
        ({"promoted_meanwhile": 1}, "while_updates_train"),
        ({"pulse_apply_ms": {"pulses": 9, "p99_at_most": 5.0}}, "applied_at_once"),
        ({"requests_failed": 1}, "none_failed"),
        ({"answers": {**found["answers"], "beyond_tolerance": 1}}, "answers_are_what_they_name"),
        ({"answers": {**found["answers"], "compared": 4}}, "answers_are_what_they_name"),
        ({"learned": {**found["learned"], "twice": 1}}, "outages_lose_nothing"),
        ({"hung": {**outage, "never_answered": 1}}, "outages_lose_nothing"),
        ({"replicas_at_the_newest_pulse": False}, "outages_lose_nothing"),
    ):
        assert [one for one, held in verdicts(found | worse).items() if not held] == [name]
