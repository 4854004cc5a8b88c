"""What a config's labels change for a feed that has state, and what it must not change without saying so."""

import tomllib

import pytest

from driftline.config import FeedConfig
from driftline.errors import ConfigError
from driftline.label_change import LabelChange, change_of, current_name, refusal, require_consent

KNOWN = ("negative", "neutral", "positive")


def terms(*labels: str, retired: tuple[str, ...] = (), **renames: str) -> FeedConfig:
    return FeedConfig(labels=labels, retired_labels=retired, label_map=renames)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (terms(*KNOWN), LabelChange()),
        (terms(*KNOWN, "mixed"), LabelChange(added=("mixed",))),
        (terms("mixed", *KNOWN), LabelChange(added=("mixed",))),
        (terms("positive", "neutral", "negative"), LabelChange(reordered=True)),
        (terms("negative", "positive", retired=("neutral",)), LabelChange(retired=("neutral",))),
        (terms("bad", "neutral", "positive", negative="bad"), LabelChange(renamed={"negative": "bad"})),
        (terms("negative", "positive", neutral="negative"), LabelChange(renamed={"neutral": "negative"})),
        (terms("negative", "positive"), LabelChange(unexplained=("neutral",))),
        (terms("negativ", "neutral", "positive"), LabelChange(added=("negativ",), unexplained=("negative",))),
        (
            terms("good", "bad", "mixed", retired=("neutral",), positive="good", negative="bad"),
            LabelChange(
                added=("mixed",),
                retired=("neutral",),
                renamed={"negative": "bad", "positive": "good"},
                reordered=True,
            ),
        ),
    ],
)
def test_what_changes(config: FeedConfig, expected: LabelChange) -> None:
    assert change_of(KNOWN, config) == expected
    assert bool(change_of(KNOWN, config)) == (expected != LabelChange())


def test_nothing_is_known_of_a_new_feed() -> None:
    assert change_of((), terms("a", "b")) == LabelChange()
    assert refusal("f", (), terms("a", "b")) is None


def test_what_raw_labels_are_called_is_no_rename() -> None:
    mapped = FeedConfig(labels=KNOWN, label_map={"1": "negative", "5": "positive"})
    assert change_of(KNOWN, mapped) == LabelChange()
    assert current_name("1", mapped) == "negative"


def test_a_class_that_is_only_gone_is_refused_with_key_value_and_the_three_remedies() -> None:
    with pytest.raises(ConfigError) as caught:
        require_consent("reviews", KNOWN, terms("negative", "positive"))
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert text.startswith('feed.reviews.labels = ["negative", "positive"] leaves out \'neutral\'')
    assert "put it back" in text
    assert '"neutral" = "NEW NAME" under [feed.reviews.label_map]' in text
    assert 'feed.reviews.retired_labels = ["neutral"]' in text


def test_the_remedy_is_toml_whatever_the_label() -> None:
    strange = 'a "b" \\ \x1b[2J'
    text = refusal("f", ("x", "y", strange), terms("x", "y")) or ""
    assert "\x1b" not in text
    wanted = text.partition("feed.f.retired_labels = ")[2].partition(" (docs")[0]
    assert tomllib.loads(f"labels = {wanted}") == {"labels": [strange]}
