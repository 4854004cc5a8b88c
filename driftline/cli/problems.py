"""What is wrong with an installation, in words: what `status` exits with 1 for.

The rule: nothing is expected of a state folder where nothing was ever started. From then on events are to be read,
learned and answered: on the machine with the buffer by its ingest, anywhere by whoever tells Redis that it lives.
Whether that is by `up` or by verbs of their own makes no difference, nor why it does not happen: a stopped installation
answers nobody either. A process that `up` started less than `STARTING_S` ago is waited for.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from driftline.assembly.running import outdated
from driftline.assembly.supervisor import STEADY_S, left_behind
from driftline.cli.output import to_type
from driftline.config import Config, feed_topics
from driftline.errors import DriftlineError
from driftline.locks import is_held
from driftline.names import StateFiles
from driftline.phrases import count_of
from driftline.records import LiveRecord, ReplicaStatus, iso, utc

if TYPE_CHECKING:
    from driftline.buffer import FeedCounts

STARTING_S = 60.0
BEHIND_S = 10.0
"""Replicas follow within two seconds; one that is busy staging takes a few more."""
KAFKA_WITHIN_MS = 3_000
FEW_LABELS = 10
NEARLY_ALL = 0.9
ROLES = {"serve": "replica answers", "score": "scorer answers the events of"}

Processes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What Redis tells. `live` and the rest are empty where it does not answer: then `problem` says why. `server`: what
    is wrong with its settings, as `check` tells it."""

    live: Mapping[str, LiveRecord] = field(default_factory=dict)
    replicas: list[ReplicaStatus] = field(default_factory=list)
    stopped: Mapping[str, str] = field(default_factory=dict)
    learned_by: frozenset[str] = frozenset()
    server: list[str] = field(default_factory=list)
    clocks: list[ReplicaStatus] = field(default_factory=list)
    adapted_by: frozenset[str] = frozenset()
    problem: str | None = None


def find_problems(config: Config, feeds: list[str], processes: Processes, sight: Sight) -> list[str]:
    """Everything that is wrong, the cause first; [] if all is well, or nothing was ever started."""
    files = StateFiles(config.state.path)
    ended = _nothing_runs(config, files, processes, sight)
    found = [ended] if ended else []
    if sight.problem is not None and not (ended and config.redis.url == "embedded"):
        found.append(f"registry: {sight.problem}")
    found.extend(f"redis: {problem}" for problem in sight.server)
    found.extend(_outdated(files))
    found.extend(_topics(config))
    for name in processes:
        found.extend(filter(None, [keeps_ending(name, processes) or _ended_just_now(name, processes)]))
    if not ended:
        found.extend(_absent(config, feeds, files, processes, sight))
    found.extend(_astray(feeds, sight))
    return found


def unknown_labels(feed: str, counts: "FeedCounts") -> str | None:
    """That nearly no label of a feed is one of the config's, which is no accident of single records; None if not so."""
    unknown = counts.by_reason.get("unknown_label", 0)
    came = unknown + counts.examples - counts.withdrawn + counts.labels_waiting
    if unknown < FEW_LABELS or unknown < NEARLY_ALL * came:
        return None
    look = f"`{to_type('dead-letters list --reason unknown_label')}` shows what they are called"
    mend = (
        f"set labels or label_map of [feed.{feed}], start the processes again, then `{to_type('dead-letters retry')}`"
    )
    return f"{unknown:,} of {came:,} labels of {feed} are none of the feed's labels: {look}; {mend}"


def keeps_ending(name: str, processes: Processes) -> str | None:
    """Why a process that `up` supervises does not run, and until when; None if it runs, or was not started yet."""
    process = processes.get(name, {})
    if process.get("exit_code") is None or process["state"] not in ("waiting", "refused"):
        return None
    code, restarts = process["exit_code"], process["restarts"]
    if process["state"] == "waiting":
        return f"{name} ended with exit code {code}, restart {restarts} follows; its reason is in up's log"
    after = f" after {count_of(restarts, 'restart')}" if restarts else ""
    return f"{name} refused its config{after} (exit code {code}), up's log says why: mend it, then start `up` again"


def stopped_feed(reason: str | None, processes: Processes) -> str | None:
    """Why a feed is not learned, and until when: the learner stopped it for this reason, or the learner that `up`
    supervises does not run. None if nothing is known to be wrong."""
    if reason is not None:
        return f"the learner stopped this feed, and tries it again by itself: {reason}"
    return keeps_ending("learn", processes)


def _ended_just_now(name: str, processes: Processes) -> str | None:
    """A process that runs again may be one that keeps ending; it is believed after a minute."""
    process = processes[name]
    ended_at = process.get("ended_at")
    if process["state"] != "running" or ended_at is None or not 0 <= _seconds_since(ended_at) <= STEADY_S:
        return None
    row = f"{count_of(n, 'time')} in a row" if (n := process.get("quick_ends", 1)) > 1 else "once"
    last = f"last {_seconds_since(ended_at):.0f} s ago with exit code {process['exit_code']}"
    return f"{name} ended {row}, {last}, and runs again now; its reason is in up's log"


def _nothing_runs(config: Config, files: StateFiles, processes: Processes, sight: Sight) -> str | None:
    """The one cause where everything is down: `up` was killed, or what was started once was stopped."""
    if (seen := left_behind(files.supervisor)) is not None:
        when = iso(seen.replace(microsecond=0))
        mend = f"start it again (`{to_type('up')}`)"
        alone = f"or remove {files.supervisor} if its processes are started one by one now"
        return f"`up` ended without being stopped at {when}: {mend}, {alone}"
    down = sight.problem is not None and config.redis.url == "embedded"
    if processes or not down or is_held(files.ingest_lock):
        return None
    return f"nothing runs on {files.root}: {sight.problem}"


def _outdated(files: StateFiles) -> Iterator[str]:
    """Processes that have another config than the file holds now: each reads it once, at its start."""
    told = outdated(files)
    for why in dict.fromkeys(told.values()):
        who = ", ".join(name for name, one in told.items() if one == why)
        run, them = ("run", "them") if ", " in who else ("runs", "it")
        yield f"{why}, and {who} still {run} with what it said before: start {them} again"


def _topics(config: Config) -> Iterator[str]:
    """Whether Kafka answers, asked for a few seconds only."""
    if config.topics.kind != "kafka":
        return
    from driftline.topics.kafka import KafkaTopics

    short = {"bootstrap_timeout_ms": KAFKA_WITHIN_MS, **config.topics.client}
    try:
        with closing(KafkaTopics(config.topics.model_copy(update={"client": short}))) as topics:
            topics.exists(feed_topics(config, next(iter(config.feed))).events)
    except DriftlineError as error:
        yield f"topics: {error}"


def _absent(config: Config, feeds: list[str], files: StateFiles, processes: Processes, sight: Sight) -> Iterator[str]:
    """Who should be there and is not."""
    here = files.buffer.exists()
    if here and not is_held(files.ingest_lock) and not _explained("ingest", processes):
        yield f"no ingest runs on {files.buffer}, so nothing comes in: {_start('ingest', processes)}"
    if sight.problem is not None:
        return
    for feed in feeds:
        if not (here or sight.live[feed].revision or sight.replicas or processes):
            continue  # nothing was ever started
        if feed not in sight.learned_by and feed not in sight.stopped and not _explained("learn", processes):
            yield f"no learner runs for {feed}: {_start('learn', processes)}"
        if config.feed[feed].fast.enabled and feed not in sight.adapted_by and not _explained("adapt", processes):
            yield f"no fast clock runs for {feed}: {_start('adapt', processes)}"
        for role, does in ROLES.items():
            wanted = role == "serve" or config.feed[feed].serve.score
            there = any(feed in replica.serving for replica in sight.replicas if replica.role == role)
            if wanted and not there and not _explained(role, processes):
                yield f"no {does} {feed}: {_start(role, processes)}"


def _explained(name: str, processes: Processes) -> bool:
    """Whether the process is starting, or it is told already why it does not run."""
    started_at = processes.get(name, {}).get("started_at")
    starting = started_at is not None and 0 <= _seconds_since(started_at) < STARTING_S
    return starting or keeps_ending(name, processes) is not None


def _start(name: str, processes: Processes) -> str:
    if name in processes:
        return f"`up` started {name}; its log says what it waits for"
    return f"start `{to_type('up')}`, or `{to_type(name)}` alone"


def _astray(feeds: list[str], sight: Sight) -> Iterator[str]:
    """Feeds that a learner stopped; replicas that refuse the live version, or have not followed it."""
    for feed in feeds:
        if feed in sight.stopped:
            yield f"{feed}: {stopped_feed(sight.stopped[feed], {})}"
        yield from _adapting(feed, sight)
        for replica in sight.replicas:
            if feed in replica.refused:
                yield f"{_named(replica)} does not serve what is live of {feed}: {replica.refused[feed]}"
            elif _is_behind(replica, sight.live[feed]):
                at = f"revision {replica.revisions[feed]} of {feed}, {sight.live[feed].revision} is live"
                yield f"{_named(replica)} is behind: it serves {at} since {iso(sight.live[feed].changed_at or _now())}"


def _adapting(feed: str, sight: Sight) -> Iterator[str]:
    """A fast clock that stands still, or whose watch has seen something."""
    for clock in sight.clocks:
        if feed in clock.refused:
            yield f"{feed}: the fast clock stands still, and tries again by itself: {clock.refused[feed]}"
        if feed in clock.fell_back:
            yield (
                f"{feed}: the last labels do not fit the texts, or made answers worse, so the version's head answers "
                f"alone; the fast clock learns on aside and answers again once it is better. Look at them: "
                f"`{to_type('examples')}`"
            )


def _is_behind(replica: ReplicaStatus, live: LiveRecord) -> bool:
    at = replica.revisions.get(live.feed)
    just_now = live.changed_at is not None and 0 <= (_now() - live.changed_at).total_seconds() <= BEHIND_S
    return at is not None and at < live.revision and not just_now


def _named(replica: ReplicaStatus) -> str:
    return f"{'replica' if replica.role == 'serve' else 'scorer'} {replica.replica}"


def _seconds_since(moment: str) -> float:
    """Negative where the clock was set back meanwhile: then nothing is known to have been a moment ago."""
    return (_now() - utc(moment)).total_seconds()


def _now() -> datetime:
    return datetime.now(UTC)
