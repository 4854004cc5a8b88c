"""Events at a steady pace onto their topic, and each label some events later onto its own, with the moment kept."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.installation import FEED, Installation
from driftline.assembly.wiring import build_topics, topic_names
from driftline.topics.codec import encode_event, encode_label

EVENTS_PER_S = 5.0
LABEL_AFTER_EVENTS = 20
FINISH_WITHIN_S = 60.0


class Feeder:
    """Use `feeding`. `given`: when each label was handed to the producer."""

    def __init__(self, place: Installation, events: Sequence[dict[str, Any]]) -> None:
        self._topics = build_topics(place.config)
        self._names = topic_names(place.config)[FEED]
        self._events = events
        self._stop, self._ended = threading.Event(), threading.Event()
        self.given: dict[str, float] = {}
        self.broken: BaseException | None = None

    def run(self) -> None:
        """One event after the other until told to stop; then the labels that are still to come."""
        try:
            due, count = time.monotonic(), 0
            while count < len(self._events) and not self._stop.wait(max(0.0, due - time.monotonic())):
                due += 1 / EVENTS_PER_S
                event, count = self._events[count], count + 1
                self._topics.append(self._names.events, [encode_event(event["id"], event["text"])])
                if count > LABEL_AFTER_EVENTS:
                    self._label(self._events[count - 1 - LABEL_AFTER_EVENTS])
            for event in self._events[max(0, count - LABEL_AFTER_EVENTS) : count]:
                self._label(event)
        except BaseException as error:  # noqa: BLE001  the thread's edge: `feeding` raises it
            self.broken = error
        finally:
            self._topics.close()
            self._ended.set()

    def stop(self) -> None:
        """No event more."""
        self._stop.set()

    def finish(self) -> None:
        """No event more, and wait until the labels that were to come are given, too."""
        self.stop()
        self._ended.wait(FINISH_WITHIN_S)

    def _label(self, event: dict[str, Any]) -> None:
        self.given[event["id"]] = time.monotonic()
        self._topics.append(self._names.labels, [encode_label(event["id"], event["label"], None, None)])


@contextmanager
def feeding(place: Installation, events: Sequence[dict[str, Any]]) -> Iterator[Feeder]:
    """Events and their labels until the block is left, or all are given."""
    feeder = Feeder(place, events)
    thread = threading.Thread(target=feeder.run, name="feeder")
    thread.start()
    try:
        yield feeder
    finally:
        feeder.stop()
        thread.join()
        if feeder.broken is not None:
            raise feeder.broken
