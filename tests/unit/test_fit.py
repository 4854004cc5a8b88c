"""A version is taken in only where base, task and labels are those it was made for."""

from dataclasses import replace
from typing import Any

import pytest

from driftline.artefact.fit import check_fit
from driftline.errors import ArtefactError
from tests.fixtures.registry import manifest_of

MADE = manifest_of(3)
HERE: dict[str, Any] = {
    "labels": MADE.labels,
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
        ({"labels": MADE.labels[::-1]}, "wrong_labels", "same order"),
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
