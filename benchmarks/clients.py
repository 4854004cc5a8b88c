"""Concurrent HTTP clients that ask without pause and write down what they were told, by which replica, and when."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

CLIENTS = 8
ASK_WITHIN_S = 30.0
AFTER_FAILURE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One request: wall times in seconds since the epoch, the replica's index, and the version, None if it failed."""

    sent: float
    received: float
    replica: int
    version: int | None
    failure: str | None = None


class Clients:
    """Use `asking`. Client i asks replica i mod the number of replicas, one text per request, over one connection."""

    def __init__(self, urls: Sequence[str], feed: str, texts: Sequence[str]) -> None:
        self._urls = list(urls)
        self._path = f"/v1/feeds/{feed}/predict"
        self._bodies = [json.dumps({"inputs": [{"text": text}]}) for text in texts]
        self._stop = threading.Event()
        self.told: list[Told] = []

    def ask(self, number: int) -> None:
        """One client's life."""
        replica = number % len(self._urls)
        connection = _connect(self._urls[replica])
        for body in itertools.islice(itertools.cycle(self._bodies), number, None):
            if self._stop.is_set():
                break
            told = self._one(connection, replica, body)
            self.told.append(told)
            if told.failure is not None:
                connection.close()
                self._stop.wait(AFTER_FAILURE_S)
        connection.close()

    def stop(self) -> None:
        """Every client ends after the answer in hand."""
        self._stop.set()

    def first(self, replica: int, version: int, since: int = 0) -> Told | None:
        """The first answer of the replica by the version, among those from number `since` on."""
        found = (one for one in self.told[since:] if one.replica == replica and one.version == version)
        return min(found, key=lambda one: one.received, default=None)

    def failures(self) -> list[Told]:
        """All requests that got no answer."""
        return [one for one in self.told if one.failure is not None]

    def _one(self, connection: http.client.HTTPConnection, replica: int, body: str) -> Told:
        sent = time.time()
        try:
            connection.request("POST", self._path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            document = json.loads(response.read())
            failure = None if response.status == 200 else f"HTTP {response.status}"
            version = document["predictions"][0]["adapter_version"] if failure is None else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            version, failure = None, type(error).__name__
        return Told(sent=sent, received=time.time(), replica=replica, version=version, failure=failure)


@contextmanager
def asking(urls: Sequence[str], feed: str, texts: Sequence[str], clients: int = CLIENTS) -> Iterator[Clients]:
    """Clients that ask until the block is left."""
    group = Clients(urls, feed, texts)
    threads = [threading.Thread(target=group.ask, args=(number,), name=f"client-{number}") for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield group
    finally:
        group.stop()
        for thread in threads:
            thread.join()


def longest_silence_s(told: Sequence[Told], replicas: int) -> float:
    """The longest time in which a replica gave no answer, over all replicas."""
    longest = 0.0
    for replica in range(replicas):
        moments = sorted(one.received for one in told if one.replica == replica and one.failure is None)
        longest = max([longest, *(later - earlier for earlier, later in itertools.pairwise(moments))])
    return longest


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=ASK_WITHIN_S)
