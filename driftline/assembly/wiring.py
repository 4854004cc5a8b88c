"""The only place that builds objects out of a config. Components get their own section, never the whole tree.

Imports of torch, Kafka and the web framework happen inside the functions, so that light verbs stay fast.
"""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING

import structlog

from driftline.clock import Clock, SystemClock
from driftline.config import Config, FeedTopics, feed_sha256, feed_topics, resolve_secret
from driftline.errors import ConfigError, RegistryError
from driftline.names import Keys, StateFiles

log = structlog.get_logger()

PAUSED_SHARE = 0.8  # of the waiting limit; below the 90 % at which ingest reads events again

if TYPE_CHECKING:
    from driftline.artefact.manifest import Signer, Trust
    from driftline.base import Base
    from driftline.buffer import Buffer
    from driftline.journal import Journal
    from driftline.registry import Registry
    from driftline.topics import Topics
    from learner.cycle import Learner
    from learner.service import LearnerService
    from serving.app import Parts
    from serving.engine import Engine
    from serving.scorer import Answering, Scorer
    from serving.watcher import Watcher
    from stream.ingest import Ingest


def state_files(config: Config) -> StateFiles:
    """The state folder's paths; makes the folder (0700: it holds keys and texts). ConfigError if it cannot be used."""
    path = config.state.path
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(
            f"state.path = {path}: cannot be used as a folder ({error.strerror}): set state.path to one of yours"
        ) from None
    return StateFiles(path)


def topic_names(config: Config) -> dict[str, FeedTopics]:
    """Every feed's topic names."""
    return {feed: feed_topics(config, feed) for feed in config.feed}


def build_topics(config: Config) -> Topics:
    """The cluster that the config names: Kafka, or files under the state folder."""
    if config.topics.kind == "kafka":
        from driftline.topics.kafka import KafkaTopics

        return KafkaTopics(config.topics, max_record_bytes=config.ingest.max_record_bytes)
    from driftline.topics.files import FileTopics

    return FileTopics(state_files(config).topics, max_record_bytes=config.ingest.max_record_bytes)


def build_registry(config: Config) -> Registry:
    """The registry on the config's Redis; the embedded one is started if it does not run."""
    from driftline.registry import Registry, connect

    return Registry(connect(redis_url(config), config.redis.prefix), Keys(config.redis.prefix))


def build_journal(config: Config) -> Journal:
    """The journal on the same Redis."""
    from driftline.journal import Journal
    from driftline.registry import connect

    return Journal(connect(redis_url(config), config.redis.prefix), Keys(config.redis.prefix))


def redis_url(config: Config) -> str:
    """The URL to connect to, with `embedded` and `env:NAME` resolved."""
    if config.redis.url != "embedded":
        return resolve_secret(config.redis.url)
    from driftline.registry.embedded import start_embedded

    return start_embedded(state_files(config))


def holdout_key(files: StateFiles) -> bytes:
    """The secret key of the hold-out split: made once, 0600, never replaced."""
    files.holdout_key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = files.holdout_key.with_suffix(f".{os.getpid()}.draft")
    if not files.holdout_key.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, files.holdout_key)  # fails where another process was first: its key counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return files.holdout_key.read_bytes()


def open_buffer(
    config: Config, *, read_only: bool = False, key: bytes | None = None, identity: str | None = None
) -> Buffer:
    """The buffer under the state folder. `key`, `identity`: those of a replay; default: the secret key, and a name
    of the file's own."""
    from driftline.buffer import Buffer, feed_rules

    files = state_files(config)
    names = topic_names(config)
    rules = {
        name: feed_rules(name, feed, names[name], config.ingest, config.labels) for name, feed in config.feed.items()
    }
    if read_only and not files.holdout_key.exists():  # reading makes no key; it splits nothing either
        key = key or b""
    split_key = holdout_key(files) if key is None else key
    return Buffer.open(files.buffer, rules, split_key, read_only=read_only, identity=identity)


def build_trust(config: Config) -> Trust:
    """The keys whose signatures count; on one machine the pair is made by whoever comes first."""
    from driftline.artefact.manifest import load_or_create_keys, load_trust

    files = state_files(config)
    if not config.trust.public_keys:
        load_or_create_keys(files)
    return load_trust(config.trust, files)


def build_signer(config: Config, trust: Trust) -> Signer:
    """This installation's own key. ConfigError if nobody who has this config would serve what it signs."""
    from driftline.artefact.manifest import load_or_create_keys

    files = state_files(config)
    signer = load_or_create_keys(files)
    if not trust.knows(signer.key_id):
        raise ConfigError(f"trust.public_keys: leaves out the key that this learner signs with: add {files.public_key}")
    return signer


def redis_problems(registry: Registry) -> list[str]:
    """What is wrong with the server's settings, logged too; [] where it cannot be asked now."""
    try:
        problems = registry.check_server()
    except RegistryError as error:
        log.warning("redis_not_checked", error=str(error))
        return []
    for problem in problems:
        log.warning("redis_setting", problem=problem)
    return problems


def build_base(config: Config) -> Base:
    """The base model, loaded and fingerprinted (seconds)."""
    from driftline.assembly.logs import adopt_loggers
    from driftline.base import load_base

    adopt_loggers()
    return load_base(config.base)


def build_ingest(config: Config, topics: Topics, buffer: Buffer, clock: Clock) -> Ingest:
    """The ingest of all feeds; takes the buffer's lock."""
    from stream.ingest import Ingest

    return Ingest(
        topics,
        buffer,
        config.feed,
        topic_names(config),
        config.ingest,
        clock,
        lock=state_files(config).ingest_lock,
        prefix=config.redis.prefix,
    )


def keep_waiting(config: Config, feed: str) -> int:
    """How many fresh examples a paused or stopped feed keeps: its share by what its cycles need, so that together with
    all that a rejected update of another feed gives back they never hold up the events."""
    needs = {name: section.schedule.room_examples for name, section in config.feed.items()}
    return int(config.ingest.max_waiting_examples * PAUSED_SHARE * needs[feed] / sum(needs.values()))


def build_learner(feed: str, config: Config, base: Base, registry: Registry, buffer: Buffer, clock: Clock) -> Learner:
    """One feed's learner with its own copy of the base and its lease (not yet acquired)."""
    from driftline.tasks import task_named
    from learner.cycle import Learner, Workshop
    from learner.model import LoraModel
    from learner.versions import Versions

    section = config.feed[feed]
    trust = build_trust(config)
    model = LoraModel(base, task_named(section.task), section.labels, section.learner)
    shop = Workshop(
        buffer=buffer,
        registry=registry,
        versions=Versions(feed, registry, trust, section, model),
        model=model,
        base=base,
        signer=build_signer(config, trust),
        lease=registry.lease(feed, "learner", ttl_s=15),
        clock=clock,
        config_sha256=feed_sha256(config, feed),
        keep_waiting=keep_waiting(config, feed),
    )
    return Learner(feed, section, shop)


def require_one_rank(config: Config) -> None:
    """ConfigError if a feed's examples are spread over several buffers, of which a learner would use one only."""
    if config.ingest.of_ranks > 1:
        raise ConfigError(
            f"ingest.of_ranks = {config.ingest.of_ranks}: each rank fills a buffer of its own, and a feed is learned "
            "from one buffer only, so the other ranks' examples would never be learned: set ingest.of_ranks to 1, or "
            "make each part of the stream a feed of its own"
        )


def build_learner_service(config: Config) -> LearnerService:
    """The learner process's service over all feeds. RegistryError if Redis would throw versions away; ConfigError as
    `require_one_rank`."""
    from driftline.assembly.base_names import keep_names
    from driftline.assembly.label_changes import adopt_labels, require_labels
    from learner.service import FeedLearner, LearnerService

    require_one_rank(config)
    build_signer(config, build_trust(config))  # before the seconds that the base takes
    registry, clock = build_registry(config), SystemClock()
    require_labels(config)  # before the buffer is touched
    buffer = open_buffer(config)
    adopt_labels(config, buffer)
    for problem in redis_problems(registry):
        if problem.startswith("maxmemory-policy"):
            raise RegistryError(f"the learner does not start on this Redis: {problem}")
    base = build_base(config)
    keep_names(config, base)
    feeds = {}
    for name, section in config.feed.items():
        learner = build_learner(name, config, base, registry, buffer, clock)
        feeds[name] = FeedLearner(section=section, learner=learner, lease=learner.lease)
    return LearnerService(feeds, registry, build_journal(config))


def build_engine(config: Config, base: Base) -> Engine:
    """The engine over all feeds; not started."""
    from serving.engine import Engine

    return Engine(base, config.serve, config.feed)


def build_watcher(
    config: Config, engine: Engine, base: Base, registry: Registry, *, role: str, url: str | None
) -> Watcher:
    """The watcher that keeps the engine at the live versions."""
    from serving.watcher import Watcher

    redis_problems(registry)
    return Watcher(
        registry,
        engine,
        build_trust(config),
        base,
        tuple(config.feed),
        replica=config.serve.replica,
        role=role,
        url=url,
        heartbeat_s=config.serve.heartbeat_s,
        seen=state_files(config).seen_revisions,
        journal=build_journal(config),
    )


def build_scorer(feed: str, config: Config, topics: Topics, engine: Answering, clock: Clock) -> Scorer:
    """One feed's scorer in its own consumer group; makes the feed's topics where they are missing."""
    from serving.scorer import Scorer

    names = feed_topics(config, feed)
    topics.ensure(names.model_dump().values())
    reader = topics.open_group([names.events], group=f"{config.redis.prefix}-score-{feed}")
    return Scorer(topics, reader, engine, feed, config.feed[feed], names, config.serve.replica, clock)


def build_parts(config: Config, engine: Engine, watcher: Watcher, topics: Topics) -> Parts:
    """What the HTTP apps are made of. ConfigError if tokens are missing off loopback."""
    from serving.app import Parts
    from serving.auth import Tokens
    from serving.collect import Collector

    names = topic_names(config)
    return Parts(
        engine=engine,
        watcher=watcher,
        topics=topics,
        feeds=config.feed,
        names=names,
        section=config.serve,
        tokens=Tokens.from_environment(os.environ, config.serve.host),
        collector=Collector(topics, config.feed, names),
        trusted=frozenset(config.labels.trusted),
    )
