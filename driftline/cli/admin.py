"""Verbs that change what is live: `promote`, `rollback`, `pause`, `resume`.

They act on the registry directly, need no other process, and compare-and-set: the live record is read, and the change
is refused (RegistryConflict) if somebody else was faster. Replicas follow within 2 s. What replicas would refuse, its
probe aside, is not made live.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_buffer
from driftline.assembly.supervisor import supervised
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
from driftline.cli.output import err, print_json, say, to_type
from driftline.cli.status import set_aside_in_words
from driftline.config import Config, load_config
from driftline.errors import DriftlineError, RegistryConflict, UnknownVersion, UsageError
from driftline.names import StateFiles
from driftline.phrases import count_of
from driftline.records import AuditEntry, LiveRecord, iso
from driftline.terminal import one_line

if TYPE_CHECKING:
    from driftline.registry import Registry


def version_number(text: str) -> int:
    """A version as it is typed."""
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no version: write its number, such as 3")
    return int(text)


VersionArgument = Annotated[int, typer.Argument(parser=version_number, help="The version to make live.")]
RollbackArgument = Annotated[
    int | None,
    typer.Argument(
        parser=version_number,
        help="The version to go back to; 0 is the base. Default: the one live before the current one was first "
        "promoted, so that rollbacks never go round in circles.",
    ),
]
NOTHING_TO_LEARN = "there was nothing to learn again: no example is set aside"
RelearnOption = Annotated[
    bool, typer.Option("--relearn", help="Make examples fresh again that only versions left behind learned.")
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
    name, loaded = chosen_feed(config, feed)
    if version == 0:
        raise UsageError("version 0, the base, is not promoted but gone back to: `driftline rollback 0`")
    with open_registry(loaded) as registry:
        before = registry.live(name)
        expected = before.revision if revision is None else revision
        require_servable(loaded, registry, name, version)
        live = registry.promote(
            name, version, expected_revision=expected, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC)
        )
        left = _left_behind(registry, before, live) + _own_labels(loaded, registry, live)
    _show(live, f"{_change(before, live)}{left}{_pause_in_words(live)}", as_json)


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
    name, loaded = chosen_feed(config, feed)
    with open_registry(loaded) as registry:
        before = registry.live(name)
        expected = before.revision if revision is None else revision
        last = _live_just_before(registry, before) if version is None else None
        _require_target(loaded, registry, name, registry.rollback_target(before) if version is None else version)
        live = registry.rollback(
            name, version, expected_revision=expected, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC)
        )
        labels = _own_labels(loaded, registry, live)
    _show(live, f"{_change(before, live)}{labels}{_pause_in_words(live)}{_not_the_last(last, before, live)}", as_json)


def pause(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    reason: ReasonOption = "paused by hand",
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop updates and automatic promotion; ingest and answers go on."""
    name, loaded = chosen_feed(config, feed)
    with open_registry(loaded) as registry:
        live = registry.pause(name, actor=choose_actor(actor), reason=reason, at=datetime.now(UTC))
        paused = _paused_in_words(standing_pauses(registry.audit(name)))
    _show(live, f"{name} {paused}; version {live.version} stays live: `{to_type('resume')}` goes on", as_json)


def resume(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    relearn: RelearnOption = False,
    reason: ReasonOption = "resumed by hand",
    actor: ActorOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a pause: updates and automatic promotion go on from the live version."""
    name, loaded = chosen_feed(config, feed)
    by = choose_actor(actor)
    with open_registry(loaded) as registry:
        relearned = _relearn(loaded, name, registry, by) if relearn else 0
        before = registry.live(name)
        if not before.paused:
            nothing = f"; {NOTHING_TO_LEARN}" if relearn else ""
            _show(before, f"{name} was not paused; version {before.version} stays live{nothing}", as_json)
            return
        live = registry.resume(name, actor=by, reason=reason, at=datetime.now(UTC))
    more = f"; {_relearned(relearned)}" if relearn else _set_aside(loaded, name)
    _show(live, f"{name} goes on from version {live.version}{more}", as_json)


@contextmanager
def open_registry(config: Config) -> "Iterator[Registry]":
    """The registry to write to. An embedded Redis that only this verb needed is stopped again, its data safe; not one
    that another process has connected to meanwhile."""
    from driftline.assembly.wiring import build_registry
    from driftline.registry.embedded import running_embedded, stop_unused_embedded

    files = StateFiles(config.state.path)
    started_here = config.redis.url == "embedded" and running_embedded(files) is None
    try:
        with closing(build_registry(config)) as registry:
            yield registry
    finally:
        if started_here and not supervised(files.supervisor):  # an `up` that came meanwhile may not have connected yet
            stop_unused_embedded(files)


def require_servable(config: Config, registry: "Registry", feed: str, version: int) -> None:
    """ArtefactError if replicas would refuse the version (its probe aside), UnknownVersion. Loads the base: seconds."""
    from driftline.assembly.wiring import build_base, build_trust
    from serving.stage import Verifier

    registry.require_kept(feed, version)
    trust = build_trust(config)
    trust.verify(registry.manifest(feed, version))  # before the seconds that the base takes
    with err.status("verifying…"):
        Verifier(registry, trust, build_base(config)).fetch(feed, version)


def _require_target(config: Config, registry: "Registry", feed: str, version: int) -> None:
    """As `require_servable`, for a rollback. It does not wait for the base where the version was live before: then only
    its signature and its blobs' hashes are checked, for the way back must be short. 0 is always servable."""
    from driftline.artefact.parts import BODY, HEAD
    from driftline.assembly.wiring import build_trust

    if version == 0:
        return
    if registry.promoted_before(feed, version) is None:
        require_servable(config, registry, feed, version)
        return
    registry.require_kept(feed, version)
    manifest = build_trust(config).verify(registry.manifest(feed, version))
    for name in (BODY, HEAD):
        registry.get_part(manifest, name)


def _change(before: LiveRecord, live: LiveRecord) -> str:
    """`4 → 3 (revision 5)`, with what 0 is."""
    base = ", the base without adapter" if live.version == 0 else ""
    return f"{live.feed}: version {before.version} → {live.version}{base} (revision {live.revision})"


def _own_labels(config: Config, registry: "Registry", live: LiveRecord) -> str:
    """That the version which is live now has other labels than the config, if so."""
    from driftline.artefact.manifest import decode_manifest
    from driftline.cli.label_changes import labels_of_version

    if live.version == 0:
        return ""
    return labels_of_version(config, live.feed, decode_manifest(registry.manifest(live.feed, live.version).document))


def _left_behind(registry: "Registry", before: LiveRecord, live: LiveRecord) -> str:
    """What a promotion costs where the new version does not descend from the one that was live; "" if not known."""
    from driftline.artefact.manifest import decode_manifest

    ancestor = live.version
    try:
        while ancestor > before.version:  # a parent's number is smaller than its child's
            ancestor = decode_manifest(registry.manifest(live.feed, ancestor).document).parent
    except UnknownVersion:
        return ""
    if ancestor == before.version:
        return ""
    aside = "examples that only versions left behind learned are set aside"
    return f"; version {live.version} does not build on {before.version}: {aside}"


def _live_just_before(registry: "Registry", live: LiveRecord) -> int | None:
    """What was live until the last change of the version, by the audit; None if nothing ever changed."""
    changes = (
        entry.from_version for entry in reversed(registry.audit(live.feed)) if entry.from_version != live.version
    )
    return next(changes, None)


def _not_the_last(last: int | None, before: LiveRecord, live: LiveRecord) -> str:
    """Where a rollback without a version went further than one change back: how to come to that one instead."""
    if last in (None, live.version):
        return ""
    chosen = f"version {live.version} was live before {before.version} was first promoted"
    return f"\n{chosen}; the last change came from {last}: `{to_type(f'rollback {last}')}` goes to that one"


def standing_pauses(audit: Iterable[AuditEntry]) -> list[AuditEntry]:
    """Those entries, in order, by which a feed is paused: the one whose reason stands, then those that came on top
    and changed nothing. A rollback pauses with a reason of its own, whatever stood before. [] if it is not paused."""
    standing: list[AuditEntry] = []
    for entry in audit:
        if entry.action in ("resumed", "rolled_back"):
            standing = []
        if entry.action in ("paused", "rolled_back"):
            standing.append(entry)
    return standing


def _paused_in_words(standing: list[AuditEntry]) -> str:
    """Right after a pause, which is the last of those that stand."""
    if len(standing) < 2:
        return "is paused"
    first = standing[0]
    since = iso(first.at.replace(microsecond=0))
    kept = f"the reason that was given now stands in the audit (`{to_type('history')}`)"
    return one_line(f"was already paused by {first.actor} since {since}: {first.reason}; {kept}")


def _pause_in_words(live: LiveRecord) -> str:
    return f"; automatic promotion is paused: `{to_type('resume')}`" if live.paused else ""


def _relearned(count: int) -> str:
    return f"{count_of(count, 'example')} will be learned again" if count else NOTHING_TO_LEARN


def _set_aside(config: Config, feed: str) -> str:
    """What a resume without --relearn leaves unlearned, as far as this machine's buffer knows."""
    buffer = existing_buffer(config)
    if buffer is None:
        return ""
    with closing(buffer):
        count = buffer.counts(feed).set_aside
    return f"; {set_aside_in_words(count)}" if count else ""


def chosen_feed(path: Path, feed: str | None) -> tuple[str, Config]:
    """The feed that a verb is for, and the config that names it."""
    loaded = load_config(path)
    return choose_feed(loaded, feed), loaded


def _show(live: LiveRecord, sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(live)
    else:
        say(escape(sentence))


def _relearn(config: Config, feed: str, registry: "Registry", actor: str) -> int:
    """Work out what only rolled-back versions learned, and make it fresh; returns how many. Both may be repeated.

    Only while the feed is paused, by this if it is not (and there is anything to do), so that no update starts in
    between; RegistryConflict if what is live changed.
    """
    from driftline.assembly.wiring import open_buffer

    if not StateFiles(config.state.path).buffer.exists():
        raise DriftlineError(
            f"--relearn needs the buffer that {feed} is learned from, and there is none in {config.state.path}: do it "
            "on the learner's machine with the learner's config (state.path), or resume without --relearn"
        )
    live = registry.live(feed)
    with closing(open_buffer(config)) as buffer:
        buffer.ledger.reconcile(feed, live.version, live.revision)
        if not buffer.counts(feed).set_aside:
            return 0
        with _paused(registry, live, actor) as live:
            buffer.ledger.reconcile(feed, live.version, live.revision)
            require_unchanged(registry, live)
            count = buffer.ledger.relearn(feed)
            require_unchanged(registry, live)
    return count


@contextmanager
def _paused(registry: "Registry", live: LiveRecord, actor: str) -> Iterator[LiveRecord]:
    """The live record of the feed, paused for this if it was not; it stays so, but for an error."""
    if live.paused:
        yield live
        return
    try:
        yield registry.pause(live.feed, actor=actor, reason="while resume --relearn works", at=datetime.now(UTC))
    except BaseException:
        with suppress(DriftlineError):  # the first error is the one to tell; `status` shows the pause and its reason
            registry.resume(live.feed, actor=actor, reason="resume --relearn failed", at=datetime.now(UTC))
        raise


def require_unchanged(registry: "Registry", live: LiveRecord) -> None:
    """RegistryConflict if the live record is not the one read before."""
    now = registry.live(live.feed)
    if (now.version, now.revision, now.paused) != (live.version, live.revision, live.paused):
        raise RegistryConflict(f"what is live of {live.feed} was changed meanwhile: look at it, then do this again")
