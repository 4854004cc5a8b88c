"""Which versions a version stands on, and what that makes of the examples that they learned. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Parent = Callable[[int], int]
"""A version's parent, which has a smaller number; 0 of a version of unknown origin (imported)."""


def down(version: int, parent: Parent, floor: int = 0) -> Iterator[int]:
    """The version, its parent, … not below `floor`."""
    while version >= floor:
        yield version
        if version <= 0:
            return
        version = parent(version)


def paths(before: int, after: int, parent: Parent) -> tuple[list[int], list[int]]:
    """Where `after` is live instead of `before`: the versions that it does not stand on, and those that come in.

    Both ways down to the nearest version that both stand on: what is common to them, however much, costs nothing.
    """
    leaving, entering = [], []
    while before != after:
        if before > after:
            leaving.append(before)
            before = parent(before)
        else:
            entering.append(after)
            after = parent(after)
    return leaving, entering


@dataclass(frozen=True, slots=True)
class Learned:
    """An example in the plan of a version that has been live. `inside`: the live version stands on that one.
    `remembered`: it was only offered to the reservoir, not trained."""

    seq: int
    version: int
    remembered: bool
    inside: bool


@dataclass(slots=True)
class Settled:
    """Examples by what becomes of them. `wrongly`: learned inside, with a label that was corrected since."""

    learned: set[int] = field(default_factory=set)
    remembered: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    wrongly: set[int] = field(default_factory=set)


def settle(plans: Iterable[Learned], relearn_after: Mapping[int, int]) -> Settled:
    """Learned: what a version of the live lineage learned. Lost: what only versions outside it did.

    `relearn_after`: of corrected examples, the newest version that learned the wrong label, as did all before it.
    """
    found = Settled()
    for one in plans:
        stale = one.version <= relearn_after.get(one.seq, 0)
        if one.inside and stale:
            found.wrongly.add(one.seq)
        elif one.inside:
            (found.remembered if one.remembered else found.learned).add(one.seq)
        elif not stale:
            found.lost.add(one.seq)
    found.remembered -= found.learned
    found.lost -= found.learned | found.remembered
    found.wrongly -= found.learned | found.remembered
    return found
