"""Names of labels and ways to write times: hand-made cases, and configs that are refused with the remedy."""

import locale
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.config import parse_config
from driftline.errors import ConfigError
from driftline.topics.labels import LabelNames
from driftline.topics.times import TimeFormat

WHEN = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def config(**feed: Any) -> None:
    parse_config({"feed": {"reviews": {"labels": ["negative", "positive"]} | feed}}, root=Path())


def test_labels_are_known_by_their_own_names_and_mapped_ones() -> None:
    names = LabelNames(("negative", "positive"), {"1": "negative", "old": "gone"})
    assert [names.known(given) for given in ("negative", "1", "Negative", " negative", "old", "gone", "")] == [
        "negative",
        "negative",
        None,
        None,
        None,
        None,
        None,
    ]
    assert [names.served(given) for given in ("1", "old", "other")] == ["negative", "gone", "other"]


def test_case_and_blanks_are_folded_by_choice() -> None:
    names = LabelNames(("not good", "Straße"), {"5 Stars": "Straße"}, fold=True)
    for given, label in (
        ("NOT  GOOD", "not good"),
        (" notgood\t", "not good"),
        ("STRASSE", "Straße"),
        ("5stars", "Straße"),
    ):
        assert names.known(given) == label
        assert names.served(given) == label
    assert names.known("good") is None


@pytest.mark.parametrize(
    "feed",
    [
        {"labels": ["Good", "good"], "fold_labels": True},
        {"labels": ["not good", "notgood"], "fold_labels": True},
        {"label_map": {"POSITIVE": "negative"}, "fold_labels": True},
        {"label_map": {"Pos": "positive", "pos": "negative"}, "fold_labels": True},
        {"retired_labels": ["Negative"], "fold_labels": True},
    ],
)
def test_names_that_fold_to_the_same_are_refused(feed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"case and blanks are left out: rename one of them, or set fold_labels"):
        config(**feed)
    config(**feed | {"fold_labels": False})


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("%d/%m/%Y %H:%M", "21/11/2026 08:00"),
        ("%d/%m/%Y %H:%M", " 21/11/2026 08:00 "),
        ("%m/%d/%y %I:%M %p", "11/21/26 08:00 AM"),
        ("%Y%m%d%H", 2026112108),
        ("%d.%m.%Y %H:%M %z", "21.11.2026 09:00 +0100"),
    ],
)
def test_a_pattern_tells_days_from_months(pattern: str, value: str | int) -> None:
    config(fields={"timestamp_format": pattern})
    assert TimeFormat(pattern).parse(value) == WHEN
    with pytest.raises(ValueError, match=r"does not match|unconverted"):
        TimeFormat(pattern).parse("2026-11-21T08:00:00Z")


@pytest.mark.parametrize("pattern", ["", "%H:%M", "%d/%m", "%Q", "%", "day", "%d/%m/%Y %"])
def test_a_pattern_that_tells_no_date_is_refused_by_its_key(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r'feed\.reviews\.fields\.timestamp_format.*use "auto" or such as'):
        config(fields={"timestamp_format": pattern})


@pytest.mark.parametrize(
    "value",
    [
        "21 Nov",
        "Sat, 21 Foo 2026 08:00:00 +0000",
        "Sat, 31 Feb 2026 08:00 +0000",
        "Sat Nov 21 08:00:00 XYZ 2026",
        "tomorrow",
    ],
)
def test_what_is_no_time_is_no_time(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        TimeFormat().parse(value)


def test_months_are_english_whatever_the_locale() -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"):
            with suppress(locale.Error):
                locale.setlocale(locale.LC_TIME, name)
            assert TimeFormat().parse("Sat, 21 Nov 2026 08:00:00 +0000") == WHEN
            assert TimeFormat().parse("Sat Nov 21 08:00:00 +0000 2026") == WHEN
    finally:
        locale.setlocale(locale.LC_TIME, before)
