"""What labels are called where they come from, and what they are called in the feed. Pure; one object per feed.

Applied wherever labels come in: events, the labels topic, HTTP, recorded files and predictions, so that a label means
the same on every way. A label that was given up (`retired_labels`) is none of the feed's: nothing new comes in under
it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, Self

_SHOWN_LABELS = 10


class Named(Protocol):
    """What a feed's config says of names; `FeedConfig` is one."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def label_map(self) -> Mapping[str, str]: ...
    @property
    def fold_labels(self) -> bool: ...


class LabelNames:
    """The names under which a feed's labels may come."""

    def __init__(
        self, labels: Iterable[str], label_map: Mapping[str, str] | None = None, *, fold: bool = False
    ) -> None:
        """`fold`: without regard to case and blanks. ValueError, naming both, if two labels could not be told apart."""
        self.labels = tuple(labels)
        self._known = frozenset(self.labels)
        self._fold = fold
        self._names: dict[str, str] = {}
        for given, name in [*((label, label) for label in self.labels), *(label_map or {}).items()]:
            other = self._names.setdefault(self._key(given), name)
            if other != name:
                raise ValueError(
                    f"{given!r} stands for {name!r} and for {other!r} once case and blanks are left out: rename one of "
                    "them, or set fold_labels = false"
                )

    @classmethod
    def of(cls, feed: "Named") -> Self:
        """The names that a feed's config sets."""
        return cls(feed.labels, feed.label_map, fold=feed.fold_labels)

    def known(self, given: str) -> str | None:
        """The feed's label that is meant; None if it is none of them."""
        name = self._names.get(given) or self._names.get(self._key(given))
        return name if name in self._known else None

    def served(self, given: str) -> str:
        """What a version answered, by today's name where there is one: an older version may know labels that were
        renamed or given up since."""
        return self._names.get(given) or self._names.get(self._key(given), given)

    def in_words(self) -> str:
        """The feed's labels, the first ten of them."""
        return in_words(self.labels)

    def _key(self, given: str) -> str:
        return "".join(given.casefold().split()) if self._fold else given


def in_words(labels: Sequence[str]) -> str:
    """The first ten of them, and how many there are if that is more."""
    more = f", … ({len(labels)} in all)" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(labels[:_SHOWN_LABELS]) + more
