"""Decoding hand-made bad input and real dirty text: never an exception, always the reason, never the user's words."""

import base64
import gzip
import hashlib
import json
import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pytest

from driftline.config import FeedConfig, FieldsConfig
from driftline.names import DEAD_LETTER_REASONS
from driftline.records import DeadLetter, Event, Label, Position, Prediction, RawRecord
from driftline.topics.codec import (
    Codec,
    clean_text,
    encode_event,
    encode_label,
    encode_prediction,
    text_sha256,
)

FEED = FeedConfig(labels=("negative", "neutral", "positive"))
PLAIN = FeedConfig(labels=("negative", "positive"), format="text")
NESTED = FeedConfig(
    labels=("0", "1"),
    fields=FieldsConfig(id="meta.key", text="body.review", label="stars", timestamp="meta.at", source="meta.shop.name"),
)
DATA = Path(os.environ.get("DRIFTLINE_DATA") or Path(__file__).parents[3] / "shared" / "data")
SECRET = "Kaninchen"
WINDOWS_1252 = {chr(n) for n in range(0x80, 0xA0)}
"""Controls by Unicode, but ftfy takes them for the Windows characters that they mostly are."""
NEW_YEAR = datetime(2020, 1, 1, tzinfo=UTC)


def raw(value: bytes | None, timestamp: datetime | None = None) -> RawRecord:
    position = Position(topic="reviews", partition=2, offset=7)
    return RawRecord(position=position, next_offset=8, value=value, timestamp=timestamp)


def document(**fields: Any) -> RawRecord:
    return raw(json.dumps(fields).encode())


def decode_event(record: RawRecord, feed: str, section: FeedConfig) -> Event | DeadLetter:
    return Codec(feed, section).event(record)


def decode_label(record: RawRecord, feed: str, section: FeedConfig) -> Label | DeadLetter:
    return Codec(feed, section).label(record)


def decode_prediction(record: RawRecord, feed: str, section: FeedConfig) -> Prediction | DeadLetter:
    return Codec(feed, section).prediction(record)


def event(record: RawRecord, feed: FeedConfig = FEED) -> Event:
    decoded = decode_event(record, "reviews", feed)
    assert isinstance(decoded, Event), decoded
    return decoded


def refusal(decoded: object) -> tuple[str, str]:
    """(reason, detail) of a dead letter, after the checks that hold for all of them."""
    assert isinstance(decoded, DeadLetter), decoded
    assert decoded.reason in DEAD_LETTER_REASONS
    assert decoded.feed == "reviews"
    assert SECRET not in decoded.detail
    assert len(decoded.detail) < 300
    return decoded.reason, decoded.detail


def test_a_whole_event() -> None:
    record = document(
        id="r-17",
        text="  schön   &amp; gut\n\nwirklich ",
        label="negative",
        timestamp="2020-01-01T01:00:00+01:00",
        source="shop",
        unknown={"a": 1},
    )
    assert event(record) == Event(
        event_id="r-17",
        feed="reviews",
        text="schön & gut wirklich",
        occurred_at=NEW_YEAR,
        source="shop",
        position=Position(topic="reviews", partition=2, offset=7),
        label="negative",
        labelled_at=NEW_YEAR,
        value=record.value,
    )


def test_only_a_text_is_enough() -> None:
    decoded = event(document(text="good"))
    assert decoded.event_id == "reviews-2-7"
    assert (decoded.label, decoded.labelled_at, decoded.occurred_at, decoded.source) == (None, None, None, None)
    assert not decoded.collected


@pytest.mark.parametrize("absent", [{}, {"id": None, "label": None, "timestamp": None, "source": None}, {"id": ""}])
def test_null_is_absent(absent: dict[str, Any]) -> None:
    with_nulls = replace(event(document(text="good", **absent)), value=None)
    assert with_nulls == replace(event(document(text="good")), value=None)


def test_the_records_own_time_stands_in_for_a_missing_one() -> None:
    assert event(raw(b'{"text": "good"}', timestamp=NEW_YEAR)).occurred_at == NEW_YEAR
    later = raw(b'{"text": "good", "timestamp": "2021-01-01"}', timestamp=NEW_YEAR)
    assert event(later).occurred_at == datetime(2021, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "undecodable"),
        (b"\xff\xfe{\x00}\x00", "undecodable"),
        (b'{"text": "Kaninchen\xe9"}', "undecodable"),
        (b'{"text": "Kaninchen"', "undecodable"),
        (b"{'text': 'Kaninchen'}", "undecodable"),
        (b'{"text": "Kaninchen"}{}', "undecodable"),
        (b"[" * 200_000, "undecodable"),
        (b'{"text": "good", "id": ' + b"1" * 10_000 + b"}", "undecodable"),
        (b'"Kaninchen"', "wrong_type"),
        (b'["Kaninchen"]', "wrong_type"),
        (b"null", "wrong_type"),
        (b"17", "wrong_type"),
        (b"{}", "missing_field"),
        (b'{"text": null}', "missing_field"),
        (b'{"Text": "Kaninchen"}', "missing_field"),
        (b'{"text": 17}', "wrong_type"),
        (b'{"text": ["Kaninchen"]}', "wrong_type"),
        (b'{"text": true}', "wrong_type"),
        (b'{"text": ""}', "empty_text"),
        (b'{"text": " \\n\\t\\u00a0\\u2003"}', "empty_text"),
        (b'{"text": "\\u0000\\u0007\\u200b\\ufeff"}', "empty_text"),
        (b'{"text": "Kaninchen", "id": {"a": 1}}', "wrong_type"),
        (b'{"text": "Kaninchen", "id": true}', "wrong_type"),
        (b'{"text": "Kaninchen", "id": 1.5}', "wrong_type"),
        (b'{"text": "Kaninchen", "id": "\\ud800"}', "wrong_type"),
        (b'{"text": "Kaninchen", "source": []}', "wrong_type"),
        (b'{"text": "Kaninchen", "id": "a\\u0000b"}', "wrong_type"),
    ],
)
def test_what_cannot_be_used_is_a_dead_letter_with_its_bytes(value: bytes | None, reason: str) -> None:
    decoded = decode_event(raw(value), "reviews", FEED)
    assert refusal(decoded)[0] == reason
    assert isinstance(decoded, DeadLetter)
    assert decoded.value == (value or b"")
    assert decoded.position == raw(value).position


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("Kaninchen", "unknown_label"),
        ("Negative", "unknown_label"),
        ("", "unknown_label"),
        (1, "unknown_label"),
        (["negative"], "wrong_type"),
        (True, "wrong_type"),
        ({}, "wrong_type"),
    ],
)
def test_a_bad_label_leaves_the_event_and_is_a_letter_of_its_own(label: object, reason: str) -> None:
    record = document(id="r-17", text="good", label=label, timestamp="2020-01-01")
    decoded = event(record)
    assert (decoded.event_id, decoded.text, decoded.label, decoded.labelled_at) == ("r-17", "good", None, None)
    letter = decoded.refused_label
    assert letter is not None
    assert refusal(letter)[0] == reason
    assert (letter.kind, letter.position, letter.value) == ("label", record.position, record.value)
    assert Codec("reviews", FEED).label_of_event(record) == letter


def test_the_label_of_an_event_is_found_again_once_the_config_knows_it() -> None:
    record = document(id="r-17", text="good", label="angry", timestamp="2020-01-01")
    mended = FEED.model_copy(update={"label_map": {"angry": "negative"}})
    assert event(record).refused_label is not None
    assert Codec("reviews", mended).label_of_event(record) == Label(
        event_id="r-17",
        feed="reviews",
        label="negative",
        labelled_at=NEW_YEAR,
        labeller=None,
        position=record.position,
        value=record.value,
    )
    for gone, reason in ((document(id="r-17", text="good"), "missing_field"), (document(id="r-17"), "missing_field")):
        letter = Codec("reviews", mended).label_of_event(gone)
        assert isinstance(letter, DeadLetter)
        assert (letter.reason, letter.kind) == (reason, "label")


@pytest.mark.parametrize(
    "timestamp", ["Kaninchen", "2020-13-01", "0001-01-01T00:00:00+05:00", 1e30, float("nan"), True, {}, "03/04/2026"]
)
def test_a_time_that_cannot_be_read_falls_back_to_the_records(timestamp: object) -> None:
    value = document(text="good", timestamp=timestamp).value
    with_time, without = event(raw(value, timestamp=NEW_YEAR)), event(raw(value))
    assert (with_time.occurred_at, with_time.time_fell_back) == (NEW_YEAR, True)
    assert (without.occurred_at, without.time_fell_back) == (None, True)
    assert not event(document(text="good")).time_fell_back


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2020-01-01T00:00:00Z", NEW_YEAR),
        ("Wed, 01 Jan 2020 00:00:00 +0000", NEW_YEAR),
        ("Tue, 31 Dec 2019 19:00:00 -0500", NEW_YEAR),
        ("1 Jan 2020 00:00 GMT", NEW_YEAR),
        ("Wed Jan 01 00:00:00 +0000 2020", NEW_YEAR),
        ("Tue Dec 31 16:00:00 PST 2019", NEW_YEAR),
        ("Wed Jan  1 00:00:00 2020", NEW_YEAR),
        (1_577_836_800_000_000, NEW_YEAR),
        (1_577_836_800_000_001, NEW_YEAR + timedelta(microseconds=1)),
        ("1577836800000001", NEW_YEAR + timedelta(microseconds=1)),
        ("2020-01-01T00:00:00", NEW_YEAR),
        ("2020-01-01", NEW_YEAR),
        (" 2020-01-01 00:00:00+00:00 ", NEW_YEAR),
        ("2019-12-31T19:00:00-05:00", NEW_YEAR),
        ("2020-01-01T00:00:00.123456789Z", NEW_YEAR + timedelta(microseconds=123_456)),
        (1_577_836_800, NEW_YEAR),
        (1_577_836_800.25, NEW_YEAR + timedelta(milliseconds=250)),
        (1_577_836_800_000, NEW_YEAR),
        (1_577_836_800_250, NEW_YEAR + timedelta(milliseconds=250)),
        ("1577836800", NEW_YEAR),
        ("1577836800000", NEW_YEAR),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-86_400, datetime(1969, 12, 31, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_they_are_written(timestamp: object, expected: datetime) -> None:
    occurred_at = event(document(text="good", timestamp=timestamp)).occurred_at
    assert occurred_at == expected
    assert occurred_at is not None
    assert occurred_at.utcoffset() == timedelta(0)


def test_numbers_are_taken_as_ids_sources_and_labels() -> None:
    decoded = event(document(meta={"key": 17, "shop": {"name": 3}}, body={"review": "good"}, stars=1), NESTED)
    assert (decoded.event_id, decoded.source, decoded.label) == ("17", "3", "1")


def test_no_name_holds_a_nul_where_databases_cut_strings() -> None:
    assert event(document(text="good", source="sh\0op\0")).source == "shop"
    assert event(document(text="good", source="\0")).source is None
    judged = Codec("reviews", FEED).label(document(id="a", label="negative", labeller="an\0a"))
    assert isinstance(judged, Label)
    assert judged.labeller == "ana"
    refused = Codec("reviews", FEED).label(document(id="a\0", label="negative"))
    assert refusal(refused) == ("wrong_type", "field 'id' holds a NUL character, which no id may")


def test_fields_are_found_inside_objects() -> None:
    decoded = event(document(meta={"at": 1_577_836_800}, body={"review": "good"}), NESTED)
    assert (decoded.text, decoded.occurred_at, decoded.event_id) == ("good", NEW_YEAR, "reviews-2-7")


def test_a_missing_or_wrong_parent_names_the_path() -> None:
    assert refusal(decode_event(document(meta={}), "reviews", NESTED)) == (
        "missing_field",
        "field 'body.review' is absent or null",
    )
    reason, detail = refusal(decode_event(document(body="Kaninchen"), "reviews", NESTED))
    assert reason == "wrong_type"
    assert "body.review" in detail


def test_long_texts_ids_and_sources() -> None:
    limit = FEED.max_text_bytes
    assert event(document(text="x" * limit)).text == "x" * limit
    assert refusal(decode_event(document(text="x" * (limit + 1)), "reviews", FEED))[0] == "text_too_long"
    umlauts = raw(json.dumps({"text": "ä" * (limit // 2 + 1)}, ensure_ascii=False).encode())
    assert refusal(decode_event(umlauts, "reviews", FEED))[0] == "text_too_long"
    huge = document(text="Kaninchen " * 500_000)
    assert refusal(decode_event(huge, "reviews", FEED))[0] == "text_too_long"
    assert event(document(id="i" * 512, text="good")).event_id == "i" * 512
    assert refusal(decode_event(document(id="ü" * 257, text="good"), "reviews", FEED))[0] == "id_too_long"
    assert event(document(source="s" * 9_999, text="good")).source == "s" * 256


def test_an_unknown_label_names_the_known_ones_and_not_itself() -> None:
    _, detail = refusal(event(document(text="good", label=SECRET)).refused_label)
    assert "negative, neutral, positive" in detail
    many = FeedConfig(labels=tuple(f"class-{n}" for n in range(150)))
    _, detail = refusal(event(document(text="good", label=SECRET), many).refused_label)
    assert "150 in all" in detail


def test_a_label_that_was_given_up_is_told_apart_from_one_that_never_was_one() -> None:
    given_up = FEED.model_copy(update={"labels": ("negative", "positive"), "retired_labels": ("Neutral",)})
    renamed = given_up.model_copy(update={"label_map": {"meh": "Neutral"}, "fold_labels": True})
    for section, label in ((given_up, "Neutral"), (renamed, "neutral"), (renamed, "MEH")):
        reason, detail = refusal(event(document(text="good", label=label), section).refused_label)
        assert reason == "unknown_label"
        assert detail.startswith("field 'label' is of 'Neutral', a class that was given up (retired_labels): ")
        assert "put it back into labels (docs/labels.md)" in detail
    _, detail = refusal(event(document(text="good", label="neutral"), given_up).refused_label)
    assert detail == "field 'label' is not one of the feed's labels: negative, positive"


def test_what_other_writers_of_json_do_is_tolerated() -> None:
    assert event(raw(b'\xef\xbb\xbf{"text": "good"}')).text == "good"
    assert event(raw(b'{"text": "good", "score": NaN, "other": Infinity}')).text == "good"
    assert event(raw(b'{"text": "go\\ud83dod"}')).text == "go�od"
    assert event(raw(b'{"text": "\\ud83d\\ude00 good"}')).text == "😀 good"
    assert event(raw(b'{"text": "bad", "text": "good"}')).text == "good"
    assert event(raw(b' \n{"text": "good"}\r')).text == "good"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "empty_text"),
        (b" \r\n", "empty_text"),
        (b"Kaninchen\xff", "undecodable"),
        (b"Kaninchen " * 500_000, "text_too_long"),
    ],
)
def test_bad_plain_text(value: bytes | None, reason: str) -> None:
    assert refusal(decode_event(raw(value), "reviews", PLAIN))[0] == reason


def test_plain_text_is_taken_as_it_stands() -> None:
    decoded = event(raw(b'\xef\xbb\xbf{"text": "not parsed"}\r', timestamp=NEW_YEAR), PLAIN)
    assert decoded.text == '{"text": "not parsed"}'
    assert (decoded.event_id, decoded.occurred_at, decoded.label) == ("reviews-2-7", NEW_YEAR, None)


def test_a_label() -> None:
    decoded = decode_label(
        document(id="r-17", label="negative", timestamp=1_577_836_800, labeller="ana"), "reviews", FEED
    )
    assert decoded == Label(
        event_id="r-17",
        feed="reviews",
        label="negative",
        labelled_at=NEW_YEAR,
        labeller="ana",
        position=Position(topic="reviews", partition=2, offset=7),
        value=b'{"id": "r-17", "label": "negative", "timestamp": 1577836800, "labeller": "ana"}',
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"label": "negative"}, "missing_field"),
        ({"id": "", "label": "negative"}, "missing_field"),
        ({"id": "r-17"}, "missing_field"),
        ({"id": "r-17", "label": None}, "missing_field"),
        ({"id": "r-17", "label": SECRET}, "unknown_label"),
        ({"id": "r-17", "label": {}}, "wrong_type"),
        ({"id": ["r-17"], "label": "negative"}, "wrong_type"),
        ({"id": "i" * 513, "label": "negative"}, "id_too_long"),
        ({"id": "r-17", "label": "negative", "labeller": []}, "wrong_type"),
    ],
)
def test_bad_labels(fields: dict[str, Any], reason: str) -> None:
    assert refusal(decode_label(document(**fields), "reviews", FEED))[0] == reason


def test_labels_and_predictions_are_json_under_fixed_names_also_for_nested_and_plain_feeds() -> None:
    for feed in (NESTED, PLAIN):
        label = feed.labels[0]
        decoded = decode_label(document(id="r-17", label=label), "reviews", feed)
        assert isinstance(decoded, Label)
        assert decoded.label == label
    assert refusal(decode_label(raw(b"\xff"), "reviews", PLAIN))[0] == "undecodable"
    assert refusal(decode_label(raw(None), "reviews", PLAIN))[0] == "tombstone"


PREDICTION = {
    "id": "r-17",
    "label": "negative",
    "scores": {"negative": 0.9, "neutral": 0.1, "positive": 0},
    "adapter_version": 12,
    "replica": "a",
    "timestamp": "2020-01-01T00:00:00Z",
}


def test_a_prediction() -> None:
    assert decode_prediction(document(**PREDICTION), "reviews", FEED) == Prediction(
        event_id="r-17",
        feed="reviews",
        label="negative",
        scores={"negative": 0.9, "neutral": 0.1, "positive": 0.0},
        adapter_version=12,
        replica="a",
        predicted_at=NEW_YEAR,
        position=Position(topic="reviews", partition=2, offset=7),
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "missing_field"),
        ({"label": None}, "missing_field"),
        ({"label": None, "adapter_version": 0}, None),
        ({"adapter_version": 0}, "wrong_type"),
        ({"adapter_version": 0, "pulse": 0}, "wrong_type"),
        ({"adapter_version": 0, "pulse": 3}, None),
        ({"adapter_version": 0, "pulse": 3, "label": None}, None),
        ({"pulse": -1}, "wrong_type"),
        ({"pulse": "3"}, "wrong_type"),
        ({"pulse": None, "feature": SECRET}, None),
        ({"feature": 7}, None),
        ({"feature": "A" * 50_000}, None),
        ({"label": SECRET}, None),
        ({"label": "i" * 513}, "wrong_type"),
        ({"label": ["negative"]}, "wrong_type"),
        ({"event_timestamp": SECRET, "source": [], "text_sha256": 1.5}, None),
        ({"adapter_version": None}, "missing_field"),
        ({"adapter_version": -1}, "wrong_type"),
        ({"adapter_version": 1.0}, "wrong_type"),
        ({"adapter_version": True}, "wrong_type"),
        ({"adapter_version": 2**63}, "wrong_type"),
        ({"scores": None}, "missing_field"),
        ({"scores": [0.9]}, "wrong_type"),
        ({"scores": {"negative": "0.9"}}, "wrong_type"),
        ({"scores": {"negative": float("nan")}}, "wrong_type"),
        ({"replica": None}, "missing_field"),
        ({"timestamp": None}, "missing_field"),
        ({"timestamp": SECRET}, "bad_timestamp"),
    ],
)
def test_bad_predictions(change: dict[str, Any], reason: str | None) -> None:
    decoded = decode_prediction(document(**(PREDICTION | change)), "reviews", FEED)
    if reason is None:
        assert isinstance(decoded, Prediction)
    else:
        assert refusal(decoded)[0] == reason


def test_times_of_labels_and_predictions_fall_back_where_they_can() -> None:
    label = document(id="r-17", label="negative", timestamp=SECRET).value
    decoded = decode_label(raw(label, timestamp=NEW_YEAR), "reviews", FEED)
    assert isinstance(decoded, Label)
    assert (decoded.labelled_at, decoded.time_fell_back) == (NEW_YEAR, True)
    decoded = decode_label(raw(label), "reviews", FEED)
    assert isinstance(decoded, Label)
    assert (decoded.labelled_at, decoded.time_fell_back) == (None, True)
    answer = decode_prediction(
        raw(document(**(PREDICTION | {"timestamp": SECRET})).value, timestamp=NEW_YEAR), "reviews", FEED
    )
    assert isinstance(answer, Prediction)
    assert (answer.predicted_at, answer.time_fell_back) == (NEW_YEAR, True)


def test_an_answer_is_known_by_todays_name_and_one_that_was_given_up_stays() -> None:
    feed = FEED.model_copy(update={"label_map": {"bad": "negative"}})
    for given, known in (("bad", "negative"), ("negative", "negative"), ("sarcastic", "sarcastic")):
        decoded = decode_prediction(document(**(PREDICTION | {"label": given})), "reviews", feed)
        assert isinstance(decoded, Prediction)
        assert decoded.label == known


def test_a_prediction_carries_what_charts_of_it_need() -> None:
    plain = decode_prediction(document(**PREDICTION), "reviews", FEED)
    assert isinstance(plain, Prediction)
    full = replace(plain, occurred_at=NEW_YEAR, source="shop", text_sha256=text_sha256("schön"))
    document_ = json.loads(encode_prediction(full).value)
    assert document_ == PREDICTION | {
        "event_timestamp": "2020-01-01T00:00:00Z",
        "source": "shop",
        "text_sha256": hashlib.sha256("schön".encode()).hexdigest(),
    }
    assert decode_prediction(document(**document_), "reviews", FEED) == full


def test_a_prediction_carries_what_the_fast_clock_needs() -> None:
    plain = decode_prediction(document(**PREDICTION), "reviews", FEED)
    assert isinstance(plain, Prediction)
    assert (plain.pulse, plain.feature) == (0, None)
    full = replace(plain, pulse=345, feature=np.linspace(-9, 9, 384).astype("<f2").tobytes())
    document_ = json.loads(encode_prediction(full).value)
    assert document_["pulse"] == 345
    assert np.frombuffer(base64.b64decode(document_["feature"]), "<f2")[-1] == 9
    assert decode_prediction(document(**document_), "reviews", FEED) == full


def test_events_survive_encoding() -> None:
    for feed in (FEED, NESTED):
        out = encode_event("r-17", 'schön\n"gut"', feed.labels[1], NEW_YEAR, "shop", feed.fields, collected=True)
        assert out.key == b"r-17"
        assert b"\n" not in out.value
        decoded = event(raw(out.value), feed)
        assert (decoded.event_id, decoded.text, decoded.label) == ("r-17", 'schön "gut"', feed.labels[1])
        assert (decoded.occurred_at, decoded.source, decoded.collected) == (NEW_YEAR, "shop", True)


def test_encoded_json_is_as_documented() -> None:
    tokyo = NEW_YEAR.astimezone(timezone(timedelta(hours=9)))
    assert json.loads(encode_event("r", "t").value) == {"id": "r", "text": "t"}
    assert json.loads(encode_event("r", "t", timestamp=tokyo).value)["timestamp"] == "2020-01-01T00:00:00Z"
    assert json.loads(encode_event("r", "t", source="s", fields=NESTED.fields).value) == {
        "meta": {"key": "r", "shop": {"name": "s"}},
        "body": {"review": "t"},
    }
    assert json.loads(encode_label("r", "negative", NEW_YEAR, None).value) == {
        "id": "r",
        "label": "negative",
        "timestamp": "2020-01-01T00:00:00Z",
    }
    prediction = decode_prediction(document(**PREDICTION), "reviews", FEED)
    assert isinstance(prediction, Prediction)
    out = encode_prediction(prediction)
    assert json.loads(out.value) == PREDICTION
    assert out.key == b"r-17"
    assert decode_prediction(raw(out.value), "reviews", FEED) == prediction


def test_half_a_surrogate_pair_can_be_encoded() -> None:
    """HTTP clients can send one in escaped JSON."""
    out = encode_event("r\ud800", "go\ud83dod")
    assert json.loads(out.value)["text"] == "go\ud83dod"
    assert out.key == b"r?"


def test_cleaning_keeps_what_matters() -> None:
    kept = ["good 👩‍👩‍👧 day", "ΑΒΓ", "很好", "naïve café", "!!!", "<b>bold</b>", "עברית", "a​b"]
    assert [clean_text(text) for text in kept] == kept
    assert clean_text("“It’s”\x00 \x1b[31mfine\x1b[0m\r\n\t now") == '"It\'s" fine now'
    assert clean_text("schÃ¶n") == "schön"


def test_the_fast_way_for_plain_ascii_gives_what_the_slow_way_gives() -> None:
    rng = random.Random(0)
    alphabet = [chr(n) for n in range(128)]
    for _ in range(2_000):
        text = "".join(rng.choices(alphabet, k=40))
        slow = " ".join("".join(c for c in ftfy.fix_text(text) if c.isprintable() or c in "\t\n\x0c\r").split())
        assert clean_text(text) == slow, repr(text)


def test_random_bytes_and_random_json_never_raise() -> None:
    rng = random.Random(0)
    pieces = [
        "{",
        "}",
        '"',
        ":",
        ",",
        "id",
        "text",
        "label",
        "\\u0000",
        "\\ud800",
        "1e999",
        "null",
        "[",
        "]",
        "-0",
        "\x00",
    ]
    for _ in range(5_000):
        for value in (rng.randbytes(rng.randrange(40)), "".join(rng.choices(pieces, k=rng.randrange(12))).encode()):
            for decode in (decode_event, decode_label, decode_prediction):
                decode(raw(value), "reviews", FEED)
            decode_event(raw(value), "reviews", PLAIN)


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing: set DRIFTLINE_DATA to the folder of the test streams")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_all_hostile_strings_are_used_or_refused_as_empty(ensure_ascii: bool) -> None:
    found = rows("dirty_blns")
    assert len(found) == 515
    for row in found:
        value = json.dumps(row, ensure_ascii=ensure_ascii).encode()
        decoded = decode_event(raw(value), "reviews", FEED)
        visible = any((not c.isspace() and c.isprintable()) or c in WINDOWS_1252 for c in row["text"])
        if isinstance(decoded, Event):
            assert visible
            assert decoded.text == " ".join(decoded.text.split())
            decoded.text.encode("utf-8")
        else:
            assert refusal(decoded)[0] == "empty_text"
            assert not visible
        plain = decode_event(raw(row["text"].encode()), "reviews", PLAIN)
        assert isinstance(plain, Event) == isinstance(decoded, Event)


def test_hostile_strings_anywhere_never_raise() -> None:
    for row in rows("dirty_blns"):
        text = row["text"]
        decode_event(document(id=text, text=text, label=text, timestamp=text, source=text), "reviews", FEED)
        decode_label(document(id=text, label=text, timestamp=text, labeller=text), "reviews", FEED)
        decode_prediction(document(**(PREDICTION | {"id": text, "scores": {text: 1}})), "reviews", FEED)
        decode_event(raw(text.encode()), "reviews", FEED)


def test_broken_encodings_are_repaired() -> None:
    """The data's `label` is what ftfy's own cases expect."""
    found = rows("dirty_ftfy_cases")
    assert len(found) == 161
    repaired = 0
    for row in found:
        decoded = event(raw(json.dumps({"text": row["text"]}).encode()))
        repaired += decoded.text == clean_text(row["label"])
    assert repaired >= 0.85 * len(found)  # some of the cases are ftfy's known failures


@pytest.mark.parametrize(
    "fields", [{"text": ""}, {"text": "a..b"}, {"text": "a", "id": "a.b"}, {"text": "a", "id": "a"}]
)
def test_field_paths_that_cannot_stand_together_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="field"):
        FieldsConfig(**fields)


def test_plain_text_cannot_be_collected() -> None:
    with pytest.raises(ValueError, match="collect needs format"):
        FeedConfig.model_validate({"labels": ["a", "b"], "format": "text", "serve": {"collect": True}})
