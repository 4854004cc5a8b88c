"""A version is taken in only where base and task are those it was made for; an import, where the labels are, too."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from driftline.artefact.fit import check_fit, check_same_labels
from driftline.config import FeedConfig
from driftline.errors import ArtefactError
from driftline.tasks import TASKS
from tests.fixtures.registry import manifest_of
from tests.fixtures.tasks import Ordinal

MADE = manifest_of(3)
HERE: dict[str, Any] = {
    "fingerprint": MADE.base_fingerprint,
    "pooling": MADE.pooling,
    "max_tokens": MADE.max_tokens,
}


def test_what_was_made_here_fits() -> None:
    check_fit(MADE, **HERE)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"fingerprint": "0" * 64}, "wrong_base", "base.model"),
        ({"pooling": "other"}, "wrong_base", "base.pooling"),
        ({"max_tokens": MADE.max_tokens + 1}, "wrong_base", "base.max_tokens"),
    ],
)
def test_what_differs_here_is_named(change: dict[str, Any], code: str, word: str) -> None:
    with pytest.raises(ArtefactError, match=word) as caught:
        check_fit(MADE, **HERE | change)
    assert caught.value.code == code


def test_another_task_does_not_fit() -> None:
    with pytest.raises(ArtefactError, match="regression") as caught:
        check_fit(replace(MADE, task="regression"), **HERE)
    assert caught.value.code == "wrong_task"


def test_a_feed_goes_on_from_versions_of_its_own_task_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "ordinal", Ordinal())
    other = replace(MADE, task="ordinal")
    check_fit(other, **HERE)
    check_fit(MADE, **HERE, task="classification")
    with pytest.raises(ArtefactError, match="for task 'ordinal', this feed's is 'classification'") as caught:
        check_fit(other, **HERE, task="classification")
    assert caught.value.code == "wrong_task"


def terms(labels: Sequence[str], **renames: str) -> FeedConfig:
    return FeedConfig(labels=tuple(labels), label_map=renames)


def test_an_import_has_the_same_labels_in_the_same_order_renames_followed() -> None:
    first, *others = MADE.labels
    check_same_labels(MADE, terms(MADE.labels))
    check_same_labels(MADE, terms(["new", *others], **{first: "new"}))
    for wrong in (MADE.labels[::-1], (*MADE.labels, "more"), ("new", *others)):
        with pytest.raises(ArtefactError, match="same order") as caught:
            check_same_labels(MADE, terms(wrong))
        assert caught.value.code == "wrong_labels"
