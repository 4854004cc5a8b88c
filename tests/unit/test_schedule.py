"""Ticks, against a literal reading of crontab(5) minute by minute."""

from datetime import UTC, datetime, timedelta

import pytest

from driftline.config import ScheduleConfig
from driftline.errors import ConfigError
from learner.schedule import missed_tick, next_tick, trigger_for

START = datetime(2026, 11, 22, 8, 0, 30, tzinfo=UTC)  # a Sunday


def naive_field(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for item in field.split(","):
        body, _, step = item.partition("/")
        first, _, last = body.partition("-")
        span = range(low, high + 1) if body == "*" else range(int(first), int(last or first) + 1)
        found |= set(span[:: int(step or 1)])
    return found


def naive_next(line: str, after: datetime) -> datetime:
    minute, hour, day, month, weekday = line.split()
    moment = after.replace(second=0, microsecond=0)
    while True:
        moment += timedelta(minutes=1)
        on_day = moment.day in naive_field(day, 1, 31)
        on_weekday = (moment.weekday() + 1) % 7 in {number % 7 for number in naive_field(weekday, 0, 7)}
        both = on_day and on_weekday if "*" in (day, weekday) else on_day or on_weekday
        rest = moment.minute in naive_field(minute, 0, 59) and moment.hour in naive_field(hour, 0, 23)
        if both and rest and moment.month in naive_field(month, 1, 12):
            return moment


@pytest.mark.parametrize(
    "line",
    [
        "*/5 * * * *",
        "30 4 * * *",
        "0 0 * * 0",
        "0 0 * * 7",
        "15 3 * * 1-5",
        "0 12 * * 0,6",
        "0 */6 1,15 * *",
        "7 2 1 * 3",
        "0 0 13 * 5",
        "10 1 * * 0-2",
        "0 9 * * 1-5/2",
    ],
)
def test_cron_means_what_crontab_says(line: str) -> None:
    section = ScheduleConfig(cron=line)
    moment = START
    for _ in range(6):
        expected = naive_next(line, moment)
        assert next_tick(section, moment) == expected
        moment = expected


def test_weekday_names_and_wrapping_ranges() -> None:
    assert next_tick(ScheduleConfig(cron="0 0 * * MON"), START) == datetime(2026, 11, 23, tzinfo=UTC)
    assert next_tick(ScheduleConfig(cron="0 0 * * sun"), START) == datetime(2026, 11, 29, tzinfo=UTC)
    assert next_tick(ScheduleConfig(cron="0 0 * * fri-sun"), START) == datetime(2026, 11, 27, tzinfo=UTC)
    assert next_tick(ScheduleConfig(cron="0 0 * * */3"), START) == datetime(2026, 11, 25, tzinfo=UTC)


def test_a_period_counts_from_the_last_tick() -> None:
    section = ScheduleConfig(every_s=2.5)
    assert next_tick(section, START) == START + timedelta(seconds=2.5)
    assert next_tick(ScheduleConfig(every_s=60), START) == START + timedelta(seconds=60)


def test_a_tick_on_time_is_not_its_own_successor() -> None:
    tick = datetime(2026, 11, 22, 8, 5, tzinfo=UTC)
    assert next_tick(ScheduleConfig(cron="*/5 * * * *"), tick) == tick + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("taken_s", "missed"),
    [(-59.9, False), (-60, True), (-600, True), (None, True)],
)
def test_a_tick_is_missed_once_a_period_has_passed_since_the_last_cycle(taken_s: float | None, missed: bool) -> None:
    section = ScheduleConfig(every_s=60, min_examples=250)
    taken_at = None if taken_s is None else START + timedelta(seconds=taken_s)
    assert missed_tick(section, taken_at, START) is missed


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("* * * *", "4 fields"),
        ("61 * * * *", "61"),
        ("* * * * 8", "weekday '8'"),
        ("* * * * 5-2", "empty range"),
        ("* * * * */0", "empty range"),
        ("* * * * someday", "someday"),
        ("a * * * *", "a"),
    ],
)
def test_a_wrong_line_is_named_with_the_remedy(line: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as error:
        trigger_for(ScheduleConfig(cron=line))
    assert f"schedule.cron = {line!r}" in str(error.value)
    assert wrong in str(error.value)
    assert "five fields" in str(error.value)


def test_a_time_that_never_comes_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such time"):
        next_tick(ScheduleConfig(cron="0 0 30 2 *"), START)


def test_the_trigger_agrees_with_next_tick() -> None:
    for section in (ScheduleConfig(every_s=60), ScheduleConfig(cron="*/7 3 * * 2")):
        assert trigger_for(section).get_next_fire_time(START, START) == next_tick(section, START)


@pytest.mark.parametrize(
    ("examples", "enough"), [(0, 32), (329, 32), (330, 33), (1_000, 100), (2_509, 250), (2_510, 250), (10**6, 250)]
)
def test_a_young_feed_needs_fewer_examples_for_an_update_than_a_large_one(examples: int, enough: int) -> None:
    assert ScheduleConfig().enough(examples) == enough
    assert ScheduleConfig(min_examples=16).enough(examples) == 16
    assert ScheduleConfig(max_examples=40).enough(examples) == min(40, enough)
