"""`driftline status`: what every replica serves, what the learner waits for, what was counted, how good answers are.

Reads only: the live record and heartbeats from Redis, the counts from the buffer on this machine, the supervisor's
file. What cannot be reached is said, and the rest is shown.
"""

from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_buffer, existing_registry
from driftline.assembly.supervisor import supervised
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feeds
from driftline.cli.output import print_json, print_table, say, to_type, with_commands
from driftline.cli.problems import Sight, find_problems, keeps_ending, stopped_feed, unknown_labels
from driftline.config import Config, FeedConfig, load_config
from driftline.errors import DriftlineError, RegistryError, RegistryUnavailable
from driftline.exams_in_words import recalls_in_words, warnings
from driftline.names import StateFiles
from driftline.phrases import count_of, percent
from driftline.records import ADAPT_ROLE, LiveRecord, ReplicaStatus
from driftline.terminal import one_line

if TYPE_CHECKING:
    from driftline.buffer import Buffer, FeedCounts
    from driftline.registry import Registry


LAST_EXAMPLES = 1000
NO_ANSWERS: dict[str, Any] = {
    "accuracy": None,
    "macro_f1": None,
    "recall": {},
    "n": 0,
    "answered_share": None,
    "untrained": 0,
    "null_answers": 0,
}


def status(config: ConfigOption = DEFAULT_CONFIG, feed: FeedOption = None, as_json: JsonOption = False) -> None:
    """What is live, what is awaited, and how good the answers are. Exit code 1 if there is a problem."""
    loaded = load_config(config)
    document = collect(loaded, choose_feeds(loaded, feed))
    if as_json:
        print_json(document)
    else:
        show(document)
    if document["problems"]:
        raise typer.Exit(1)


def collect(config: Config, feeds: list[str]) -> dict[str, Any]:
    """Everything as one document: `processes`, `replicas`, `problems` and `feeds`, each feed by its name."""
    processes = supervised(StateFiles(config.state.path).supervisor)
    sight = _registry_view(config, feeds)
    cut_off = keeps_ending("ingest", processes)
    problems = find_problems(config, feeds, processes, sight)
    return {
        "processes": processes,
        "replicas": sight.replicas,
        "feeds": {
            feed: _feed_view(
                config,
                feed,
                sight.live.get(feed),
                stopped_feed(sight.stopped.get(feed), processes),
                cut_off,
                problems,
            )
            | {"fast": _fast_view(feed, sight) if config.feed[feed].fast.enabled else None}
            for feed in feeds
        },
        "problems": list(dict.fromkeys(problems)),  # the buffer is the same for all feeds
    }


def _registry_view(config: Config, feeds: list[str]) -> Sight:
    """Live records, replicas, who learns, and why a learner stopped which feed."""
    try:
        registry = existing_registry(config)
        if registry is None:
            return Sight(live={feed: LiveRecord(feed=feed) for feed in feeds})
        return Sight(
            live={feed: registry.live(feed) for feed in feeds},
            replicas=registry.replicas(),
            stopped=registry.stopped_feeds(),
            learned_by=frozenset(feed for feed in feeds if registry.is_leased(feed, "learner")),
            server=_server_problems(registry),
            clocks=registry.fast_clocks(),
            adapted_by=frozenset(feed for feed in feeds if registry.is_leased(feed, ADAPT_ROLE)),
        )
    except DriftlineError as error:
        return Sight(problem=with_commands(str(error)))


def _server_problems(registry: "Registry") -> list[str]:
    """What is wrong with Redis's settings, or that this user may not look at them."""
    try:
        return registry.check_server()
    except RegistryUnavailable:
        raise
    except RegistryError as error:
        return [f"its settings cannot be looked at: {error}"]


def _feed_view(
    config: Config,
    feed: str,
    live: LiveRecord | None,
    stopped: str | None,
    cut_off: str | None,
    problems: list[str],
) -> dict[str, Any]:
    """`stopped`: why nothing is learned. `cut_off`: why nothing comes in."""
    section = config.feed[feed]
    problems_before = len(problems)
    counts, prequential, seen = _buffer_view(config, feed, problems)
    awaits = awaited(counts, live, section)
    if len(problems) > problems_before:
        awaits = "unknown: the buffer cannot be read"
    if counts is not None and (misnamed := unknown_labels(feed, counts)):
        problems.append(misnamed)
    if stopped:
        awaits = f"nothing is learned: {stopped}"
    elif cut_off:
        awaits = f"{awaits}; nothing comes in: {cut_off}"
    return {
        "version": live.version if live else None,
        "revision": live.revision if live else None,
        "anchor": live.anchor if live else None,
        "paused": live.paused if live else None,
        "pause_reason": live.pause_reason if live else None,
        "changed_at": live.changed_at if live else None,
        "awaited": awaits,
        "stopped": stopped,
        "counts": counts,
        "counts_at_revision": seen,
        "dead_letters": counts.by_reason if counts else {},
        "prequential": prequential,
        "warnings": _warnings(config, feed, live),
    }


def _fast_view(feed: str, sight: Sight) -> dict[str, Any]:
    """The fast clock's pulse, and whether answers fell back to the head; None and False where none runs."""
    return {
        "pulse": max((clock.pulses[feed] for clock in sight.clocks if feed in clock.pulses), default=None),
        "fell_back": any(feed in clock.fell_back for clock in sight.clocks),
    }


def _warnings(config: Config, feed: str, live: LiveRecord | None) -> list[str]:
    """What is not wrong, but may disappoint. Nothing where the registry cannot be read: that is told as a problem."""
    from driftline.artefact.manifest import decode_manifest

    try:
        registry = existing_registry(config)
        if registry is None or live is None:
            return []
        newest = max(registry.versions(feed), default=0)
        wanted = {number: registry.manifest(feed, number) for number in {newest, live.version} - {0}}
        manifests = {number: decode_manifest(signed.document) for number, signed in wanted.items()}
        return warnings(manifests.get(live.version), manifests.get(newest))
    except DriftlineError:
        return []


def _buffer_view(
    config: Config, feed: str, problems: list[str]
) -> tuple["FeedCounts | None", dict[str, Any], int | None]:
    """The counts, how good the answers are, and the revision of the live record by which examples are counted."""
    try:
        buffer = existing_buffer(config)
        if buffer is None:
            return None, dict(NO_ANSWERS), None
        with closing(buffer):
            seen = buffer.ledger.seen_revision(feed)  # first: the counts are as of this one, or a later one
            return buffer.counts(feed), prequential_accuracy(buffer, feed, config.feed[feed]), seen
    except (DriftlineError, OSError) as error:
        problems.append(f"buffer: {error}")
        return None, dict(NO_ANSWERS), None


def prequential_accuracy(buffer: "Buffer", feed: str, section: FeedConfig) -> dict[str, Any]:
    """Accuracy, macro-F1 and recall by class of the answers as served to the last 1,000 examples.

    Without scorer (`score = false`) the accuracy is only over what was answered; `answered_share` (0..1 of these
    examples; None of none) says how much that is. `untrained`: how many of them version 0 answered, by the fast clock
    where there is one; `null_answers`: how many answers named no label, which counts as wrong.
    """
    from driftline.figures import accuracy, by_class, macro_f1

    rows = buffer.exams.scored(feed, last=LAST_EXAMPLES)
    scored = [row for row in rows if section.serve.score or row.answered]
    predicted, truth = [row.predicted for row in scored], [row.label for row in scored]
    return {
        "accuracy": accuracy(predicted, truth),
        "macro_f1": macro_f1(predicted, truth, section.labels),
        "recall": {
            label: {"recall": one.recall, "n": one.n} for label, one in by_class(predicted, truth).items() if one.n
        },
        "n": len(scored),
        "answered_share": sum(row.answered for row in rows) / len(rows) if rows else None,
        "untrained": sum(row.version == 0 for row in scored),
        "null_answers": sum(row.answered and row.predicted is None for row in scored),
    }


def awaited(counts: "FeedCounts | None", live: LiveRecord | None, section: FeedConfig) -> str:
    """What has to come before the next update, in words: `112 of 250 examples`, and why it is not more."""
    if live is not None and live.paused:
        return f"paused ({live.pause_reason or 'no reason given'}); `{to_type('resume')}` goes on"
    if counts is None:
        return f"ingest has not run yet: `{to_type('up')}`"
    if counts.event_records == 0:
        return "; ".join(["no event has come yet", *_waiting_labels(counts)])
    if counts.taken:
        return f"an update with {count_of(counts.taken, 'example')} is under way"
    wanted = section.schedule.enough(counts.examples)
    new = counts.fresh - counts.returned  # a rejection alone starts no update
    if new >= wanted:
        return f"{count_of(new, 'example')} wait, {wanted:,} are enough: the next tick"
    return "; ".join([f"{new:,} of {wanted:,} examples", *_missing(counts)])


def _missing(counts: "FeedCounts") -> list[str]:
    parts = []
    if counts.returned:
        parts.append(f"{count_of(counts.returned, 'example')} of a rejected update will be tried again with them")
    if counts.examples == 0:
        parts.append("nothing labelled yet")
    if counts.pending:
        parts.append(f"{count_of(counts.pending, 'event')} without label so far")
    parts.extend(_waiting_labels(counts))
    if counts.awaiting_prediction:
        parts.append(f"{count_of(counts.awaiting_prediction, 'example')} without the answer that was served")
    if counts.set_aside:
        parts.append(set_aside_in_words(counts.set_aside))
    return parts


def set_aside_in_words(count: int) -> str:
    """How many examples stay unlearned after a rollback or a promotion by hand, and how to learn them again."""
    why = "learned only by versions that are not live any more"
    return f"{count_of(count, 'example')} set aside: {why} (to learn them again: `{to_type('resume --relearn')}`)"


def _waiting_labels(counts: "FeedCounts") -> list[str]:
    if not counts.labels_waiting:
        return []
    wait = "waits for its event" if counts.labels_waiting == 1 else "wait for their event"
    return [f"{count_of(counts.labels_waiting, 'label')} {wait}"]


def show(document: dict[str, Any]) -> None:
    """The document for people."""
    for name, view in document["feeds"].items():
        _show_feed(name, view)
    _show_replicas(document["replicas"])
    _show_processes(document["processes"])
    for problem in document["problems"]:
        say(f"[bold red]problem:[/] {escape(one_line(problem))}")


def _show_feed(name: str, view: dict[str, Any]) -> None:
    version, revision = view["version"], view["revision"]
    live = "unknown" if version is None else f"version {version} (revision {revision})"
    state = "  [yellow]paused[/]" if view["paused"] else ""
    say(f"[bold]{escape(name)}[/]  live: {live}{state}")
    say(f"  awaited     {escape(one_line(view['awaited']))}")
    if view["prequential"]["n"]:
        _show_accuracy(view["prequential"])
    for warning in view["warnings"]:
        say(f"  [yellow]warning[/]     {escape(warning)}")
    counts: FeedCounts | None = view["counts"]
    if counts is not None:
        say(f"  events      {counts.event_records:,} = {_balance(counts)}")
        say(f"  examples    {_states(counts)}{_as_of(view['counts_at_revision'], revision)}")
        if view["fast"] is not None:
            say(f"  fast clock  {_fast_in_words(view['fast'], counts)}")
        if noted := _noted(counts):
            say(f"  noted       {noted}")
    if counts is not None and counts.by_reason:
        say(f"  {escape(one_line(dead_letters_in_words(counts)))}")
    if counts is not None and counts.by_reason.get("unknown_label"):
        retry = to_type("dead-letters retry")
        say(
            escape(
                f"  once label_map, fold_labels or labels knows their label, `{retry}` joins those that were unknown"
            )
        )
    say("")


def _fast_in_words(fast: dict[str, Any], counts: "FeedCounts") -> str:
    at = "does not run" if fast["pulse"] is None else f"pulse {fast['pulse']:,}"
    fell_back = "; answers fell back to the version's head" if fast["fell_back"] else ""
    return f"{at}; {count_of(counts.due, 'label')} to learn{fell_back}"


def _show_accuracy(scored: dict[str, Any]) -> None:
    share = scored["answered_share"]
    asked = "" if share == 1.0 else f"; {percent(share)} of these examples were answered"
    early = f"; {scored['untrained']:,} by version 0, which no update has trained" if scored["untrained"] else ""
    null = f"; {scored['null_answers']:,} named no label, which counts as wrong" if scored["null_answers"] else ""
    answers = count_of(scored["n"], "answer")
    say(f"  accuracy    {percent(scored['accuracy'])} of the last {answers} as served{asked}{early}{null}")
    say(f"  macro-F1    {percent(scored['macro_f1'])}; {escape(recalls_in_words(scored['recall']))}")


def dead_letters_in_words(counts: "FeedCounts") -> str:
    """`dead letters: 11 events, 2 labels (no_text 11, no_event 2)`."""
    kinds = {"event": counts.dead_letters, "label": counts.label_dead_letters}
    kinds["prediction"] = counts.prediction_dead_letters
    told = ", ".join(count_of(n, kind) for kind, n in kinds.items() if n)
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.by_reason.items()))
    return f"dead letters: {told} ({reasons})"


def _balance(counts: "FeedCounts") -> str:
    parts = ("examples", "pending", "unlabelled", "dead_letters", "duplicates")
    return " + ".join(f"{getattr(counts, part):,} {part.replace('_', ' ')}" for part in parts)


def _noted(counts: "FeedCounts") -> str:
    """`2 labels corrected (see …), 3 times that could not be read`; nothing where there is none."""
    parts = []
    if counts.corrected:
        parts.append(f"{count_of(counts.corrected, 'label')} corrected ({to_type('examples --corrections')})")
    if counts.times_fell_back:
        parts.append(f"{count_of(counts.times_fell_back, 'time')} that could not be read: the record's own stands")
    return escape(", ".join(parts))


def _states(counts: "FeedCounts") -> str:
    learnable = ("fresh", "taken", "learned", "holdouts", "retired", "remembered")
    parts = (*learnable, "set_aside", "withdrawn", "awaiting_prediction")
    known = [(part.replace("_", " ").replace("holdouts", "held out"), getattr(counts, part)) for part in parts]
    return ", ".join(f"{n:,} {part}" for part, n in known if n) or "none"


def _as_of(seen: int | None, live: int | None) -> str:
    """That what is live was changed since examples were last sorted by it, which is the learner's work."""
    if seen is None or live is None or seen >= live:
        return ""
    return f" (as of before revision {live}: the learner's next look works out what it makes of them)"


def _show_replicas(replicas: list[ReplicaStatus]) -> None:
    if not replicas:
        say("no replica is up")
        return
    rows = []
    for replica in replicas:
        serving = ", ".join(f"{feed} {version}" for feed, version in sorted(replica.serving.items()))
        refused = "; ".join(f"{feed}: {why}" for feed, why in sorted(replica.refused.items()))
        rows.append((replica.replica, replica.role, replica.url, serving, refused))
    print_table(("replica", "role", "url", "serves", "refused"), rows)


def _show_processes(processes: dict[str, dict[str, Any]]) -> None:
    if not processes:
        say(f"`{escape(to_type('up'))}` does not run on this state folder")
        return
    rows = [(name, p["state"], p["pid"], p["restarts"], p["exit_code"]) for name, p in processes.items()]
    print_table(("process", "state", ">pid", ">restarts", ">last exit"), rows)
