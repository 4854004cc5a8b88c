"""When a feed's next tick is. Pure: the time is an argument; the schedule keeps no state.

A tick starts an update only if enough fresh examples wait; ticks that were missed while busy or down count once.
Crontab lines mean what crontab(5) says: day of week 0 and 7 are Sunday (APScheduler itself starts at Monday), and if
both day of month and day of week are restricted, either suffices. Times are UTC.
"""

import re
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from driftline.config import ScheduleConfig
from driftline.errors import ConfigError

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WEEKDAY = r"\d|" + "|".join(WEEKDAYS)
_WEEKDAY_ITEM = re.compile(rf"(?:(?P<all>\*)|(?P<first>{_WEEKDAY})(?:-(?P<last>{_WEEKDAY}))?)(?:/(?P<step>\d+))?")


def next_tick(section: ScheduleConfig, after: datetime) -> datetime:
    """The first tick strictly after `after`: a cron time, or `every_s` later.

    ConfigError names schedule.cron if it is wrong or will never come.
    """
    if section.cron is None:
        return after + timedelta(seconds=section.period_s)
    found = trigger_for(section).get_next_fire_time(after, after + timedelta(microseconds=1))
    if found is None:
        raise ConfigError(f"schedule.cron = {section.cron!r}: no such time will ever come; mend day and month")
    return found.astimezone(UTC)


def missed_tick(section: ScheduleConfig, last_taken_at: datetime | None, now: datetime) -> bool:
    """Whether a tick came while no process was there to see it, so that a process which is restarted more often than
    its feed ticks still learns. `last_taken_at`: when the newest cycle was taken, None if there was none yet."""
    return last_taken_at is None or next_tick(section, last_taken_at) <= now


def trigger_for(section: ScheduleConfig) -> BaseTrigger:
    """The same schedule as an APScheduler trigger. ConfigError names schedule.cron, its value and what is wrong."""
    if section.cron is None:
        return IntervalTrigger(seconds=section.period_s, timezone=UTC)
    try:
        return _cron(section.cron)
    except ValueError as error:
        raise ConfigError(
            f"schedule.cron = {section.cron!r}: {error}; write five fields, minute hour day month weekday, such as "
            '"*/5 * * * *"'
        ) from None


def _cron(line: str) -> BaseTrigger:
    parts = line.lower().split()
    if len(parts) != 5:
        raise ValueError(f"{len(parts)} fields instead of 5")
    minute, hour, day, month, weekday = parts
    names = ",".join(WEEKDAYS[number] for number in _weekdays(weekday))
    time = {"minute": minute, "hour": hour, "month": month, "second": 0, "timezone": UTC}
    if day.startswith("*") or weekday.startswith("*"):
        return CronTrigger(day=day, day_of_week=names, **time)
    return OrTrigger([CronTrigger(day=day, **time), CronTrigger(day_of_week=names, **time)])


def _weekdays(field: str) -> list[int]:
    """Crontab's day-of-week field as numbers 0 (Sunday) to 6, rising."""
    found: set[int] = set()
    for item in field.split(","):
        match = _WEEKDAY_ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"weekday {item!r} is none of 0-7 or sun-sat")
        found.update(number % 7 for number in _range(match))
    return sorted(found)


def _range(match: re.Match[str]) -> range:
    step = int(match["step"] or 1)
    if match["all"]:
        first, last = 0, 6
    else:
        first = _number(match["first"])
        last = _number(match["last"]) if match["last"] else (6 if match["step"] else first)
        last += 7 if last == 0 < first else 0  # fri-sun
    if step == 0 or first > last:
        raise ValueError(f"weekday {match[0]!r} is an empty range")
    return range(first, last + 1, step)


def _number(weekday: str) -> int:
    number = int(weekday) if weekday.isdigit() else WEEKDAYS.index(weekday)
    if number > 7:
        raise ValueError(f"weekday {weekday!r} is none of 0-7 or sun-sat")
    return number
