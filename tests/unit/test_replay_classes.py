"""The page's part on classes and sources, for few classes and for many."""

from datetime import UTC, datetime
from typing import Any

from driftline.buffer import Scored
from replay.classes import classes_shown, confusions_shown, matrix_shown, sources_shown
from replay.report import prequential
from replay.words import guessing


def report(pairs: list[tuple[str, str | None]], labels: tuple[str, ...], sources: int = 1) -> dict[str, Any]:
    scored = [
        Scored(
            seq=i, event_id=str(i), source=f"s{i % sources}", label=label, predicted=predicted, version=1,
            holdout=False, occurred_at=datetime(2026, 1, 1, tzinfo=UTC), answered=True,
        )
        for i, (label, predicted) in enumerate(pairs)
    ]  # fmt: skip
    return {"labels": list(labels), "prequential": prequential(scored, labels)}


def test_few_classes_are_shown_in_the_feeds_order_with_their_matrix() -> None:
    shown = report([("b", "b"), ("b", "a"), ("a", None), ("a", "a")], ("b", "a"))
    assert [label for label, _ in classes_shown(shown)] == ["b", "a"]
    matrix = matrix_shown(shown)
    assert matrix is not None
    assert matrix["answers"] == ["b", "a", ""]
    assert [(label, [(cell.n, cell.share) for cell in cells]) for label, cells in matrix["rows"]] == [
        ("b", [(1, 0.5), (1, 0.5), (0, 0.0)]),
        ("a", [(0, 0.0), (1, 0.5), (1, 0.5)]),
    ]
    assert sources_shown(shown) == []


def test_of_many_classes_the_worst_and_the_most_confused_are_shown() -> None:
    labels = tuple(f"c{i:03}" for i in range(150))
    pairs: list[tuple[str, str | None]] = [(label, label) for label in labels]
    pairs += [("c007", "c008")] * 5 + [("c009", "c008")] * 2 + [("c010", None)] * 9
    shown = report(pairs, labels, sources=20)
    assert matrix_shown(shown) is None
    assert len(classes_shown(shown)) == 15
    assert [label for label, _ in classes_shown(shown)[:3]] == ["c010", "c008", "c007"]
    assert [(label, answer, cell.n) for label, answer, cell in confusions_shown(shown)] == [
        ("c007", "c008", 5),
        ("c009", "c008", 2),
    ]
    assert len(sources_shown(shown)) == 15
    assert len(shown["prequential"]["by_source"]) == 20


def test_a_guesser_that_is_live_at_the_end_is_told() -> None:
    rows = [
        {"version": 1, "decision": "promoted", "reasons": [{"code": "answers_one_class"}]},
        {"version": 2, "decision": "rejected", "reasons": [{"code": "not_finite"}]},
    ]
    assert guessing({"versions": rows}).startswith("version 1, the last to go live, is not shown")
    rows.append({"version": 3, "decision": "promoted", "reasons": [{"code": "not_worse"}]})
    assert guessing({"versions": rows}) == ""
    assert guessing({"versions": []}) == ""
