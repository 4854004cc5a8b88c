"""Segments, kept hold-outs, and merging on matrices computed by hand."""

import hmac
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from driftline.buffer.holdouts import HoldoutSplit, normalise
from driftline.buffer.merging import merge_columns, pairs
from driftline.errors import BufferStoreError
from tests.fixtures.buffers import EVENTS, FEED, KEY, at, event, rules, up_to


def filled(path: Path, count: int, **changes: object) -> Buffer:
    settings = {"await_predictions": False, "holdout_share": 0.4, "segment_examples": 10, "segment_holdouts": 3}
    buffer = Buffer.open(path, rules(**settings | changes), KEY)
    for start in range(0, count, 7):  # batches that do not fit the segments
        numbers = range(start, min(start + 7, count))
        buffer.intake.append([event(f"e{i}", i, label="pos") for i in numbers], up_to(EVENTS, numbers[-1] + 1), at(0))
    return buffer


def close_next(buffer: Buffer, row: dict[int, tuple[int, int]], version: int = 1) -> None:
    buffer.exams.close_segment(
        FEED, next(s.index for s in buffer.exams.segments(FEED) if not s.closed), row, version, at(0)
    )


def test_texts_that_look_alike_fall_on_one_side() -> None:
    split = HoldoutSplit(KEY)
    assert normalise("  ＡBC\t dé\n") == "abc dé"
    assert split.hash("Hello   WORLD") == split.hash("hello world ")
    assert split.hash("hello world") != HoldoutSplit(b"other").hash("hello world")


def test_the_share_is_a_share_of_texts() -> None:
    split = HoldoutSplit(KEY)
    held_out = sum(split.held_out(f"text number {i}", 0.1) is not None for i in range(20_000))
    assert 1850 < held_out < 2150  # 2000 ± 3.5 standard deviations
    assert split.held_out("anything", 0.0) is None


def test_segments_hold_their_number_of_examples_and_the_smallest_hashes(tmp_path: Path) -> None:
    buffer = filled(tmp_path / "b.sqlite3", 34)
    examples = buffer.ledger.examples_after(FEED, 0)
    segments = buffer.exams.segments(FEED)
    assert [s.examples for s in segments] == [10, 10, 10, 4]
    assert [(s.first_seq, s.last_seq) for s in segments] == [(1, 10), (11, 20), (21, 30), (31, 34)]
    for segment in segments:
        own = [e for e in examples if segment.first_seq <= e.seq <= segment.last_seq and e.holdout]
        by_hash = sorted(own, key=lambda e: hmac.new(KEY, e.text.encode(), "sha256").digest())
        assert segment.holdouts == tuple(sorted(e.seq for e in by_hash[:3]))
        assert segment.holdouts_seen == len(own)
    assert buffer.exams.recent_holdouts(FEED, 4) == [e.seq for e in examples if e.holdout][-4:]
    buffer.close()


def test_a_segment_that_is_closed_early_takes_no_more_examples(tmp_path: Path) -> None:
    buffer = filled(tmp_path / "b.sqlite3", 14)
    close_next(buffer, {0: (1, 2)})
    close_next(buffer, {0: (1, 2), 1: (0, 1)})
    buffer.intake.append([event("late", 99, label="pos")], up_to(EVENTS, 100), at(0))
    assert [(s.examples, s.closed) for s in buffer.exams.segments(FEED)] == [(10, True), (4, True), (1, False)]
    buffer.close()


def test_segments_close_in_order_only(tmp_path: Path) -> None:
    buffer = filled(tmp_path / "b.sqlite3", 25)
    for wrong in (1, 2, 9):
        with pytest.raises(BufferStoreError, match="read the segments again"):
            buffer.exams.close_segment(FEED, wrong, {}, 1, at(0))
    buffer.exams.close_segment(FEED, 0, {0: (1, 1)}, 1, at(0))
    with pytest.raises(BufferStoreError):
        buffer.exams.close_segment(FEED, 0, {0: (1, 1)}, 1, at(0))
    buffer.close()


def test_pairs_and_columns_by_hand() -> None:
    assert pairs(4) == [[0, 1], [2, 3]]
    assert pairs(3) == [[0, 1], [2]]
    assert merge_columns([(1, 2), (3, 4), None, (5, 6), (7, 8)], [[0, 1], [2, 3], [4]]) == [(4, 6), (5, 6), (7, 8)]
    assert merge_columns([(1, 2), (3, 4)], [[0, 1], [2, 3], [4]]) == [(4, 6)]
    assert merge_columns([None, None], [[0, 1]]) == [None]


def test_the_segment_beyond_the_limit_merges_neighbours(tmp_path: Path) -> None:
    """Five segments with at most four: (0,1) and (2,3) merge, 4 stays."""
    buffer = filled(tmp_path / "b.sqlite3", 53, max_segments=4)
    before = buffer.exams.segments(FEED)
    for i in range(5):
        close_next(buffer, {j: (10 * i + j, 100) for j in range(i + 1)}, version=i)
    after = buffer.exams.segments(FEED)
    assert [(s.first_seq, s.last_seq, s.examples, s.merged, s.closed) for s in after] == [
        (1, 20, 20, 2, True),
        (21, 40, 20, 2, True),
        (41, 50, 10, 1, True),
        (51, 53, 3, 1, False),
    ]
    assert [s.index for s in after] == [0, 1, 2, 3]
    # rows of the later of each pair (segments 1, 3, 4), columns summed over (0,1), (2,3), (4)
    assert buffer.exams.matrix(FEED) == [
        [(10 + 11, 200), None, None],
        [(30 + 31, 200), (32 + 33, 200), None],
        [(40 + 41, 200), (42 + 43, 200), (44, 100)],
    ]
    assert buffer.counts(FEED).segments_merged == 2
    for merged, (one, two) in zip(after[:2], [before[0:2], before[2:4]], strict=True):
        assert set(merged.holdouts) <= set(one.holdouts + two.holdouts)
        assert len(merged.holdouts) == 3
        assert merged.holdouts_seen == one.holdouts_seen + two.holdouts_seen
        examples = {e.seq: e.text for e in buffer.ledger.examples(FEED, one.holdouts + two.holdouts)}
        by_hash = sorted(examples, key=lambda seq: hmac.new(KEY, examples[seq].encode(), "sha256").digest())
        assert set(merged.holdouts) == set(by_hash[:3])
    buffer.close()


def test_merging_goes_on_and_keeps_every_example_in_one_segment(tmp_path: Path) -> None:
    buffer = filled(tmp_path / "b.sqlite3", 400, max_segments=3)
    for _ in range(40):
        close_next(buffer, {})
        segments = buffer.exams.segments(FEED)
        assert sum(s.closed for s in segments) <= 3
        assert [s.first_seq for s in segments] == [1] + [s.last_seq + 1 for s in segments[:-1]]
        assert sum(s.examples for s in segments) == 400
        assert all(len(s.holdouts) <= 3 for s in segments)
    assert sum(s.merged for s in buffer.exams.segments(FEED)) == 40
    buffer.close()


def test_a_seventeenth_segment_leaves_nine(tmp_path: Path) -> None:
    buffer = filled(tmp_path / "b.sqlite3", 171)
    for i in range(17):
        close_next(buffer, dict.fromkeys(range(i + 1), (1, 1)))
    assert [s.merged for s in buffer.exams.segments(FEED)] == [2] * 8 + [1, 1]
    assert buffer.exams.matrix(FEED)[8] == [(2, 2)] * 8 + [(1, 1)]
    buffer.close()
