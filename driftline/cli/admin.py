"""Verbs that change what is live: `promote`, `rollback`, `pause`, `resume`, `update-now`.

They act on the registry directly, need no other process, and compare-and-set: the live record is read, and the change
is refused (RegistryConflict) if somebody else was faster. Replicas follow within 2 s.
"""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from driftline.cli.options import (
    DEFAULT_CONFIG,
    ActorOption,
    ConfigOption,
    FeedOption,
    JsonOption,
    ReasonOption,
    RevisionOption,
    choose_actor,
    choose_feed,
)
from driftline.cli.output import count_of, print_json, say
from driftline.config import Config, load_config
from driftline.errors import DriftlineError, RegistryConflict
from driftline.names import StateFiles
from driftline.records import LiveRecord

if TYPE_CHECKING:
    from driftline.buffer import Buffer
    from driftline.registry import Registry

VersionArgument = Annotated[int, typer.Argument(min=1, help="The version to make live.")]
RollbackArgument = Annotated[
    int | None,
    typer.Argument(
        min=0, help="The version to go back to; 0 is the base. Default: the one live before the current one."
    ),
]
RelearnOption = Annotated[
    bool, typer.Option("--relearn", help="Make examples fresh again that only rolled-back versions learned.")
]


def promote(
    version: VersionArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    reason: ReasonOption = "promoted by hand",
    actor: ActorOption = None,
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a registered version live, whatever the gate decided."""
    from driftline.cli.wiring import build_registry

    name, loaded = _feed(config, feed)
    registry = build_registry(loaded)
    expected = registry.live(name).revision if revision is None else revision
    live = registry.promote(
        name, version, expected_revision=expected, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC)
    )
    _show(live, f"version {live.version} of {name} is live (revision {live.revision})", as_json)


def rollback(
    version: RollbackArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    reason: ReasonOption = "rolled back by hand",
    actor: ActorOption = None,
    revision: RevisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to an earlier version, and pause automatic promotion until `resume`."""
    from driftline.cli.wiring import build_registry

    name, loaded = _feed(config, feed)
    registry = build_registry(loaded)
    expected = registry.live(name).revision if revision is None else revision
    live = registry.rollback(
        name, version, expected_revision=expected, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC)
    )
    what = f"version {live.version}" if live.version else "version 0, the base without adapter,"
    _show(live, f"{what} of {name} is live (revision {live.revision}); promotion is paused until `resume`", as_json)


def pause(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    reason: ReasonOption = "paused by hand",
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop updates and automatic promotion; ingest and answers go on."""
    from driftline.cli.wiring import build_registry

    name, loaded = _feed(config, feed)
    live = build_registry(loaded).pause(name, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC))
    _show(live, f"{name} is paused; version {live.version} stays live", as_json)


def resume(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    relearn: RelearnOption = False,
    reason: ReasonOption = "resumed by hand",
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a pause: updates and automatic promotion go on from the live version."""
    from driftline.cli.wiring import build_registry

    name, loaded = _feed(config, feed)
    registry = build_registry(loaded)
    relearned = _relearn(loaded, name, registry) if relearn else 0
    live = registry.resume(name, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC))
    more = f"; {count_of(relearned, 'example')} will be learned again" if relearn else ""
    _show(live, f"{name} goes on from version {live.version}{more}", as_json)


def update_now(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the learner for an update now, with whatever fresh examples wait (at least one)."""
    from driftline.cli.wiring import build_registry

    name, loaded = _feed(config, feed)
    registry = build_registry(loaded)
    live = registry.live(name)
    if live.paused:
        raise DriftlineError(f"{name} is paused ({live.pause_reason}): `driftline resume` first")
    fresh = _fresh(loaded, name)
    if fresh == 0:
        raise DriftlineError(
            f"{name} has no fresh example to learn from: bring labelled events first (`driftline produce`); "
            "`driftline status` says what is awaited"
        )
    registry.request_update(name, choose_actor(actor))
    known = f" with {count_of(fresh, 'fresh example')}" if fresh else ""
    if as_json:
        print_json({"feed": name, "requested": True, "fresh": fresh})
    else:
        say(f"asked the learner of {escape(name)} for an update{known}; `driftline history` shows what it decides")


def _feed(path: Path, feed: str | None) -> tuple[str, Config]:
    loaded = load_config(path)
    return choose_feed(loaded, feed), loaded


def _show(live: LiveRecord, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(live)
    else:
        say(escape(sentence))


def _relearn(config: Config, feed: str, registry: "Registry") -> int:
    """Work out what only rolled-back versions learned, and make it fresh. Both steps may be repeated.

    Only while the feed is paused, so that no update starts in between; RegistryConflict if what is live changed.
    """
    live = registry.live(feed)
    if not live.paused:
        raise DriftlineError(f"--relearn needs {feed} to be paused meanwhile: `driftline pause`, then resume --relearn")
    with _opened(config) as buffer:
        buffer.reconcile(feed, live.version)
        require_unchanged(registry, live)
        count = buffer.relearn(feed)
        require_unchanged(registry, live)
    return count


def require_unchanged(registry: "Registry", live: LiveRecord) -> None:
    """RegistryConflict if the live record is not the one read before."""
    now = registry.live(live.feed)
    if (now.version, now.revision, now.paused) != (live.version, live.revision, live.paused):
        raise RegistryConflict(f"what is live of {live.feed} was changed meanwhile: look at it, then do this again")


def _fresh(config: Config, feed: str) -> int | None:
    """Fresh examples in this machine's buffer; None if the learner's buffer is not here."""
    if not StateFiles(config.state.path).buffer.exists():
        return None
    with _opened(config, read_only=True) as buffer:
        return buffer.fresh_count(feed)


def _opened(config: Config, *, read_only: bool = False) -> "closing[Buffer]":
    from driftline.cli.wiring import open_buffer

    return closing(open_buffer(config, read_only=read_only))
