"""Options that many verbs share, and what they turn into: a checked config and one feed's name."""

import getpass
from pathlib import Path
from typing import Annotated

import typer

from driftline.cli.output import name_config
from driftline.config import Config
from driftline.errors import UsageError

DEFAULT_CONFIG = Path("driftline.toml")


def _named_config(path: Path) -> Path:
    name_config(None if path == DEFAULT_CONFIG else path)
    return path


ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The config file.", callback=_named_config)
]
FeedOption = Annotated[str | None, typer.Option("--feed", metavar="NAME", help="Which feed; optional with one feed.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes into the audit.")]
ActorOption = Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who; default: the OS user.")]
RevisionOption = Annotated[
    int | None,
    typer.Option("--revision", min=0, help="Act only if the live record is still at this revision."),
]


def choose_feed(config: Config, feed: str | None) -> str:
    """The named feed, or the only one there is. UsageError lists the feeds otherwise."""
    names = ", ".join(config.feed)
    if feed is None and len(config.feed) > 1:
        raise UsageError(f"the config has several feeds: name one with --feed ({names})")
    chosen = feed if feed is not None else next(iter(config.feed))
    if chosen not in config.feed:
        raise UsageError(f"--feed {chosen}: no such feed; the config has: {names}")
    return chosen


def choose_feeds(config: Config, feed: str | None) -> list[str]:
    """The named feed alone, or all of them. UsageError lists the feeds if the name is unknown."""
    return list(config.feed) if feed is None else [choose_feed(config, feed)]


def choose_actor(actor: str | None) -> str:
    """The given name, else the OS user's."""
    if actor:
        return actor
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
