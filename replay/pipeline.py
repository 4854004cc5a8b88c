"""The real pipeline of one feed in one process, on a state folder of its own: nothing of the live system is touched."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftline.assembly import wiring
from driftline.assembly.fast_clock import build_fast_clock
from driftline.base import Base
from driftline.buffer import Buffer
from driftline.clock import SimulatedClock
from driftline.config import Config, FeedConfig, FeedTopics
from driftline.errors import ServingError, UsageError
from driftline.experts.choice import spoken
from driftline.records import ADAPT_ROLE, Event, Position, RawRecord
from driftline.registry import Registry
from driftline.registry.embedded import stop_embedded
from driftline.topics import Topics
from driftline.topics.codec import Codec
from learner.cycle import Learner
from learner.fast.clock import FastClock
from learner.threads import torch_threads
from replay.experts import Overheard
from replay.source import StreamItem
from serving.engine import Engine
from serving.scorer import Scorer
from serving.watcher import Watcher
from stream.ingest import Ingest

LEAST_QUEUE_INPUTS = 256  # a batch of the scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Every live component of one feed, stepped from one thread."""

    feed: str
    config: Config
    section: FeedConfig
    codec: Codec
    names: FeedTopics
    clock: SimulatedClock
    topics: Topics
    buffer: Buffer
    registry: Registry
    base: Base
    engine: Engine
    watcher: Watcher
    scorer: Scorer
    ingest: Ingest
    learner: Learner
    fast: FastClock | None
    overheard: Overheard

    def decode(self, item: StreamItem) -> Event | None:
        """The event as ingest and scorer will see it; None if it will be dead-lettered."""
        raw = RawRecord(
            position=Position(topic=self.names.events, partition=0, offset=0), next_offset=0, value=item.outgoing.value
        )
        event = self.codec.event(raw)
        return event if isinstance(event, Event) else None

    def answer_waiting(self, events: int) -> int:
        """Let the scorer answer the events just appended. Returns how many it could not answer."""
        before, read = self.scorer.failed, 0
        while read < events and (step := self.scorer.step(0.0)):
            read += step
        return self.scorer.failed - before

    def ingest_waiting(self) -> None:
        """Let ingest read everything there is."""
        while self.ingest.step(0.0):
            pass

    def adapt(self) -> int:
        """Let the fast clock, if the feed has one, learn all that is due, and the engine follow. Returns the pulses."""
        if self.fast is None:
            return 0
        before = self.fast.state.number
        self.fast.follow(self.registry.live(self.feed).version)
        while self.fast.step():
            pass
        self.watcher.follower.sync(self.feed)
        if reason := self.watcher.follower.refused.get(self.feed):
            raise ServingError(f"a pulse was refused: {reason}")
        return self.fast.state.number - before


def replay_config(config: Config, feed: str, state: Path) -> Config:
    """The same config for one feed on its own state, file topics and embedded Redis, with a scorer and one ingest."""
    section = config.feed[feed]
    serve = section.serve.model_copy(update={"score": True})
    section = section.model_copy(update={"serve": serve, "format": "json"})  # plain text has no place for an id
    queue = max(config.serve.max_queue_inputs, LEAST_QUEUE_INPUTS)
    return config.model_copy(
        update={
            "state": config.state.model_copy(update={"path": state}),
            "topics": config.topics.model_copy(update={"kind": "files"}),
            "redis": config.redis.model_copy(update={"url": "embedded", "prefix": "driftline"}),
            "trust": config.trust.model_copy(update={"public_keys": ()}),
            "serve": config.serve.model_copy(update={"max_queue_inputs": queue}),
            "ingest": config.ingest.model_copy(update={"rank": 0, "of_ranks": 1}),
            "feed": {feed: section},
        }
    )


@contextmanager
def state_folder(asked: Path | None) -> Iterator[Path]:
    """The folder asked for, which must be new or empty, else a temporary one that goes away."""
    if asked is None:
        with tempfile.TemporaryDirectory(prefix="driftline-replay-") as folder:
            yield Path(folder)
        return
    if asked.exists() and (not asked.is_dir() or any(asked.iterdir())):
        raise UsageError(f"--state {asked}: is already used; a replay needs a new or empty folder: name another one")
    try:
        asked.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"--state {asked}: cannot be made ({error.strerror}): name a folder of yours") from None
    yield asked.resolve()


@contextmanager
def open_pipeline(config: Config, feed: str, clock: SimulatedClock) -> Iterator[Pipeline]:
    """Build, start and in the end stop everything; `config` comes from `replay_config`.

    Threads are fixed here (one per core unless the config says otherwise), since they are part of what is repeatable.
    """
    section = config.feed[feed]
    with ExitStack() as stack:
        stack.enter_context(torch_threads(section.learner.threads))
        stack.callback(stop_embedded, wiring.state_files(config))
        registry = wiring.build_registry(config)
        base = wiring.build_base(config)
        key = hashlib.sha256(f"holdout:{section.learner.seed}".encode()).digest()
        buffer = wiring.open_buffer(config, key=key, identity=f"replay-{section.learner.seed}")
        stack.callback(buffer.close)
        topics = wiring.build_topics(config)
        stack.callback(topics.close)
        names = wiring.topic_names(config)[feed]
        topics.ensure(names.model_dump().values())
        engine = wiring.build_engine(config, base)
        engine.start()
        stack.callback(engine.close)
        watcher = wiring.build_watcher(config, engine, base, registry, role="replay", url=None)
        watcher.sync(feed)
        overheard = Overheard(engine)
        scorer = wiring.build_scorer(feed, config, topics, overheard, clock)
        stack.callback(scorer.close)
        ingest = wiring.build_ingest(config, topics, buffer, clock)
        stack.callback(ingest.close)
        learner = wiring.build_learner(feed, config, base, registry, buffer, clock)
        learner.lease.acquire()
        stack.callback(learner.lease.release)
        fast = _fast_clock(stack, feed, config, base, registry, buffer) if section.fast.enabled else None
        if fast is not None:
            watcher.follower.sync(feed)
        yield Pipeline(
            feed=feed,
            config=config,
            section=section,
            codec=Codec(feed, section),
            names=names,
            clock=clock,
            topics=topics,
            buffer=buffer,
            registry=registry,
            base=base,
            engine=engine,
            watcher=watcher,
            scorer=scorer,
            ingest=ingest,
            learner=learner,
            fast=fast,
            overheard=overheard,
        )


def _fast_clock(
    stack: ExitStack, feed: str, config: Config, base: Base, registry: Registry, buffer: Buffer
) -> FastClock:
    lease = registry.lease(feed, ADAPT_ROLE, ttl_s=5)
    lease.acquire()
    stack.callback(lease.release)
    names = base.features(spoken(config.feed[feed].labels)).numpy()  # (C, d)
    clock = build_fast_clock(feed, config, registry, buffer, lease, lambda: names, base.hidden_size)
    clock.open()
    return clock
