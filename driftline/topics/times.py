"""Times as they are written elsewhere → aware UTC times. Pure, and the same whatever the machine's language is: names
of months are English ones in "auto", and this program never sets the locale that strptime would look at.

Covered by "auto": ISO 8601; seconds, milliseconds and microseconds since the epoch, as numbers or digits; RFC 2822
("Sat, 21 Nov 2026 08:00:00 +0000"); Twitter's ("Sat Nov 21 08:00:00 +0000 2026"). Not covered: 03/04/2026, which only a
pattern of its own can tell.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

from driftline.records import utc

AUTO = "auto"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MILLISECONDS = 1e11
"""Numbers from here on are milliseconds: as seconds it would be the year 5138, as milliseconds it is March 1973."""
FIRST_MICROSECONDS = 1e14
"""Numbers from here on are microseconds, for the same reason."""
LAST_MICROSECONDS = 1e17
_DIGITS = re.compile(r"-?\d{9,17}(\.\d{1,9})?")
_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6}
_MONTHS |= {"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}
_ZONES = {"GMT": 0, "UT": 0, "UTC": 0, "Z": 0}
_ZONES |= {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(:(?P<second>\d{2}))?"
_ZONE = r"( (?P<zone>[+-]\d{4}|[A-Z]{1,3}))?"
_RFC_2822 = re.compile(
    rf"([A-Za-z]{{3}}, ?)?(?P<day>\d{{1,2}}) (?P<month>[A-Za-z]{{3}}) (?P<year>\d{{4}}) {_CLOCK}{_ZONE}"
)
_TWITTER = re.compile(rf"[A-Za-z]{{3}} (?P<month>[A-Za-z]{{3}}) (?P<day>\d{{1,2}}) {_CLOCK}{_ZONE} (?P<year>\d{{4}})")
_SAMPLE = datetime(2026, 11, 21, 8, 5, 9, 250_000, tzinfo=UTC)


class TimeFormat:
    """How one field's times are written."""

    def __init__(self, pattern: str = AUTO) -> None:
        """ "auto", or a pattern as strptime takes it. ValueError with the remedy for one that tells no date."""
        self._pattern = None if pattern == AUTO else pattern
        if self._pattern is not None:
            _check(self._pattern)

    def parse(self, value: str | float) -> datetime:
        """The UTC time; without an offset it is UTC. ValueError or OverflowError if it is none."""
        if self._pattern is None:
            return _automatic(value)
        moment = datetime.strptime(str(value).strip(), self._pattern)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _check(pattern: str) -> None:
    try:
        found = datetime.strptime(_SAMPLE.strftime(pattern), pattern)
    except (ValueError, re.error) as error:
        raise ValueError(
            f'{pattern!r} is no pattern of strptime ({error}): use "auto" or such as "%d/%m/%Y %H:%M"'
        ) from None
    if found.date() != _SAMPLE.date():
        raise ValueError(f'{pattern!r} tells no day, month and year: use "auto" or such as "%d/%m/%Y %H:%M"')


def _automatic(value: str | float) -> datetime:
    if not isinstance(value, str):
        return _since_epoch(value)
    text = value.strip()
    if _DIGITS.fullmatch(text):
        return _since_epoch(float(text) if "." in text else int(text))
    try:
        return utc(text)
    except ValueError:
        named = " ".join(text.split())
        if (found := _RFC_2822.fullmatch(named) or _TWITTER.fullmatch(named)) is None:
            raise
        return _named(found)


def _named(found: re.Match[str]) -> datetime:
    month = _MONTHS.get(found["month"].lower())
    if month is None:
        raise ValueError("no English month")
    numbers = [int(found[part] or 0) for part in ("day", "hour", "minute", "second")]
    day, hour, minute, second = numbers
    zone = timezone(_offset(found["zone"]))
    return datetime(int(found["year"]), month, day, hour, minute, min(second, 59), tzinfo=zone).astimezone(UTC)


def _offset(zone: str | None) -> timedelta:
    if zone is None:
        return timedelta(0)
    if zone[0] not in "+-":
        if zone not in _ZONES:
            raise ValueError("unknown zone")
        return timedelta(hours=_ZONES[zone])
    size = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
    return -size if zone[0] == "-" else size


def _since_epoch(number: float) -> datetime:
    size = abs(number)
    if not size < LAST_MICROSECONDS:
        raise ValueError("out of range")
    if size < FIRST_MILLISECONDS:
        return EPOCH + timedelta(seconds=number)
    return EPOCH + (timedelta(milliseconds=number) if size < FIRST_MICROSECONDS else timedelta(microseconds=number))
