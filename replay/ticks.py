"""A schedule's ticks in stream time. Pure; long stretches without anything to do are stepped over at once."""

from datetime import datetime, timedelta

from driftline.config import ScheduleConfig
from learner.schedule import next_tick

INSTANT = timedelta(microseconds=1)


class Ticks:
    """The ticks from `start` on; `next` is the first that is not over yet."""

    def __init__(self, schedule: ScheduleConfig, start: datetime) -> None:
        self._schedule = schedule
        self.next = next_tick(schedule, start)

    def first_from(self, moment: datetime) -> datetime:
        """The first tick at or after `moment` that is not over yet."""
        if moment <= self.next:
            return self.next
        if self._schedule.cron is not None:
            return next_tick(self._schedule, moment - INSTANT)
        period = timedelta(seconds=self._schedule.period_s)
        return self.next - (self.next - moment) // period * period

    def skip_to(self, moment: datetime) -> None:
        """Those before `moment` bring nothing."""
        self.next = self.first_from(moment)

    def skip_beyond(self, moment: datetime) -> None:
        """Neither do those before it, nor one at it."""
        self.skip_to(moment + INSTANT)
