"""`driftline update-now`: asks the learner for an update with what is fresh and what is on its way."""

from contextlib import closing
from typing import Annotated

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_buffer
from driftline.cli.admin import chosen_feed, open_registry
from driftline.cli.options import (
    DEFAULT_CONFIG,
    ActorOption,
    ConfigOption,
    FeedOption,
    JsonOption,
    choose_actor,
)
from driftline.cli.output import err, print_json, say, to_type
from driftline.config import Config, feed_topics
from driftline.errors import DriftlineError
from driftline.phrases import count_of
from driftline.records import LiveRecord
from driftline.terminal import one_line
from driftline.update_requests import UPDATE_WAIT_S, Wanted

WaitOption = Annotated[
    float,
    typer.Option(
        "--wait-s", min=0, metavar="SECONDS", help="How long the learner waits for what is on its way; 0: not at all."
    ),
]


def update_now(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    actor: ActorOption = None,
    wait_s: WaitOption = UPDATE_WAIT_S,
    as_json: JsonOption = False,
) -> None:
    """Ask the learner for an update now, with what is fresh and what is on its way (at least one example)."""
    name, loaded = chosen_feed(config, feed)
    what, waits_for = on_its_way(loaded, name, wait_s)
    with open_registry(loaded) as registry:
        fresh = _require_learnable(loaded, registry.live(name), bool(what.positions))
        registry.request_update(name, choose_actor(actor), what)
        runs, stopped = registry.is_leased(name, "learner"), registry.stopped_feeds().get(name)
    known = f" with {count_of(fresh, 'fresh example')}" if fresh else ""
    if as_json:
        print_json({"feed": name, "requested": True, "fresh": fresh, "waits_for": waits_for, "learner_runs": runs})
    elif runs:
        hint = f"`{to_type('history')}` shows what it decides"
        first = f"; it first waits, up to {wait_s:g} s, for {waits_for}" if waits_for else ""
        say(escape(f"asked the learner of {name} for an update{known}{first}; {hint}"))
    elif stopped:
        say(escape(f"asked, but the learner has stopped {name}: {one_line(stopped)}"))
    else:
        say(escape(f"no learner runs for {name} now; the first one that does will update at once{known}"))


def _require_learnable(config: Config, live: LiveRecord, more_comes: bool) -> int | None:
    """How many fresh examples an update would have, None if not known here. DriftlineError if it could not start."""
    if live.paused:
        why = one_line(live.pause_reason or "no reason given")
        raise DriftlineError(f"{live.feed} is paused ({why}): `{to_type('resume')}` first")
    fresh, taken = _fresh_and_taken(config, live.feed)
    if fresh == 0 and not taken and not more_comes:  # an update that runs may give its examples back
        raise DriftlineError(
            f"{live.feed} has no fresh example to learn from, and none is on its way: bring labelled events first "
            f"(`{to_type('produce FILE.jsonl')}`); `{to_type('status')}` says what is awaited"
        )
    return fresh


def _fresh_and_taken(config: Config, feed: str) -> tuple[int | None, int]:
    """Fresh examples in this machine's buffer (None: the learner's is not here), and those of the open cycle."""
    buffer = existing_buffer(config)
    if buffer is None:
        return None, 0
    with closing(buffer):
        counts = buffer.counts(feed)
    return counts.fresh, counts.taken


def on_its_way(config: Config, feed: str, wait_s: float) -> tuple[Wanted, str]:
    """What an update of the feed has to wait for, and in words; nothing where all is read and answered, where nobody
    is to wait, or where the topics do not answer (told by `status`)."""
    from driftline.assembly.wiring import build_topics
    from driftline.topics.ends import ends

    names, buffer = feed_topics(config, feed), existing_buffer(config)
    if wait_s == 0 or buffer is None:  # without a buffer nothing was read, or the learner's is elsewhere
        return Wanted(), ""
    with closing(buffer):
        stored, unanswered = buffer.intake.positions(), buffer.counts(feed).awaiting_prediction
    try:
        with closing(build_topics(config)) as topics:
            found = ends(topics, [names.events, names.labels])
    except DriftlineError as error:
        err.print(f"[bold yellow]warning:[/] not waiting for what is on its way: {escape(str(error))}")
        return Wanted(), ""
    unread = sorted({place.topic for place, end in found.items() if stored.get(place, 0) < end})
    parts = [f"ingest to read {' and '.join(unread)}"] if unread else []
    parts += [f"the answers to {count_of(unanswered, 'labelled event')}"] if unanswered else []
    return (Wanted(positions=found, wait_s=wait_s), " and ".join(parts)) if parts else (Wanted(), "")
