"""Records onto a topic, in order and through outages, with an account of what is acknowledged. For `driftline produce`.

Delivery: at least once. What was on its way when the broker went away and was not acknowledged is sent again, so it may
stand there twice, counted in `sent_again`. Ordering: of one key, as they are given. Errors: TopicUnavailable once the
broker has not answered for `wait_s`; TopicError as `Topics.append`; the account holds after either.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.markup import escape

from driftline.cli.output import err, with_commands
from driftline.clock import Deadline, sleep
from driftline.errors import TopicError, TopicUnavailable
from driftline.phrases import count_of
from driftline.topics import Outgoing, Topics

AGAIN_S = 1.0


@dataclass(slots=True)
class Sending:
    """What went onto one topic of the cluster that is at `where`, in words. Counts are of records; `skipped` ones were
    sent before, by another run.

    `given`: all that were to be sent so far. `acknowledged`: of these, what the broker has confirmed. `without_gap`: so
    many from the first on are. `waited_s`: how long outages took, all together.
    """

    topics: Topics
    where: str
    topic: str
    wait_s: float
    skipped: int = 0
    given: int = 0
    acknowledged: int = 0
    without_gap: int = 0
    sent_again: int = 0
    waited_s: float = 0.0

    def __post_init__(self) -> None:
        self.given = self.acknowledged = self.without_gap = self.skipped

    def ensure(self) -> None:
        """Create the topic where it is missing."""
        self._patiently(lambda: self.topics.ensure([self.topic]))

    def append(self, batch: Sequence[Outgoing]) -> None:
        """Durable, all of them, when it returns."""
        begin, places = self.given, list(range(len(batch)))
        self.given += len(batch)
        tries = 0

        def attempt() -> None:
            nonlocal places, tries
            tries += 1
            try:
                self.topics.append(self.topic, [batch[place] for place in places])
                places = []
            except TopicError as error:
                if error.unacknowledged is not None:
                    places = [places[index] for index in error.unacknowledged]
                self.sent_again += len(places) if tries == 1 and error.retriable else 0
                raise
            finally:
                self.acknowledged = self.given - len(places)
                self.without_gap = begin + (places[0] if places else len(batch))

        self._patiently(attempt)

    def _patiently(self, attempt: Callable[[], None]) -> None:
        """Try until it works, or the cluster was away for `wait_s`; says once that it waits, and for what."""
        outage, began = None, time.monotonic()
        while True:
            try:
                attempt()
                break
            except TopicUnavailable as error:
                if outage is None:
                    outage = Deadline(self.wait_s)
                    self._tell(error)
                if outage.expired():
                    raise
                sleep(min(AGAIN_S, outage.remaining_s()))
        if outage is not None:
            self.waited_s += time.monotonic() - began
            err.print(f"{escape(self.topic)} takes records again after {time.monotonic() - began:.0f} s: going on")

    def _tell(self, error: TopicUnavailable) -> None:
        so_far = f"{count_of(self.acknowledged, 'record')} acknowledged so far"
        limit = f"gives up after {self.wait_s:,.0f} s (--wait-s)"
        why = with_commands(str(error))
        err.print(f"[bold yellow]waiting[/] for {escape(self.where)} ({escape(why)}); {escape(so_far)}; {limit}")
