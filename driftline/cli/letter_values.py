"""What a dead letter is about: the field and its value, read again from the original bytes when somebody looks.

The letters' details never quote what users wrote, because they go onto topics and into logs; here, it is shown to
whoever lists them, cut and escaped. Never raises on content.
"""

import codecs
import json
import re
from typing import Any

from driftline.config import FeedConfig
from driftline.records import DeadLetter
from driftline.terminal import one_line

__all__ = ["SHOWN_CHARACTERS", "offending"]

SHOWN_CHARACTERS = 60
_FIELD = re.compile("field '([^']+)'")
_PLACE = re.compile("at (?:byte|character) (\\d+)")
_WITHOUT_VALUE = ("tombstone", "record_too_large")
_BY_TEXT = ("empty_text", "text_too_long", "conflicting_duplicate")
_BY_LABEL = ("conflicting_label", "unknown_label")


def offending(letter: DeadLetter, section: FeedConfig, labels_topic: str) -> tuple[str | None, str | None]:
    """(field, value): the value as JSON of at most 60 characters, `absent` where there is none, and None, None where a
    letter is about nothing in its bytes. Field None: the value is what stands around the place that cannot be read."""
    if letter.reason in _WITHOUT_VALUE:
        return None, None
    if letter.reason == "undecodable" or (section.format == "text" and letter.position.topic != labels_topic):
        return None, _around(letter)
    document = _document(letter.value)
    field = _field(letter, section, labels_topic)
    if document is None or field is None:
        return None, _around(letter)
    return field, _shown(_at(document, field))


def _field(letter: DeadLetter, section: FeedConfig, labels_topic: str) -> str | None:
    """As the detail names it; else what the reason is about, by the name that it has on this topic."""
    if named := _FIELD.search(letter.detail):
        return named[1]
    if letter.reason in _BY_TEXT:
        return section.fields.text
    if letter.reason in _BY_LABEL:
        return "label" if letter.position.topic == labels_topic else section.fields.label
    return "id" if letter.reason == "no_event" else None


def _document(value: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(value.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _at(document: Any, path: str) -> Any:
    """What stands at the dotted path, or as far on the way there as it goes."""
    for part in path.split("."):
        if not isinstance(document, dict):
            break
        document = document.get(part)
    return document


def _around(letter: DeadLetter) -> str:
    """The bytes around the place that the detail names, else the first ones."""
    place = _PLACE.search(letter.detail)
    start = max(0, int(place[1]) - SHOWN_CHARACTERS // 2) if place else 0
    return _cut(letter.value[start : start + SHOWN_CHARACTERS].decode("utf-8", "backslashreplace"))


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    brief = value[: SHOWN_CHARACTERS + 1] if isinstance(value, str) else value
    try:
        return _cut(json.dumps(brief, ensure_ascii=False))
    except (ValueError, RecursionError):  # an integer of too many digits, or too deep
        return "cannot be shown"


def _cut(text: str) -> str:
    """At most 60 characters, controls and what turns the reading direction written out."""
    text = one_line(text)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
