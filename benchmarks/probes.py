"""HTTP clients that ask at a steady pace, and keep every answer whole: the text, what was said of it, and when."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

CLIENTS = 4
ASK_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One request of one text. Times are `time.monotonic()`. `answer` is the prediction with its experts; None where
    `failure` says why there is none."""

    sent: float
    received: float
    text: str
    answer: dict[str, Any] | None = None
    failure: str | None = None

    @property
    def pulse(self) -> int:
        """The fast state that was mixed in; 0 without an answer."""
        return 0 if self.answer is None else int(self.answer["pulse"])


class Probes:
    """Use `probing`. A client that is late asks at once, and makes up for nothing: what was held up shows as a gap."""

    def __init__(self, url: str, feed: str, texts: Sequence[str], per_s: float) -> None:
        self._url = urlsplit(url)
        self._path = f"/v1/feeds/{feed}/predict?experts=true"
        self._texts = texts
        self._every_s = CLIENTS / per_s
        self._stop = threading.Event()
        self.done: list[Probe] = []

    def ask(self, number: int) -> None:
        """One client's life."""
        connection = self._connect()
        due = time.monotonic() + number * self._every_s / CLIENTS
        for text in itertools.islice(itertools.cycle(self._texts), number, None, CLIENTS):
            if self._stop.wait(max(0.0, due - time.monotonic())):
                break
            due = max(due + self._every_s, time.monotonic())
            probe = self._one(connection, text)
            self.done.append(probe)
            if probe.failure is not None:
                connection.close()
        connection.close()

    def stop(self) -> None:
        """Every client ends after the answer in hand."""
        self._stop.set()

    def newest(self) -> int:
        """The newest pulse that an answer of late named."""
        return max((one.pulse for one in self.done[-8 * CLIENTS :]), default=0)

    def failures(self) -> list[Probe]:
        """Requests that got no answer."""
        return [one for one in self.done if one.failure is not None]

    def _one(self, connection: http.client.HTTPConnection, text: str) -> Probe:
        sent, answer, failure = time.monotonic(), None, None
        try:
            body = json.dumps({"inputs": [{"text": text}]})
            connection.request("POST", self._path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            document = json.loads(response.read())
            if response.status == 200:
                [answer] = document["predictions"]
            else:
                failure = f"HTTP {response.status}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = type(error).__name__
        return Probe(sent=sent, received=time.monotonic(), text=text, answer=answer, failure=failure)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._url.hostname or "127.0.0.1", self._url.port, timeout=ASK_WITHIN_S)


@contextmanager
def probing(url: str, feed: str, texts: Sequence[str], per_s: float) -> Iterator[Probes]:
    """Clients that ask until the block is left."""
    probes = Probes(url, feed, texts, per_s)
    threads = [threading.Thread(target=probes.ask, args=(number,), name=f"probe-{number}") for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield probes
    finally:
        probes.stop()
        for thread in threads:
            thread.join()


def first_with(done: Sequence[Probe], pulses: Sequence[int]) -> list[float | None]:
    """For each pulse number when the first answer came that had it in it, or a later one; None if none did."""
    answers = sorted((one.received, one.pulse) for one in done)
    newest = np.maximum.accumulate([pulse for _, pulse in answers] or [0])  # rising
    places = np.searchsorted(newest, pulses).tolist()
    return [answers[place][0] if place < len(answers) else None for place in places]


def gaps_s(done: Sequence[Probe]) -> list[float]:
    """Seconds between one answer and the next: how finely the moment of an answer can be told."""
    moments = sorted(one.received for one in done if one.failure is None)
    return [later - earlier for earlier, later in itertools.pairwise(moments)]
