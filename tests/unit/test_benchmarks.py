"""The benchmarks' own arithmetic, by hand-made cases; and that every script can still be imported."""

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from benchmarks import accept
from benchmarks.acceptance.lines import LINES
from benchmarks.acceptance.quality import without_times
from benchmarks.acceptance.rows import Options, Row, judged
from benchmarks.acceptance.streams import WANTED, Wanted, figures, first_events, wanted_rows
from benchmarks.clients import Told, longest_silence_s
from benchmarks.data import missing_data
from benchmarks.drills.checks import compare_ids, same_ids
from benchmarks.ingest import make_values
from benchmarks.rounds import compare, interleave, shares, timed_calls
from tests.fixtures.reports import holdouts_row, make_report, with_evaluation


def test_every_script_can_be_imported() -> None:
    names = [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]
    assert {"benchmarks.bank", "benchmarks.accept", "benchmarks.drills.outage"} <= set(names)
    for name in names:
        importlib.import_module(name)


def test_contenders_take_turns_and_warm_ups_are_not_kept() -> None:
    turns: list[str] = []

    def b() -> float:
        turns.append("b")
        return 2.0

    seconds = interleave({"a": lambda: turns.append("a"), "b": b}, rounds=2, warm_ups=1)
    assert turns == ["a", "b"] * 3
    assert seconds["b"] == [2.0, 2.0]
    assert len(seconds["a"]) == 2


def test_ratios_are_medians_of_the_rounds_own_ratios() -> None:
    compared = compare({"peer": [1.0, 2.0, 4.0], "ours": [2.0, 2.0, 2.0]}, units=10, reference="peer")
    assert compared["ours"]["ratio"] == {"median": 1.0, "low": 0.5, "high": 2.0}
    assert compared["peer"]["per_s"] == {"median": 5.0, "low": 2.5, "high": 10.0}


def test_phases_are_timed_in_the_real_code_and_put_back() -> None:
    class Work:
        def step(self) -> int:
            return 7

    original = Work.step
    with timed_calls({"step": (Work, "step")}) as spent:
        assert Work().step() == 7
    assert spent["step"] > 0
    assert Work.step is original
    assert shares({"a": 1.0, "b": 2.5}, total=5.0) == {"a": 0.2, "b": 0.5, "rest": 0.3}


def test_ids_are_compared_with_their_multiplicity() -> None:
    found = compare_ids(["a", "b", "c"], ["a", "c", "c", "d"])
    assert found == {"expected": 3, "found": 4, "missing": 1, "twice": 1, "unexpected": 1}
    assert not same_ids(found)
    assert same_ids(compare_ids(["a", "b"], ["b", "a"]))


def test_the_longest_silence_is_of_one_replica_and_of_answers_only() -> None:
    def told(replica: int, received: float, failure: str | None = None) -> Told:
        return Told(sent=received, received=received, replica=replica, version=1, failure=failure)

    answers = [told(0, 0.0), told(1, 0.5), told(0, 1.0), told(0, 2.0, "HTTP 500"), told(0, 4.0), told(1, 1.0)]
    assert longest_silence_s(answers, 2) == 3.0


def test_reports_are_compared_without_what_a_clock_decided() -> None:
    report = {"events": 3, "seconds": {"total": 1}, "examples_per_s": 9.0, "swaps": {"count": 1, "pause_ms_max": 2.0}}
    assert without_times(report) == {"events": 3, "swaps": {"count": 1}}


def test_the_first_events_are_the_first_windows_by_their_sizes() -> None:
    report = {
        "prequential": {"windows": [{"n": 250, "accuracy": 0.4}, {"n": 50, "accuracy": 1.0}]},
        "baselines": {"majority": {"windows": [0.2, 0.8]}, "first_version": {"accuracy": 0.9}},
    }
    assert first_events(report) == pytest.approx({"ours": 0.5, "majority": 0.3})
    whole = make_report(1500)
    right = sum(250 * one["accuracy"] for one in whole["prequential"]["windows"][:4])
    assert first_events(whole)["ours"] == pytest.approx(right / 1000)


def verdicts(report: dict[str, Any], wanted: Wanted) -> dict[str, str]:
    return {row.what.strip(): row.verdict for row in wanted_rows("s", report, wanted)}


def test_a_stream_is_judged_by_what_is_wanted_of_it() -> None:
    report = with_evaluation(make_report(1500, fast=True))
    accuracy, macro_f1 = report["prequential"]["accuracy"], report["prequential"]["macro_f1"]
    exam = report["evaluation"]["all"]["accuracy"]
    found = verdicts(report, Wanted(accuracy=accuracy, exam=exam + 0.001, macro_f1=True))
    assert found == {
        "s: prequential": "met",
        "failed requests": "met",
        "test set at the end": "not met",
        "of 5 promoted versions, worse on the hold-outs mixed than by their head alone": "met",
        "macro-F1": "met",
        "ahead of frozen mixture, points [95 %]": "met",
        "ahead of online head, points [95 %]": "met",
        "first 1,000 events": "met",
        "answers with and without each expert": "shown",
    }
    report["baselines"]["majority"]["macro_f1"] = macro_f1
    report["baselines"]["online_head"]["ahead"] = {"gap": 0.0099, "low": 0.0, "high": 0.02}
    report["baselines"]["last_label"]["windows"] = [first_events(report)["ours"] + 0.006] * 6
    report["swaps"]["requests_failed"] = 1
    worse = verdicts(report, Wanted(accuracy=accuracy + 0.001, macro_f1=True))
    assert {what for what, verdict in worse.items() if verdict == "not met"} == {
        *("s: prequential", "failed requests", "macro-F1", "ahead of online head, points [95 %]", "first 1,000 events")
    }


def test_a_version_that_lost_by_mixing_is_named_with_the_chance_of_it() -> None:
    """Of 200 hold-outs the head alone had 5 right and the mixture alone 2: P(X >= 5), X ~ B(7, 1/2), is 29 of 128."""
    report = with_evaluation(make_report(1500, fast=True))
    heads = [True] * 5 + [False] * 2 + [True] * 193
    report["versions"][2]["holdouts"] = holdouts_row([False] * 5 + [True] * 195, heads)
    [row] = [row for row in wanted_rows("s", report, Wanted(accuracy=0.5)) if "promoted versions" in row.what]
    assert (row.verdict, row.figure) == ("not met", "version 3 by 1.50 (p = 0.23 of 200)")
    slow = with_evaluation(make_report(1500))
    assert [row.verdict for row in wanted_rows("s", slow, Wanted(accuracy=0.5)) if "promoted" in row.what] == [
        "not met"
    ]


def test_what_is_kept_of_a_stream_is_small_and_has_what_was_judged() -> None:
    report = with_evaluation(make_report(2_500, [f"intent {i}" for i in range(150)], updates=40, fast=True))
    kept = figures(report)
    assert len(json.dumps(kept)) < 10_000
    assert kept["prequential"]["accuracy"] == report["prequential"]["accuracy"]
    assert len(kept["promotions"]) == 40
    assert kept["experts"]["words"]["ahead"] == report["experts"]["words"]["ahead"]
    assert figures(make_report(300))["exam"] is None


def test_every_stream_has_its_line() -> None:
    assert set(WANTED) - {"sentiment"} <= set(LINES)


def test_ingest_values_are_events_of_the_promised_size() -> None:
    values = make_values(300)
    assert all(200 <= len(value) <= 300 for value in values)
    assert len({json.loads(value)["id"] for value in values}) == 300
    assert all(json.loads(value)["label"] for value in values)


def test_missing_streams_are_named(tmp_path: Path) -> None:
    reason = missing_data(tmp_path / "stream.jsonl.gz")
    assert reason is not None
    assert "stream.jsonl.gz" in reason
    assert "DRIFTLINE_DATA" in reason


def test_a_line_that_fails_is_not_met_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Options) -> list[Row]:
        raise RuntimeError("no broker")

    monkeypatch.setitem(accept.LINES, "outage", broken)
    rows = accept.run_line("outage", Options())
    assert (rows[0].verdict, "no broker" in rows[0].why) == ("not met", True)
    path = tmp_path / "accept.json"
    accept.keep(path, "swaps", [judged("swaps", "100", "100", True)], 1.0)
    accept.keep(path, "outage", rows, 2.0)
    lines = json.loads(path.read_text())["lines"]
    assert [lines[name]["rows"][0]["verdict"] for name in ("swaps", "outage")] == ["met", "not met"]
    assert all(lines[name]["commit"] for name in lines)
