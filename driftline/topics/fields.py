"""Typed access to the fields of a decoded JSON object. Dots in a name go into nested objects.

Absent and null are the same. Every complaint is an `Unusable` that names the field and its JSON type, never its value.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from driftline.records import utc

MAX_ID_BYTES = 512
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MILLISECONDS = 1e11
"""Numbers from here on are milliseconds: as seconds it would be the year 5138, as milliseconds it is March 1973."""
LAST_MILLISECONDS = 1e14
_DIGITS = re.compile(r"-?\d{9,15}(\.\d{1,9})?")
_TYPES = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}
_SHOWN_LABELS = 10


class Unusable(Exception):
    """The record cannot be used. Stays within `driftline.topics`: decoders turn it into a `DeadLetter`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Fields:
    """The fields of one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def required_text(self, path: str) -> str:
        """A string, as it stands."""
        value = self._required(path)
        if not isinstance(value, str):
            raise _wrong_type(path, value, "a string")
        return value

    def name(self, path: str) -> str | None:
        """A string or an integer (as its digits); None if absent or empty."""
        value = self._get(path)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _wrong_type(path, value, "a string or an integer")
        return _text_of(path, value)

    def id(self, path: str) -> str | None:
        """As `name`, of at most 512 bytes."""
        name = self.name(path)
        size = len(name.encode("utf-8")) if name else 0
        if size > MAX_ID_BYTES:
            raise Unusable("id_too_long", f"field {path!r} has {size} bytes, at most {MAX_ID_BYTES} are allowed")
        return name

    def required_id(self, path: str) -> str:
        """As `id`, and must be there."""
        name = self.id(path)
        if name is None:
            raise _missing(path)
        return name

    def label(self, path: str, labels: Sequence[str]) -> str | None:
        """One of `labels` (an integer is taken as its digits), or None if absent."""
        value = self._get(path)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _wrong_type(path, value, "a string")
        label = _text_of(path, value)
        if label not in labels:
            more = f", … ({len(labels)} in all)" if len(labels) > _SHOWN_LABELS else ""
            known = ", ".join(labels[:_SHOWN_LABELS]) + more
            raise Unusable("unknown_label", f"field {path!r} is not one of the feed's labels: {known}")
        return label

    def required_label(self, path: str, labels: Sequence[str]) -> str:
        """As `label`, and must be there."""
        label = self.label(path, labels)
        if label is None:
            raise _missing(path)
        return label

    def moment(self, path: str) -> datetime | None:
        """An aware UTC time from ISO 8601, or seconds or milliseconds since the epoch (number or digits), or None."""
        value = self._get(path)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _wrong_type(path, value, "a time")
        try:
            return _moment(value)
        except (ValueError, OverflowError):
            shape = "neither ISO 8601 nor seconds or milliseconds since the epoch"
            raise Unusable("bad_timestamp", f"field {path!r} is {shape}") from None

    def count(self, path: str) -> int:
        """An integer ≥ 0."""
        value = self._required(path)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise _wrong_type(path, value, "an integer from 0 on")
        return value

    def scores(self, path: str) -> dict[str, float]:
        """An object of finite numbers."""
        value = self._required(path)
        if not isinstance(value, dict):
            raise _wrong_type(path, value, "an object")
        for score in value.values():
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise _wrong_type(path, score, "an object of finite numbers")
        return {name: float(score) for name, score in value.items()}

    def _get(self, path: str) -> Any:
        value: Any = self._document
        for part in path.split("."):
            if value is None:
                return None
            if not isinstance(value, dict):
                raise _wrong_type(path, value, "an object on the way there")
            value = value.get(part)
        return value

    def _required(self, path: str) -> Any:
        value = self._get(path)
        if value is None:
            raise _missing(path)
        return value


def _moment(value: str | int | float) -> datetime:
    if isinstance(value, str) and not _DIGITS.fullmatch(value.strip()):
        return utc(value)
    number = float(value)
    if not abs(number) < LAST_MILLISECONDS:
        raise ValueError("out of range")
    return EPOCH + timedelta(seconds=number if abs(number) < FIRST_MILLISECONDS else number / 1000)


def _text_of(path: str, value: str | int) -> str:
    """Also refuses what no file or database can store as UTF-8, and integers too long to print."""
    try:
        text = str(value)
        text.encode("utf-8")
    except ValueError:  # UnicodeEncodeError is one
        raise Unusable("wrong_type", f"field {path!r} is not valid Unicode, or a number with too many digits") from None
    return text


def _missing(path: str) -> Unusable:
    return Unusable("missing_field", f"field {path!r} is absent or null")


def _wrong_type(path: str, value: Any, wanted: str) -> Unusable:
    return Unusable("wrong_type", f"field {path!r} is {_TYPES.get(type(value), 'something else')}, wanted {wanted}")
