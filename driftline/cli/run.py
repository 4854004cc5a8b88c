"""The four processes, from a config to drained: ingest, learn, serve, score."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from driftline.cli import wiring
from driftline.cli.signals import stop_on_signals
from driftline.clock import SystemClock
from driftline.config import Config
from driftline.topics import Topics


def run_ingest(config: Config) -> None:
    """Topics into the buffer, until SIGTERM or SIGINT."""
    stop = stop_on_signals()
    topics, buffer = open_topics(config), wiring.open_buffer(config)
    ingest = wiring.build_ingest(config, topics, buffer, SystemClock())
    try:
        ingest.run(stop)
    finally:
        ingest.close()
        topics.close()
        buffer.close()


def run_learner(config: Config) -> None:
    """The scheduled learner of all feeds, until SIGTERM or SIGINT."""
    stop = stop_on_signals()
    wiring.build_learner_service(config).run(stop)


def run_serve(config: Config) -> None:
    """HTTP answers and admin verbs, until SIGTERM or SIGINT; then what is in flight is answered."""
    from serving.server import Server

    stop = stop_on_signals()
    topics, registry, base = open_topics(config), wiring.build_registry(config), wiring.build_base(config)
    engine = wiring.build_engine(config, base)
    watcher = wiring.build_watcher(config, engine, base, registry, role="serve", url=None)
    try:
        Server(wiring.build_parts(config, engine, watcher, topics), registry).run(stop)
    finally:
        topics.close()


def run_scorer(config: Config) -> None:
    """Events topics → predictions topics, one thread for each feed that wants it, until SIGTERM or SIGINT."""
    stop = stop_on_signals()
    topics, registry, base = open_topics(config), wiring.build_registry(config), wiring.build_base(config)
    engine = wiring.build_engine(config, base)
    watcher = wiring.build_watcher(config, engine, base, registry, role="score", url=None)
    feeds = [feed for feed, section in config.feed.items() if section.serve.score]
    scorers = [wiring.build_scorer(feed, config, topics, engine, SystemClock()) for feed in feeds]
    engine.start()
    watching = threading.Thread(target=watcher.run, args=(stop,), name="watcher")
    watching.start()
    try:
        run_together([partial(scorer.run, stop, partial(watcher.ready, scorer.feed)) for scorer in scorers], stop)
    finally:
        stop.set()
        watching.join()
        engine.close()
        for scorer in scorers:
            scorer.close()
        topics.close()


def run_together(jobs: Sequence[Callable[[], None]], stop: threading.Event) -> None:
    """Each job in a thread of its own until `stop`; the first that fails stops the others, and its error is raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(job) for job in jobs]
        for future in running:
            future.add_done_callback(lambda _: stop.set())
        stop.wait()
    for future in running:
        future.result()


def open_topics(config: Config) -> Topics:
    """The cluster, with every feed's topics made where they are missing."""
    topics = wiring.build_topics(config)
    topics.ensure([topic for names in wiring.topic_names(config).values() for topic in names.model_dump().values()])
    return topics
