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
    def retired_labels(self) -> tuple[str, ...]: ...
    @property
    def label_map(self) -> Mapping[str, str]: ...
    @property
    def fold_labels(self) -> bool: ...


class LabelNames:
    """The names under which a feed's labels may come."""

    def __init__(
        self,
        labels: Iterable[str],
        label_map: Mapping[str, str] | None = None,
        *,
        fold: bool = False,
        retired: Iterable[str] = (),
    ) -> None:
        """`fold`: without regard to case and blanks. `retired`: what was given up, which is only told apart from what
        never was a label. ValueError, naming both, if two labels could not be told apart."""
        self.labels = tuple(labels)
        self._known = frozenset(self.labels)
        self._fold = fold
        self._retired = {self._key(label): label for label in retired}
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
        return cls(feed.labels, feed.label_map, fold=feed.fold_labels, retired=feed.retired_labels)

    def known(self, given: str) -> str | None:
        """The feed's label that is meant; None if it is none of them."""
        name = self._names.get(given) or self._names.get(self._key(given))
        return name if name in self._known else None

    def served(self, given: str) -> str:
        """What a version answered, by today's name where there is one: an older version may know labels that were
        renamed or given up since."""
        return self._names.get(given) or self._names.get(self._key(given), given)

    def refusal(self, given: str) -> str:
        """Why a label that is not `known` is none, and what to do; put after the name of what holds it. It quotes the
        config only, never what was given."""
        retired = self._retired.get(self._key(self.served(given)))
        if retired is not None:
            return given_up(retired)
        return f"is not one of the feed's labels: {in_words(self.labels)}"

    def _key(self, given: str) -> str:
        return "".join(given.casefold().split()) if self._fold else given


def given_up(label: str) -> str:
    """What is the matter with a label of a class that was given up, and what to do."""
    again = "to take such labels in again, put it back into labels (docs/labels.md)"
    return f"is of {label!r:.80}, a class that was given up (retired_labels): {again}"


def in_words(labels: Sequence[str]) -> str:
    """The first ten of them, and how many there are if that is more."""
    more = f", … ({len(labels)} in all)" if len(labels) > _SHOWN_LABELS else ""
    return ", ".join(labels[:_SHOWN_LABELS]) + more
