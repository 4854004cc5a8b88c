"""What the fast clock has fetched of versions, the last few of it.

Guards that a failure is no verdict: what could not be had (a damaged part, a manifest that a restored Redis has again)
is asked for once more after a while; until then, and of a version that is gone for good, the clock goes on without.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["AGAIN_S", "Recent"]

KEPT = 8
AGAIN_S = 60.0

T = TypeVar("T")


class _Known(NamedTuple, Generic[T]):
    found: T | None
    at: float


class Recent(Generic[T]):
    """By version, as `fetch` gives it, or None where it cannot be had. What `fetch` raises is remembered by nobody."""

    def __init__(self, fetch: Callable[[int], T | None], now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._now = now
        self._known: OrderedDict[int, _Known[T]] = OrderedDict()

    def get(self, version: int) -> T | None:
        """The version's."""
        known = self._known.get(version)
        if known is None or (known.found is None and self._now() - known.at >= AGAIN_S):
            known = self._known[version] = _Known(self._fetch(version), self._now())
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known.found
