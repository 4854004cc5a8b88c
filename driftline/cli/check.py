"""`driftline check`: for everything the config names, whether it is usable, and what to do if not.

Changes and starts nothing: missing topics, keys, folders and the embedded Redis are fine, since `up` makes them.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_buffer, existing_registry
from driftline.assembly.supervisor import supervised
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from driftline.cli.output import err, print_json, say
from driftline.cli.ports import port_problems
from driftline.config import Config, FeedConfig, ScheduleConfig, feed_topics, load_config
from driftline.errors import ArtefactError, BufferStoreError, ConfigError, DriftlineError, RegistryUnavailable
from driftline.names import StateFiles
from driftline.phrases import count_of, percent
from driftline.splitting import SAMPLE_TEXTS, splitting_in_words

if TYPE_CHECKING:
    from driftline.artefact.manifest import SignedManifest, Trust
    from driftline.base import Base
    from driftline.records import Manifest
    from driftline.topics import Topics
    from stream.source import Source


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is usable (None: it could not be looked at), and what was found or what
    to do. `warns`: it is usable, but may disappoint."""

    name: str
    ok: bool | None
    detail: str
    warns: bool = False

    @property
    def outcome(self) -> str:
        """`ok`, `warns`, `wrong`, or `unknown`: it could not be looked at, and `detail` says why."""
        if self.ok is None:
            return "unknown"
        return ("warns" if self.warns else "ok") if self.ok else "wrong"


Check = Callable[[Config], Iterator[Finding]]
MARKS = {
    "ok": "[green]ok     [/]",
    "warns": "[yellow]warns  [/]",
    "wrong": "[bold red]wrong  [/]",
    "unknown": "[yellow]unknown[/]",
}


def check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Tell for config, folders, topics, Redis, base model, labels and keys whether each is usable. Exit code 1 if one
    is wrong, or could not be looked at."""
    loaded = load_config(config)
    detail = f"{config}: {count_of(len(loaded.feed), 'feed')} ({', '.join(loaded.feed)})"
    show = _silent if as_json else partial(_show, width=_width(loaded))
    findings = [Finding("config", True, detail)]
    show(findings)
    for name, look in CHECKS.items():
        with err.status(f"checking {name} …"):
            found = _guarded(name, look, loaded)
        show(found)
        findings.extend(found)
    ok = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": ok, "checks": [_row(finding) for finding in findings]})
    if not ok:
        raise typer.Exit(1)


def _guarded(name: str, look: Check, config: Config) -> list[Finding]:
    """What a check finds; an error of ours, or of a path that the config names, is a finding, too."""
    findings = []
    try:
        for finding in look(config):
            findings.append(finding)
    except (DriftlineError, OSError) as error:
        findings.append(Finding(name, False, str(error)))
    return findings


def _row(finding: Finding) -> dict[str, object]:
    return {**asdict(finding), "outcome": finding.outcome}


def _silent(findings: list[Finding]) -> None:
    """With --json everything is printed at the end."""


def _show(findings: list[Finding], width: int) -> None:
    for finding in findings:
        say(f"{MARKS[finding.outcome]}  {escape(finding.name):{width}}  {escape(finding.detail)}")


def _width(config: Config) -> int:
    """Of the longest name to come: lines are printed before all names are known."""
    topics = (f"topic {name}" for feed in config.feed for name in feed_topics(config, feed).model_dump().values())
    return max(len(name) for name in (*topics, *(f"live version of {feed}" for feed in config.feed)))


def _state(config: Config) -> Iterator[Finding]:
    folder = config.state.path
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Finding("state", False, f"{existing} cannot be written to ({error.strerror}): set state.path elsewhere")
        return
    yield Finding("state", True, str(folder) if existing == folder else f"{folder} (made at the first start)")


def _buffer(config: Config) -> Iterator[Finding]:
    from driftline.assembly.wiring import require_one_rank

    require_one_rank(config)
    buffer = existing_buffer(config)
    if buffer is None:
        yield Finding("buffer", True, "none yet (ingest makes it)")
        return
    with closing(buffer):
        buffer.check_split()
        for feed in config.feed:
            yield Finding(f"buffer of {feed}", True, count_of(buffer.counts(feed).examples, "example"))
        others = [f"{feed} ({count_of(examples, 'example')})" for feed, examples in buffer.others().items()]
        if others:
            yield Finding("buffer", True, f"also holds {', '.join(others)}, which this config does not name")


def _label_changes(config: Config) -> Iterator[Finding]:
    """What the processes will do first, or why they will refuse; nothing where the labels are those known so far."""
    from driftline.assembly.label_changes import read_live_labels
    from driftline.cli.label_changes import changes_in_words

    if not StateFiles(config.state.path).buffer.exists():  # then only the live versions know
        try:
            read_live_labels(config)
        except DriftlineError as error:
            for feed in config.feed:
                yield Finding(f"labels of {feed}", None, f"not compared with those known so far: {error}")
            return
    for feed in config.feed:
        ok, lines = changes_in_words(config, feed)
        yield from (Finding(f"labels of {feed}", ok, line) for line in lines)


def _topics(config: Config) -> Iterator[Finding]:
    from driftline.assembly.wiring import build_topics
    from driftline.topics.files import FileTopics

    if config.topics.kind == "kafka":
        where, cluster = config.topics.bootstrap_servers, build_topics(config)
    else:  # not `build_topics`, which makes the state folder
        where, cluster = "files under the state folder", FileTopics(StateFiles(config.state.path).topics)
    with closing(cluster) as topics:
        for feed in config.feed:
            for topic in feed_topics(config, feed).model_dump().values():
                found = "exists" if topics.exists(topic) else "missing; `up` creates it"
                yield Finding(f"topic {topic}", True, f"{found} ({where})")
        yield from _unknown_to_the_buffer(config, topics)


def _unknown_to_the_buffer(config: Config, topics: "Topics") -> Iterator[Finding]:
    """Feeds that ingest would not start on: their topics have been read before, and the buffer knows nothing of it."""
    from stream.source import Source

    for feed in config.feed:
        source = Source(feed, feed_topics(config, feed), topics, config.ingest, config.redis.prefix)
        # Twice, since an ingest that runs may have begun between the look at the buffer and that at the topics.
        if _lost_positions(config, source) and (problem := _lost_positions(config, source)):
            yield Finding(f"positions of {feed}", False, problem)


def _lost_positions(config: Config, source: "Source") -> str | None:
    """A buffer that cannot be read is told elsewhere."""
    try:
        buffer = existing_buffer(config)
        with closing(buffer) if buffer else nullcontext():
            stored = buffer.intake.positions() if buffer else {}
    except BufferStoreError:
        return None
    try:
        source.check_known(source.partitions(), stored)
    except BufferStoreError as error:
        return str(error)
    return None


def _redis(config: Config) -> Iterator[Finding]:
    if config.redis.url == "embedded":
        from driftline.registry.embedded import find_server, running_embedded

        running = running_embedded(StateFiles(config.state.path)) is not None
        state = "running" if running else "not running; `up` starts it"
        yield Finding("redis", True, f"embedded, {state} ({find_server()})")
        return
    from driftline.assembly.wiring import build_registry

    problems = build_registry(config).check_server()
    yield from (Finding("redis", False, problem) for problem in problems)
    if not problems:
        yield Finding("redis", True, "answers, keeps everything (noeviction) and writes it down (AOF)")


def _base_and_labels(config: Config) -> Iterator[Finding]:
    from driftline.assembly.wiring import build_base

    base = build_base(config)
    detail = f"{config.base.model}: {base.pooling} pooling, {base.hidden_size} features, on {base.device}"
    yield Finding("base model", True, detail)
    for feed in config.feed:
        yield from _labels(config, feed, base)
        yield from _texts(config, feed, base)


def _texts(config: Config, feed: str, base: "Base") -> Iterator[Finding]:
    """Whether the base can read the words of the latest examples. A buffer that cannot be read is told of elsewhere."""
    try:
        buffer = existing_buffer(config)
        with closing(buffer) if buffer else nullcontext():
            rows = buffer.exams.scored(feed, last=SAMPLE_TEXTS) if buffer else []
            texts = [one.text for one in buffer.ledger.examples(feed, [row.seq for row in rows])] if buffer else []
    except BufferStoreError:
        return
    share = base.broken_words(texts)
    if share is not None:
        warning = splitting_in_words(share)
        seen = f"{percent(share)} of the words of {count_of(len(texts), 'example')} are unknown or letter by letter"
        yield Finding(f"texts of {feed}", True, warning or seen, warns=bool(warning))


def _labels(config: Config, feed: str, base: "Base") -> Iterator[Finding]:
    from driftline.base import lora_targets

    section = config.feed[feed]
    targets = lora_targets(base.model, section.learner.target_modules)
    detail = f"{len(section.labels)} classes; LoRA on {count_of(len(targets), 'layer')}"
    yield Finding(f"labels of {feed}", True, detail)
    try:
        in_use = _in_use(config, feed)
    except DriftlineError as error:  # whether that is wrong is told under redis and keys
        yield Finding(f"live version of {feed}", None, f"not compared with this config: {error}")
        return
    for name, manifest in in_use:
        yield _fits(name, manifest, section, base)


def _fits(name: str, manifest: "Manifest", section: FeedConfig, base: "Base") -> Finding:
    """Whether replicas would serve the version, and the learner go on from or compare with it; labels aside."""
    from driftline.artefact.fit import check_fit
    from driftline.tasks import task_named
    from learner.model import LoraModel
    from learner.versions import check_settings

    try:
        check_fit(
            manifest,
            fingerprint=base.fingerprint,
            pooling=base.pooling,
            max_tokens=base.max_tokens,
            task=section.task,
        )
        check_settings(manifest, section, LoraModel(base, task_named(section.task), section.labels, section.learner))
    except (ArtefactError, ConfigError) as error:
        return Finding(name, False, str(error))
    return Finding(name, True, f"version {manifest.version} was trained with this base and these settings")


def _in_use(config: Config, feed: str) -> "list[tuple[str, Manifest]]":
    """The live version and the anchor, if it is another one; signatures aside."""
    from driftline.artefact.manifest import decode_manifest

    registry = existing_registry(config)
    if registry is None:
        return []
    live = registry.live(feed)
    names = {live.anchor: f"anchor of {feed}", live.version: f"live version of {feed}"}
    return [(name, decode_manifest(registry.manifest(feed, n).document)) for n, name in names.items() if n]


def _live_manifest(config: Config, feed: str) -> "SignedManifest | None":
    """The live version's manifest; None at version 0."""
    registry = existing_registry(config)
    live = registry.live(feed) if registry else None
    if registry is None or live is None or live.version == 0:
        return None
    return registry.manifest(feed, live.version)


def _keys(config: Config) -> Iterator[Finding]:
    from driftline.artefact.manifest import Trust, load_trust, own_signer

    files = StateFiles(config.state.path)
    if config.trust.public_keys:
        trust = load_trust(config.trust, files)
        yield _trusted_keys(config, files, trust)
    else:
        own = own_signer(files)
        trust = Trust.of(own.public_key) if own else Trust.of()
        found = "this installation's own pair" if own else "none yet (the first process makes the pair)"
        yield Finding("keys", True, found)
    for feed in config.feed:
        yield from _signature(config, feed, trust)


def _trusted_keys(config: Config, files: StateFiles, trust: "Trust") -> Finding:
    from driftline.artefact.manifest import own_signer

    own = own_signer(files)
    if own is not None and not trust.knows(own.key_id):
        remedy = f"add {files.public_key}"
        return Finding("keys", False, f"trust.public_keys leaves out the key that a learner here signs with: {remedy}")
    here = "this installation's is among them" if own else "a learner here would make its own, to be added"
    return Finding("keys", True, f"{count_of(len(config.trust.public_keys), 'trusted key')}; {here}")


def _signature(config: Config, feed: str, trust: "Trust") -> Iterator[Finding]:
    """Whether replicas would serve the live version."""
    name = f"signature of {feed}"
    try:
        signed = _live_manifest(config, feed)
        if signed is not None:
            trust.verify(signed)
            yield Finding(name, True, f"the live version is signed by a trusted key ({signed.key_id})")
    except RegistryUnavailable as error:
        yield Finding(name, None, f"not looked at: {error}")
    except DriftlineError as error:
        yield Finding(name, False, f"no replica serves the live version: {error}")


def _schedule(config: Config) -> Iterator[Finding]:
    from learner.schedule import next_tick

    for feed, section in config.feed.items():
        try:
            next_tick(section.schedule, datetime.now(UTC))
        except ConfigError as error:
            yield Finding(f"schedule of {feed}", False, f"feed.{feed}.{error}")
        else:
            when = section.schedule.cron or f"every {section.schedule.period_s:g} s"
            yield Finding(f"schedule of {feed}", True, f"{when}, from {_least(section.schedule)} examples on")


def _least(schedule: ScheduleConfig) -> str:
    if schedule.min_examples is None:
        return f"{schedule.enough(0):,} (later {schedule.enough(sys.maxsize):,})"
    return f"{schedule.min_examples:,}"


def _http(config: Config) -> Iterator[Finding]:
    from serving.auth import Tokens, is_loopback

    serve = config.serve
    Tokens.from_environment(os.environ, serve.host)
    where = "loopback" if is_loopback(serve.host) else "reachable from other machines, tokens are set"
    yield Finding("http", True, f"{serve.host}: {where}")
    if "serve" in supervised(StateFiles(config.state.path).supervisor):
        yield Finding("ports", True, f"{serve.port} and {serve.admin_port}, in use by the `up` that runs here")
        return
    for (key, host, number), problem in port_problems(config):
        yield Finding(key, problem is None, problem or f"{host}:{number} is free")


CHECKS: dict[str, Check] = {
    "state": _state,
    "buffer": _buffer,
    "labels": _label_changes,
    "schedule": _schedule,
    "topics": _topics,
    "redis": _redis,
    "keys": _keys,
    "http": _http,
    "base model": _base_and_labels,
}
