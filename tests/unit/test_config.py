"""The config file: what it refuses and how it says so, and that `init` writes one that documents every key."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from driftline.cli.init import commented_config
from driftline.config import Config, FeedConfig, feed_sha256, feed_topics, load_config, parse_config, resolve_secret
from driftline.errors import ConfigError

LABELS = ["bad", "good"]
HERE = Path(__file__).parent


def parsed(**sections: Any) -> Config:
    return parse_config({"feed": {"reviews": {"labels": LABELS}}, **sections}, root=HERE)


def refused(**sections: Any) -> str:
    with pytest.raises(ConfigError) as error:
        parsed(**sections)
    return str(error.value)


def test_labels_are_all_a_feed_needs() -> None:
    config = parsed()
    assert config.feed["reviews"].schedule.period_s == 15
    assert config.redis.url == "embedded"
    assert config.state.path == HERE / "state"


@pytest.mark.parametrize(("least", "largest"), [(1, 1), (3, 5), (250, 2000), (1000, 1000), (7, 12_345)])
def test_with_the_least_room_a_rejected_update_never_keeps_ingest_from_bringing_a_new_one(
    least: int, largest: int
) -> None:
    """Every feed's learner waits: a full rejected cycle was given back, and one new example is missing."""
    schedule = {"min_examples": least, "max_examples": largest}
    feeds = {name: {"labels": LABELS, "schedule": schedule} for name in ("a", "b", "c")}
    needed = re.search(r"set at least (\d+)", refused(feed=feeds, ingest={"max_waiting_examples": 1}))
    assert needed is not None
    refused(feed=feeds, ingest={"max_waiting_examples": int(needed[1]) - 1})
    ingest = parsed(feed=feeds, ingest={"max_waiting_examples": int(needed[1])}).ingest
    assert 3 * (largest + least - 1) < ingest.resume_below_examples <= ingest.max_waiting_examples


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"serve": {"prot": 1}}, ["serve.prot", "did you mean 'port'"]),
        ({"unheard": {}}, ["unheard", "known keys here", "topics"]),
        ({"feed": {"reviews": {}}}, ["feed.reviews.labels", "is missing", "labels = ["]),
        ({"feed": {}}, ["feed"]),
        ({"serve": {"port": 99999}}, ["serve.port", "99999", "65535"]),
        ({"serve": {"port": "eighty"}}, ["serve.port", "'eighty'"]),
        ({"serve": {"heartbeat_s": 2.5}}, ["serve.heartbeat_s = 2.5", "at most 2", "counts as gone"]),
        ({"serve": {"replica": "../x"}}, ["serve.replica = '../x'", "letters, digits"]),
        ({"serve": {"replica": ""}}, ["serve.replica = ''", "letters, digits"]),
        ({"redis": {"url": "http://x"}}, ["redis.url", "http://x", "rediss://"]),
        ({"feed": {"a/b": {"labels": LABELS}}}, ["a/b", "letters, digits"]),
        ({"feed": {"reviews": {"labels": ["x", "x"]}}}, ["labels", "distinct"]),
        ({"feed": {"reviews": {"labels": ["x"]}}}, ["labels = ['x']", "at least 2 texts in brackets"]),
        ({"feed": {"reviews": {"labels": "x"}}}, ["labels = 'x'", "at least 2 texts in brackets"]),
        ({"feed": {"reviews": {"labels": ["x", 3]}}}, ["labels.1 = 3", "a text in quotes"]),
        (
            {"feed": {"reviews": {"labels": LABELS, "schedule": {"every_s": "60s"}}}},
            ["every_s = '60s'", "without quotes"],
        ),
        ({"feed": {"reviews": {"labels": LABELS, "format": "csv"}}}, ["format = 'csv'", "write 'json' or 'text'"]),
        ({"serve": {"port": 80.5}}, ["serve.port = 80.5", "a whole number"]),
        ({"serve": {"slots": 1}}, ["serve.slots = 1", "from 3 on"]),
        ({"serve": 3}, ["serve = 3", "write it as [serve]"]),
        (
            {"feed": {"reviews": {"labels": LABELS, "schedule": {"every_s": 5, "cron": "* * * * *"}}}},
            ["schedule", "exclude each other"],
        ),
        (
            {"feed": {"reviews": {"labels": LABELS, "schedule": {"min_examples": 5, "max_examples": 4}}}},
            ["max_examples is below min_examples"],
        ),
        (
            {"feed": {"a": {"labels": LABELS}, "b": {"labels": LABELS, "events_topic": "a.labels"}}},
            ["a.labels", "'a'", "'b'", "give each its own"],
        ),
        ({"ingest": {"rank": 2, "of_ranks": 2}}, ["ingest", "rank = 2", "from 0 to of_ranks - 1"]),
        (
            {"serve": {"slots": 3}, "feed": {"a": {"labels": LABELS}, "b": {"labels": LABELS}}},
            ["serve.slots = 3", "2 feeds need at least 4"],
        ),
        (
            {"ingest": {"max_waiting_examples": 4999}, "feed": {"a": {"labels": LABELS}, "b": {"labels": LABELS}}},
            [
                "ingest.max_waiting_examples = 4999",
                "at least 5000",
                "max_examples + min_examples",
                "lower max_examples",
            ],
        ),
        ({"feed": {"reviews": {"labels": LABELS, "lerner": {}}}}, ["feed.reviews.lerner", "did you mean 'learner'"]),
    ],
)
def test_a_mistake_is_named_with_key_value_and_remedy(sections: dict[str, Any], words: list[str]) -> None:
    message = refused(**sections)
    assert all(word in message for word in words), message


def test_every_mistake_is_told_at_once() -> None:
    assert len(refused(serve={"port": -1, "slots": 1}, base={"max_tokens": 0}).splitlines()) == 3


def test_a_missing_file_names_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="driftline init"):
        load_config(tmp_path / "driftline.toml")


def test_broken_toml_names_the_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "driftline.toml"
    path.write_text("[feed.reviews\nlabels = 1\n")
    with pytest.raises(ConfigError, match=r"driftline\.toml.*not valid TOML.*line 1"):
        load_config(path)


def test_topics_default_to_the_feeds_name() -> None:
    names = feed_topics(parsed(), "reviews")
    assert tuple(names.model_dump().values()) == (
        "reviews",
        "reviews.labels",
        "reviews.predictions",
        "reviews.dead-letters",
    )


def test_the_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parsed().serve.port = 1  # type: ignore[misc]


def test_the_sha256_is_of_what_is_learned_and_not_of_where() -> None:
    plain = feed_sha256(parsed(), "reviews")
    elsewhere = {"serve": {"port": 1}, "state": {"path": "elsewhere"}, "redis": {"url": "redis://x"}}
    assert feed_sha256(parsed(**elsewhere), "reviews") == plain
    learner = {"reviews": {"labels": LABELS, "learner": {"seed": 7}}}
    assert feed_sha256(parsed(feed=learner), "reviews") != plain
    assert feed_sha256(parsed(base={"max_tokens": 64}), "reviews") != plain


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_SECRET", "word")
    assert resolve_secret("env:DRIFTLINE_TEST_SECRET") == "word"
    assert resolve_secret("plain") == "plain"
    monkeypatch.delenv("DRIFTLINE_TEST_SECRET")
    with pytest.raises(ConfigError, match="DRIFTLINE_TEST_SECRET"):
        resolve_secret("env:DRIFTLINE_TEST_SECRET")


def test_every_key_is_documented() -> None:
    undocumented = [key for key, field in all_keys(Config, "") if not field.description]
    assert undocumented == []


def test_init_writes_a_config_that_loads() -> None:
    config = parse_config(tomllib.loads(commented_config()), root=HERE)
    assert config == parse_config(
        {
            "feed": {
                "reviews": {"labels": ["negative", "neutral", "positive"], "schedule": {"every_s": 15}},
            }
        },
        root=HERE,
    )


def test_init_names_every_key() -> None:
    text = commented_config()
    document = tomllib.loads(uncommented(text))
    for key, _ in all_keys(Config, ""):
        node: Any = document
        for part in key.split("."):
            assert part in node, f"{key} is not in what `driftline init` writes"
            node = node[part]


def test_init_tells_examples_from_defaults() -> None:
    text = commented_config()
    assert "# ingest_port = 9101  # an example: not set by default\n" in text
    assert "# batch_records = 500\n" in text
    assert '# labels_topic = "reviews.labels"\n' in text


def test_every_line_that_init_comments_out_may_be_switched_on() -> None:
    lines = commented_config().splitlines()
    for number, line in enumerate(lines):
        if not is_key(line) or "cron" in line:  # cron excludes every_s, which is live
            continue
        switched = "\n".join([*lines[:number], line.removeprefix("# "), *lines[number + 1 :]])
        parse_config(tomllib.loads(switched), root=HERE)


def all_keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted names of all leaf keys, with their fields."""
    for name, field in model.model_fields.items():
        child = FeedConfig if name == "feed" else field.annotation
        if isinstance(child, type) and issubclass(child, BaseModel):
            middle = f"{name}.reviews." if child is FeedConfig else f"{name}."
            yield from all_keys(child, f"{prefix}{middle}")
        else:
            yield f"{prefix}{name}", field


def is_key(line: str) -> bool:
    return re.match(r"# [a-z_]+ = ", line) is not None


def uncommented(text: str) -> str:
    return "\n".join(line.removeprefix("# ") if is_key(line) else line for line in text.splitlines())
