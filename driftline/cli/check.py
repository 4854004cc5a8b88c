"""`driftline check`: for everything the config names, whether it is usable, and what to do if not.

Changes and starts nothing: missing topics, keys, folders and the embedded Redis are fine, since `up` makes them.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from driftline.cli.output import count_of, err, print_json, say
from driftline.cli.status import existing_buffer, existing_registry
from driftline.cli.supervisor import supervised
from driftline.config import Config, feed_topics, load_config
from driftline.errors import ConfigError, DriftlineError
from driftline.names import StateFiles

if TYPE_CHECKING:
    from driftline.base import Base


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, whether it is usable, and what was found or what to do."""

    name: str
    ok: bool
    detail: str


Check = Callable[[Config], Iterator[Finding]]


def check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Tell for config, folders, topics, Redis, base model, labels and keys whether each is usable."""
    loaded = load_config(config)
    findings = [Finding("config", True, f"{config}: {count_of(len(loaded.feed), 'feed')} ({', '.join(loaded.feed)})")]
    with err.status("checking…"):
        for name, look in CHECKS.items():
            findings.extend(_guarded(name, look, loaded))
    _report(findings, as_json)
    if not all(finding.ok for finding in findings):
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


def _report(findings: list[Finding], as_json: bool) -> None:
    if as_json:
        print_json({"ok": all(finding.ok for finding in findings), "checks": findings})
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "[green]ok   [/]" if finding.ok else "[bold red]wrong[/]"
        say(f"{mark}  {escape(finding.name):{width}}  {escape(finding.detail)}")


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
    buffer = existing_buffer(config)
    if buffer is None:
        yield Finding("buffer", True, "none yet (ingest makes it)")
        return
    with closing(buffer):
        for feed in config.feed:
            yield Finding(f"buffer of {feed}", True, count_of(buffer.counts(feed).examples, "example"))


def _topics(config: Config) -> Iterator[Finding]:
    from driftline.cli.wiring import build_topics
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


def _redis(config: Config) -> Iterator[Finding]:
    if config.redis.url == "embedded":
        from driftline.registry.embedded import find_server, running_embedded

        running = running_embedded(StateFiles(config.state.path)) is not None
        state = "running" if running else "not running; `up` starts it"
        yield Finding("redis", True, f"embedded, {state} ({find_server()})")
        return
    from driftline.cli.wiring import build_registry

    problems = build_registry(config).check_server()
    yield from (Finding("redis", False, problem) for problem in problems)
    if not problems:
        yield Finding("redis", True, "answers, keeps everything (noeviction) and writes it down (AOF)")


def _base_and_labels(config: Config) -> Iterator[Finding]:
    from driftline.cli.wiring import build_base

    base = build_base(config)
    detail = f"{config.base.model}: {base.pooling} pooling, {base.hidden_size} features, on {base.device}"
    yield Finding("base model", True, detail)
    for feed in config.feed:
        yield from _labels(config, feed, base)


def _labels(config: Config, feed: str, base: "Base") -> Iterator[Finding]:
    from driftline.base import lora_targets

    section = config.feed[feed]
    targets = lora_targets(base.model, section.learner.target_modules)
    live = _live_labels(config, feed)
    if live is not None and live != section.labels:
        remedy = "restore them, or give the changed feed another name"
        yield Finding(f"labels of {feed}", False, f"the live version has other labels ({', '.join(live)}): {remedy}")
    else:
        detail = f"{len(section.labels)} classes; LoRA on {count_of(len(targets), 'layer')}"
        yield Finding(f"labels of {feed}", True, detail)


def _live_labels(config: Config, feed: str) -> tuple[str, ...] | None:
    """The labels of the live version; None at version 0, and where the registry cannot be read (told elsewhere)."""
    from driftline.artefact.manifest import decode_manifest

    try:
        registry = existing_registry(config)
        live = registry.live(feed) if registry else None
        if registry is None or live is None or live.version == 0:
            return None
        return decode_manifest(registry.manifest(feed, live.version).document).labels
    except DriftlineError:
        return None


def _keys(config: Config) -> Iterator[Finding]:
    from driftline.artefact.manifest import load_trust

    files = StateFiles(config.state.path)
    if config.trust.public_keys:
        yield _trusted_keys(config, files)
    elif not files.public_key.exists():
        yield Finding("keys", True, "none yet (the first process makes the pair)")
    else:
        load_trust(config.trust, files)
        yield from _private_key(files.signing_key)


def _trusted_keys(config: Config, files: StateFiles) -> Finding:
    from driftline.artefact.manifest import load_trust, own_key_id

    trust, own = load_trust(config.trust, files), own_key_id(files)
    if own is not None and not trust.knows(own):
        remedy = f"add {files.public_key}"
        return Finding("keys", False, f"trust.public_keys leaves out the key that a learner here signs with: {remedy}")
    here = "this installation's is among them" if own else "a learner here would make its own, to be added"
    return Finding("keys", True, f"{count_of(len(config.trust.public_keys), 'trusted key')}; {here}")


def _schedule(config: Config) -> Iterator[Finding]:
    from learner.schedule import next_tick

    for feed, section in config.feed.items():
        try:
            next_tick(section.schedule, datetime.now(UTC))
        except ConfigError as error:
            yield Finding(f"schedule of {feed}", False, f"feed.{feed}.{error}")
        else:
            when = section.schedule.cron or f"every {section.schedule.period_s:g} s"
            yield Finding(f"schedule of {feed}", True, f"{when}, from {section.schedule.min_examples:,} examples on")


def _private_key(path: Path) -> Iterator[Finding]:
    if path.exists() and path.stat().st_mode & 0o077:
        yield Finding("keys", False, f"{path} can be read by others: chmod 600 {path}")
    else:
        yield Finding("keys", True, "this installation's own pair")


def _http(config: Config) -> Iterator[Finding]:
    from serving.auth import Tokens, is_loopback

    serve = config.serve
    Tokens.from_environment(os.environ, serve.host)
    where = "loopback" if is_loopback(serve.host) else "reachable from other machines, tokens are set"
    yield Finding("http", True, f"{serve.host}: {where}")
    if "serve" in supervised(StateFiles(config.state.path).supervisor):
        yield Finding("ports", True, f"{serve.port} and {serve.admin_port}, in use by the `up` that runs here")
        return
    for key, port in (("serve.port", serve.port), ("serve.admin_port", serve.admin_port)):
        yield _port(key, serve.host, port)


def _port(key: str, host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return Finding(key, False, f"{host}:{port} cannot be used ({error.strerror}): set another {key}")
    return Finding(key, True, f"{host}:{port} is free")


CHECKS: dict[str, Check] = {
    "state": _state,
    "buffer": _buffer,
    "schedule": _schedule,
    "topics": _topics,
    "redis": _redis,
    "keys": _keys,
    "http": _http,
    "base model": _base_and_labels,
}
