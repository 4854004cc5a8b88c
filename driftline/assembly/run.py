"""The processes, from a config to drained: ingest, learn, adapt, serve, score.

None of them needs its topics' cluster to start: ingest and score wait for it, serve answers without it.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeVar

import structlog

from driftline import metrics
from driftline.assembly import wiring
from driftline.assembly.label_changes import adopt_labels, require_labels
from driftline.assembly.signals import stop_on_signals
from driftline.clock import SystemClock
from driftline.config import Config
from driftline.errors import ConfigError, TopicUnavailable

log = structlog.get_logger()
T = TypeVar("T")

TOPICS_AGAIN_S = 2.0


def run_ingest(config: Config) -> None:
    """Topics into the buffer, until SIGTERM or SIGINT."""
    stop, shown = stop_on_signals(), config.metrics
    require_labels(config)  # before the buffer is touched
    with (
        metrics.exposed(metrics.INGEST, shown.host, shown.ingest_port, "metrics.ingest_port"),
        closing(wiring.open_buffer(config)) as buffer,
        closing(wiring.build_topics(config)) as topics,
    ):
        adopt_labels(config, buffer)
        ingest = patiently(partial(wiring.build_ingest, config, topics, buffer, SystemClock()), stop)
        if ingest is not None:
            with closing(ingest):
                ingest.run(stop)


def run_learner(config: Config) -> None:
    """The scheduled learner of all feeds, until SIGTERM or SIGINT."""
    stop, shown = stop_on_signals(), config.metrics
    with metrics.exposed(metrics.LEARNER, shown.host, shown.learn_port, "metrics.learn_port"):
        wiring.build_learner_service(config).run(stop)


def run_adapt(config: Config) -> None:
    """The fast clocks of all feeds that have one, until SIGTERM or SIGINT."""
    from driftline.assembly.fast_clock import run_fast_clocks

    stop, shown = stop_on_signals(), config.metrics
    with metrics.exposed(metrics.ADAPT, shown.host, shown.adapt_port, "metrics.adapt_port"):
        run_fast_clocks(config, stop)


def run_serve(config: Config) -> None:
    """HTTP answers and admin verbs, until SIGTERM or SIGINT; then what is in flight is answered.

    Topics are not asked for here: answering needs none, and an append makes its topic where it is missing.
    """
    stop = stop_on_signals()
    registry = wiring.build_registry(config)
    require_labels(config)
    log.info("loading_base_model", model=config.base.model)
    from driftline.assembly.base_names import keep_names
    from serving.server import Server

    with closing(wiring.build_topics(config)) as topics:
        base = wiring.build_base(config)
        keep_names(config, base)
        engine = wiring.build_engine(config, base)
        watcher = wiring.build_watcher(config, engine, base, registry, role="serve", url=None)
        Server(wiring.build_parts(config, engine, watcher, topics), registry).run(stop)


def run_scorer(config: Config) -> None:
    """Events topics → predictions topics, one thread for each feed that wants it, until SIGTERM or SIGINT."""
    from driftline.assembly.base_names import keep_names

    feeds = [feed for feed, section in config.feed.items() if section.serve.score]
    if not feeds:
        raise ConfigError("feed.NAME.serve.score is false for every feed: nothing to score")
    stop, shown = stop_on_signals(), config.metrics
    registry = wiring.build_registry(config)
    require_labels(config)
    log.info("loading_base_model", model=config.base.model)
    with (
        metrics.exposed(metrics.SERVING, shown.host, shown.score_port, "metrics.score_port"),
        closing(wiring.build_topics(config)) as topics,
    ):
        base = wiring.build_base(config)
        keep_names(config, base)
        engine = wiring.build_engine(config, base)
        watcher = wiring.build_watcher(config, engine, base, registry, role="score", url=None)
        engine.start()
        watching = threading.Thread(target=watcher.run, args=(stop,), name="watcher")
        watching.start()

        def score(feed: str) -> None:
            scorer = patiently(partial(wiring.build_scorer, feed, config, topics, engine, SystemClock()), stop)
            if scorer is not None:
                with closing(scorer):
                    scorer.run(stop, partial(watcher.ready, feed))

        try:
            run_together([partial(score, feed) for feed in feeds], stop)
        finally:
            stop.set()
            watching.join()
            engine.close()


def patiently(build: Callable[[], T], stop: threading.Event) -> T | None:
    """What `build` makes, tried again while the topics' cluster does not answer; None if `stop` is set before."""
    while not stop.is_set():
        try:
            return build()
        except TopicUnavailable as error:
            log.warning("topics_unavailable", error=str(error), again_in_s=TOPICS_AGAIN_S)
            stop.wait(TOPICS_AGAIN_S)
    return None


def run_together(jobs: Sequence[Callable[[], None]], stop: threading.Event) -> None:
    """Each job in a thread of its own until `stop`; the first that fails stops the others, and its error is raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(job) for job in jobs]
        for future in running:
            future.add_done_callback(lambda _: stop.set())
        stop.wait()
    for future in running:
        future.result()
