"""What a config's labels change for a feed that has state. Pure; one sentence for every process that must say it.

A class that the feed knew (its buffer, or a version of it) is kept, renamed by `label_map`, or given up by
`retired_labels`. One that is only gone is refused, because that is how a typing mistake looks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from driftline.errors import ConfigError

__all__ = ["LabelChange", "LabelTerms", "change_of", "current_name", "refusal", "require_consent"]


class LabelTerms(Protocol):
    """What a feed's config says of its classes; `FeedConfig` is one, and so are `FeedRules`."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def retired_labels(self) -> tuple[str, ...]: ...
    @property
    def label_map(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChange:
    """From the labels known so far to the config's. `renamed`: old name → new name, also where a class of the new name
    was known already (then the two are merged). `reordered`: what both have stands in another order.
    `unexplained`: known, and neither kept, nor renamed, nor given up. Nothing is known of a new feed: nothing changes.
    """

    added: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    reordered: bool = False
    unexplained: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.retired or self.renamed or self.reordered or self.unexplained)


def current_name(label: str, terms: LabelTerms) -> str:
    """What a class that once had this name is called now."""
    return label if label in terms.labels else terms.label_map.get(label, label)


def change_of(known: Iterable[str], terms: LabelTerms) -> LabelChange:
    """What becomes of the labels `known` so far, in their order."""
    before = tuple(dict.fromkeys(known))
    if not before:
        return LabelChange()
    now = tuple(dict.fromkeys(current_name(label, terms) for label in before))
    kept = [label for label in now if label in terms.labels]
    return LabelChange(
        added=tuple(label for label in terms.labels if label not in now),
        retired=tuple(label for label in now if label in terms.retired_labels),
        renamed={label: name for label in before if (name := current_name(label, terms)) != label},
        reordered=kept != [label for label in terms.labels if label in now],
        unexplained=tuple(label for label in now if label not in {*terms.labels, *terms.retired_labels}),
    )


def refusal(feed: str, known: Iterable[str], terms: LabelTerms, *, where: str = "the feed's state") -> str | None:
    """Why these terms are refused for a feed that knows these labels, with the remedies; None if they are not.

    `where` the labels are known from, in words.
    """
    missing = change_of(known, terms).unexplained
    if not missing:
        return None
    left_out, retired = ", ".join(map(repr, missing)), [*terms.retired_labels, *missing]
    return (
        f"feed.{feed}.labels = {_toml_list(terms.labels)} leaves out {left_out}, which {where} has: put it back; or "
        f'rename it, {_toml(missing[0])} = "NEW NAME" under [feed.{feed}.label_map]; or give it up, '
        f"feed.{feed}.retired_labels = {_toml_list(retired)} (docs/labels.md says what happens then)"
    )


def require_consent(feed: str, known: Sequence[str], terms: LabelTerms, *, where: str = "the feed's state") -> None:
    """ConfigError with `refusal`, if there is one."""
    if (problem := refusal(feed, known, terms, where=where)) is not None:
        raise ConfigError(problem)


def _toml_list(labels: Iterable[str]) -> str:
    return f"[{', '.join(map(_toml, labels))}]"


def _toml(text: str) -> str:
    """As a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped) + '"'
