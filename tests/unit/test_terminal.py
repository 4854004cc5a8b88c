"""Hostile strings on their way to a terminal: nothing steers it, and each value of a table stays one line."""

import json
import re
from collections.abc import Callable

import pytest

from driftline.cli.letter_values import SHOWN_CHARACTERS, offending
from driftline.cli.output import print_json, print_table, say, say_error
from driftline.config import FeedConfig
from driftline.records import DeadLetter, Position, RawRecord
from driftline.terminal import harmless, one_line
from driftline.topics.codec import Codec

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\r\nproblem: none\u202egnp.exe\u2066\u2028\x08\x7fz"
SECTION = FeedConfig(labels=("negative", "positive"))


def steering(text: str) -> list[str]:
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text)


def test_everything_printed_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say_error(HOSTILE)
    print_table(("name",), [(HOSTILE,)], title=HOSTILE)
    print_json({HOSTILE: HOSTILE, "half": "\ud800", "emoji": "👩‍🚀 ü"})
    written = capsys.readouterr()
    assert steering(written.out + written.err) == []
    assert "a\\x1b[31mred" in written.out
    assert "👩‍🚀 ü" in written.out
    document = json.loads(written.out[written.out.index("{") :])
    assert document == {HOSTILE: HOSTILE, "half": "\ud800", "emoji": "👩‍🚀 ü"}


def test_a_value_stays_one_line() -> None:
    assert "\n" not in one_line(HOSTILE)
    assert harmless("two\nlines\tand a tab") == "two\nlines\tand a tab"
    assert one_line("two\nlines") == "two\\nlines"


CODEC = Codec("reviews", SECTION)


def letter(decode: Callable[..., object], value: bytes, topic: str = "reviews") -> DeadLetter:
    raw = RawRecord(position=Position(topic=topic, partition=0, offset=7), next_offset=8, value=value)
    decoded = decode(raw)
    assert isinstance(decoded, DeadLetter), decoded
    return decoded


@pytest.mark.parametrize(
    ("value", "field", "shown"),
    [
        ({"id": {"a": 1}, "text": "x"}, "id", '{"a": 1}'),
        ({"id": "1", "text": 5}, "text", "5"),
        ({"id": "1"}, "text", "absent"),
        ({"id": "1", "text": "\u200b \x00"}, "text", '"\u200b \\u0000"'),
        ({"id": "i" * 600, "text": "x"}, "id", '"' + "i" * 58 + "…"),
    ],
)
def test_the_field_and_its_value_are_shown(value: dict[str, object], field: str, shown: str) -> None:
    found = offending(letter(CODEC.event, json.dumps(value).encode()), SECTION, "reviews.labels")
    assert found == (field, shown)
    assert len(found[1] or "") <= SHOWN_CHARACTERS


def test_an_unknown_label_is_shown_cut_and_escaped() -> None:
    value = json.dumps({"id": "1", "label": HOSTILE + "x" * 99}).encode()
    field, shown = offending(letter(CODEC.label, value, "reviews.labels"), SECTION, "reviews.labels")
    assert field == "label"
    assert shown is not None
    assert shown.startswith('"a\\u001b[31mred')
    assert (len(shown), shown[-1], steering(shown)) == (SHOWN_CHARACTERS, "…", [])


def test_what_cannot_be_decoded_is_shown_around_the_place() -> None:
    assert offending(letter(CODEC.event, b'{"id": 1, "te\xff": 2}'), SECTION, "") == (None, '{"id": 1, "te\\xff": 2}')
    long = b'{"a": "' + b"x" * 500 + b'", oops}'
    _, shown = offending(letter(CODEC.event, long), SECTION, "")
    assert shown is not None
    assert "oops" in shown
    assert len(shown) <= SHOWN_CHARACTERS
    for value in (b"", b"\x00\xff" * 300, b"[" * 5000, b"7", b'{"id": ' + b"9" * 5000 + b"}"):
        offending(letter(CODEC.event, value), SECTION, "")
