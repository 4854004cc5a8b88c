"""The watch over the fast state (DESIGN §3.10): two sequential tests, and the way back. Pure.

Guards that a stream of bad labels cannot ruin the answers unseen. Answers fall back to the version's own head when

- the mixture is shown to be right less often than the head, or
- labels came loose from texts: the mixture, which was right with a share `a` of late, is shown to have fallen more than
  half of the way down to a guesser of the most frequent class.

Each test is an e-detector of the Shiryaev–Roberts kind (Shin, Ramdas & Rinaldo 2024, arXiv 2203.03532, definition 2.2):
R ← (R + 1) · (1 − λ·x), averaged over a few λ, where x > 0 speaks for the mixture. As long as x is not below 0 on
average, R rises by 1 a label at most, so that a false alarm comes after `patience` labels or more on average, and
within n labels with probability n / patience at most. It answers again once, over the last `WINDOW` labels, the mixture
is right as often as the head, and above the mark that it had fallen below.

Covered: a mixture that learned nonsense, labels that are shuffled or turned. Not covered: labels that are wrong for a
small share of the examples; and where there is no version yet there is nothing to fall back to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

__all__ = ["Outcome", "WatchState", "watch"]

STAKES = (0.05, 0.1, 0.2, 0.4, 0.8)
WINDOW = 200
KEPT = 1 - 1 / 2000
"""How much of the long-run shares stays after each label: about the last 2,000 count."""
LEAST_SEEN = 500
"""Before so many labels there is no long-run share to have fallen from."""


class Outcome(NamedTuple):
    """Whether each was right about one label, before it was learned; `head` None: no version's head has answered."""

    mixture: bool
    head: bool | None
    majority: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """What is remembered between labels. `worse` and `loose` hold each test's R, one number per stake; `usual` and
    `majority` are the long-run shares that mixture and majority are right with, over `seen` labels; `recent` the last
    outcomes of (mixture, head), kept while answers are the head's; `mark`: what the mixture has to reach again."""

    worse: tuple[float, ...] = (0.0,) * len(STAKES)
    loose: tuple[float, ...] = (0.0,) * len(STAKES)
    seen: int = 0
    usual: float = 0.0
    majority: float = 0.0
    fell_back: bool = False
    mark: float = 0.0
    recent: tuple[tuple[bool, bool], ...] = field(default=())


def watch(state: WatchState, outcomes: Iterable[Outcome], patience: float) -> WatchState:
    """The state after these labels, in their order. `patience`: labels between false alarms, on average at least."""
    for outcome in outcomes:
        state = _back(state, outcome) if state.fell_back else _tested(state, outcome, patience)
    return state


def _tested(state: WatchState, outcome: Outcome, patience: float) -> WatchState:
    mark = _mark(state)
    worse, loose = state.worse, state.loose
    if outcome.head is not None:
        worse = _risen(worse, outcome.mixture - outcome.head)
        if state.seen >= LEAST_SEEN:
            loose = _risen(loose, (outcome.mixture - mark) / (1 - mark))
    state = replace(state, worse=worse, loose=loose)
    if max(_mean(worse), _mean(loose)) < patience:
        return _longer(state, outcome)
    return replace(state, worse=WatchState().worse, loose=WatchState().loose, fell_back=True, mark=mark, recent=())


def _back(state: WatchState, outcome: Outcome) -> WatchState:
    """Answers are the head's; the long-run shares wait, so that nonsense does not become what is usual."""
    recent = (*state.recent, (outcome.mixture, bool(outcome.head)))[-WINDOW:]
    ours, heads = sum(mixture for mixture, _ in recent), sum(head for _, head in recent)
    better = len(recent) == WINDOW and ours >= heads and ours >= state.mark * WINDOW
    return replace(state, fell_back=not better, recent=() if better else recent)


def _mark(state: WatchState) -> float:
    """Half-way between what the mixture is usually right with and what the majority is; below 1."""
    return min(0.99, (state.usual + max(state.majority, 0.0)) / 2)


def _longer(state: WatchState, outcome: Outcome) -> WatchState:
    """The long-run shares with one label more: a plain mean at first, then with forgetting."""
    seen = state.seen + 1
    share = max(1 / seen, 1 - KEPT)
    return replace(
        state,
        seen=seen,
        usual=state.usual + share * (outcome.mixture - state.usual),
        majority=state.majority + share * (outcome.majority - state.majority),
    )


def _risen(sums: tuple[float, ...], gain: float) -> tuple[float, ...]:
    """`gain` in −∞..1."""
    return tuple((one + 1) * (1 - stake * gain) for one, stake in zip(sums, STAKES, strict=True))


def _mean(sums: tuple[float, ...]) -> float:
    return sum(sums) / len(sums)
