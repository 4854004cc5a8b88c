"""What the fast clock could not fetch is asked for again, but not at once."""

import pytest

from driftline.errors import RegistryUnavailable
from learner.fast.recent import AGAIN_S, KEPT, Recent


class Shelf:
    """Has what it has, and counts how often it is asked. Its clock is the test's."""

    def __init__(self) -> None:
        self.has: dict[int, str] = {}
        self.asked: list[int] = []
        self.now = 0.0
        self.away = False
        self.recent = Recent(self.fetch, lambda: self.now)

    def fetch(self, version: int) -> str | None:
        self.asked.append(version)
        if self.away:
            raise RegistryUnavailable("Redis does not answer")
        return self.has.get(version)


def test_what_was_found_is_asked_for_once() -> None:
    shelf = Shelf()
    shelf.has[1] = "one"
    for shelf.now in (0, AGAIN_S, 10 * AGAIN_S):
        assert shelf.recent.get(1) == "one"
    assert shelf.asked == [1]


def test_what_was_missing_is_asked_for_again_after_a_while() -> None:
    shelf = Shelf()
    assert shelf.recent.get(1) is None
    shelf.has[1] = "one"
    shelf.now = AGAIN_S - 1
    assert shelf.recent.get(1) is None
    shelf.now = AGAIN_S
    assert shelf.recent.get(1) == "one"
    assert shelf.asked == [1, 1]


def test_an_outage_is_no_answer() -> None:
    shelf = Shelf()
    shelf.has[1], shelf.away = "one", True
    with pytest.raises(RegistryUnavailable):
        shelf.recent.get(1)
    shelf.away = False
    assert shelf.recent.get(1) == "one"


def test_only_the_last_few_are_kept() -> None:
    shelf = Shelf()
    shelf.has = {version: str(version) for version in range(KEPT + 1)}
    for version in range(KEPT + 1):
        shelf.recent.get(version)
    shelf.recent.get(KEPT)
    assert shelf.asked == list(range(KEPT + 1))
    shelf.recent.get(0)
    assert shelf.asked[-1] == 0
