"""Contenders measured in turns, A B C A B C …: what the machine does meanwhile slows all of them alike.

A ratio is the median over the rounds of (reference's seconds / contender's seconds) of one round, so it stays honest on
a machine whose speed drifts. Spreads are the smallest and the greatest round.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest import mock

Contender = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, smallest and greatest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """ValueError for no values."""
        return cls(median=median(values), low=min(values), high=max(values))

    def document(self) -> dict[str, float]:
        """JSON-ready, four significant digits."""
        return {name: float(f"{getattr(self, name):.4g}") for name in ("median", "low", "high")}


def interleave(contenders: Mapping[str, Contender], rounds: int, *, warm_ups: int = 1) -> dict[str, list[float]]:
    """Seconds of every round by contender. One that returns a float has timed itself (what must not count is out).

    The first `warm_ups` rounds are run and not kept.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_ups + rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            own = work()
            taken = own if isinstance(own, float) else time.perf_counter() - start
            if number >= warm_ups:
                seconds[name].append(taken)
    return seconds


def compare(seconds: Mapping[str, Sequence[float]], units: int, reference: str) -> dict[str, dict[str, Any]]:
    """By contender: units per second, and the share of the reference's speed, each with its spread."""
    return {
        name: {
            "per_s": Spread.of([units / one for one in taken]).document(),
            "ratio": Spread.of([base / one for base, one in zip(seconds[reference], taken, strict=True)]).document(),
        }
        for name, taken in seconds.items()
    }


def rows_of(compared: Mapping[str, Mapping[str, Any]], indent: str = "  ") -> list[tuple[str, str, str, str]]:
    """(contender, per second, lowest – highest round, ratio) for a table."""
    return [
        (
            f"{indent}{name}",
            f"{row['per_s']['median']:,.0f}",
            f"{row['per_s']['low']:,.0f} – {row['per_s']['high']:,.0f}",
            f"{row['ratio']['median']:.2f}",
        )
        for name, row in compared.items()
    ]


@contextmanager
def timed_calls(phases: Mapping[str, tuple[Any, str]]) -> Iterator[dict[str, float]]:
    """Adds up the wall seconds spent in methods: {phase: (owner, attribute)} → {phase: seconds}, filled in meanwhile.

    The measured code is the real one; only the named attributes are wrapped while the block runs. Phases must not
    nest. Not for threads: seconds of several threads add up.
    """
    spent = dict.fromkeys(phases, 0.0)
    with ExitStack() as stack:
        for phase, (owner, attribute) in phases.items():
            wrapper = _timed(getattr(owner, attribute), spent, phase)
            stack.enter_context(mock.patch.object(owner, attribute, wrapper))
        yield spent


def _timed(original: Callable[..., Any], spent: dict[str, float], phase: str) -> Callable[..., Any]:
    @functools.wraps(original)  # the Trainer looks at signatures
    def wrapper(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            spent[phase] += time.perf_counter() - start

    return wrapper


def shares(spent: Mapping[str, float], total: float) -> dict[str, float]:
    """Shares of the total, three digits, with what is left as `rest`."""
    known = {phase: round(seconds / total, 3) for phase, seconds in spent.items()}
    return known | {"rest": round(1 - sum(spent.values()) / total, 3)}


def shares_in_words(found: Mapping[str, float]) -> str:
    """`forward 31 %, backward 52 %, …`, the greatest first."""
    return ", ".join(f"{phase} {100 * share:.0f} %" for phase, share in sorted(found.items(), key=lambda x: -x[1]))
