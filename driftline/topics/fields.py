"""Typed access to the fields of a decoded JSON object. Dots in a name go into nested objects.

Absent and null are the same. Every complaint is an `Unusable` that names the field and its JSON type, never its value.
"""

import math
from base64 import b64decode
from datetime import datetime
from typing import Any

from driftline.topics.labels import LabelNames
from driftline.topics.times import TimeFormat

MAX_ID_BYTES = 512
_TYPES = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


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
        """As `name`, of at most 512 bytes; one with a NUL, where databases and C cut strings, would be another id."""
        name = self.name(path)
        if name and "\0" in name:
            raise Unusable("wrong_type", f"field {path!r} holds a NUL character, which no id may")
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

    def label(self, path: str, names: LabelNames) -> str | None:
        """One of the feed's labels by any of its names (an integer is taken as its digits), or None if absent."""
        given = self._label(path)
        if given is None:
            return None
        label = names.known(given)
        if label is None:
            raise Unusable("unknown_label", f"field {path!r} {names.refusal(given)}")
        return label

    def required_label(self, path: str, names: LabelNames) -> str:
        """As `label`, and must be there."""
        label = self.label(path, names)
        if label is None:
            raise _missing(path)
        return label

    def served_label(self, path: str, names: LabelNames) -> str | None:
        """What some version answered, which may know labels that the feed does not have any more; None if absent."""
        given = self._label(path)
        size = len(given.encode("utf-8")) if given else 0
        if size > MAX_ID_BYTES:
            raise Unusable("wrong_type", f"field {path!r} has {size} bytes, at most {MAX_ID_BYTES} are allowed")
        return None if given is None else names.served(given)

    def _label(self, path: str) -> str | None:
        value = self._get(path)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _wrong_type(path, value, "a string")
        return _text_of(path, value)

    def moment(self, path: str, times: TimeFormat) -> datetime | None:
        """An aware UTC time as `times` reads it, or None if absent."""
        value = self._get(path)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _wrong_type(path, value, "a time")
        try:
            return times.parse(value)
        except (ValueError, OverflowError):
            raise Unusable("bad_timestamp", f"field {path!r} is no time that can be read (timestamp_format)") from None

    def has(self, path: str) -> bool:
        """Whether it is there, and not null."""
        return self._get(path) is not None

    def packed(self, path: str, max_bytes: int) -> bytes | None:
        """Bytes in base64; None if absent, or nothing that can be used."""
        value = self._get(path)
        if not isinstance(value, str) or len(value) > max_bytes * 4 // 3 + 4:
            return None
        try:
            return b64decode(value, validate=True) or None
        except ValueError:
            return None

    def flag(self, path: str) -> bool:
        """Whether it is there, and true."""
        return self._get(path) is True

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
        if "." not in path:  # nearly always, and several times for every record
            return self._document.get(path)
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
