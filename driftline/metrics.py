"""Prometheus instruments of all processes. Importing this only declares them.

Each process sets its own part: serve shows it under /metrics, the others on the port that `[metrics]` gives them.

Names start with `driftline_`, units stand in the name, and no label carries text, ids or anything else unbounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from driftline.errors import ConfigError

REGISTRY = CollectorRegistry(auto_describe=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MILLISECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# ingest
INGEST_RECORDS = Counter("driftline_ingest_records_total", "Records read", ["feed", "kind"], registry=REGISTRY)
INGEST_DEAD_LETTERS = Counter(
    "driftline_ingest_dead_letters_total", "Records put aside, by reason code", ["feed", "reason"], registry=REGISTRY
)
INGEST_TRANSACTION_SECONDS = Histogram(
    "driftline_ingest_transaction_seconds", "One buffer transaction", buckets=_SECONDS, registry=REGISTRY
)
INGEST_PAUSED = Gauge("driftline_ingest_paused", "1 while event partitions are paused", registry=REGISTRY)
WAITING_EXAMPLES = Gauge(
    "driftline_waiting_examples", "Fresh examples waiting for the learner", ["feed"], registry=REGISTRY
)

# learner
CYCLES = Counter("driftline_cycles_total", "Turns of the learner, by outcome", ["feed", "outcome"], registry=REGISTRY)
TRAINED_EXAMPLES = Counter(
    "driftline_trained_examples_total", "Examples trained, replay included", ["feed"], registry=REGISTRY
)
CYCLE_SECONDS = Histogram(
    "driftline_cycle_seconds", "Parts of a cycle", ["feed", "part"], registry=REGISTRY, buckets=(*_SECONDS, 60, 600)
)
JOBS = Counter(
    "driftline_scheduler_jobs_total", "Scheduled runs: executed, missed, overlapped, failed", ["outcome"],
    registry=REGISTRY,
)  # fmt: skip

# serving
REQUESTS = Counter("driftline_requests_total", "HTTP requests", ["route", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "driftline_request_seconds", "HTTP requests, body read to answer", ["route"], buckets=_SECONDS, registry=REGISTRY
)
ANSWERED_INPUTS = Counter("driftline_answered_inputs_total", "Texts answered", ["feed"], registry=REGISTRY)
FAILED_INPUTS = Counter("driftline_failed_inputs_total", "Texts whose batch failed", ["feed"], registry=REGISTRY)
OVERLOADED = Counter("driftline_overloaded_total", "Requests refused for lack of room", registry=REGISTRY)
QUEUED_INPUTS = Gauge("driftline_queued_inputs", "Texts waiting for the engine", registry=REGISTRY)
BATCH_ROWS = Histogram("driftline_batch_rows", "Texts per micro-batch", buckets=_ROWS, registry=REGISTRY)
BATCH_SECONDS = Histogram("driftline_batch_seconds", "One micro-batch", buckets=_SECONDS, registry=REGISTRY)
SWAPS = Counter("driftline_swaps_total", "Changes of the live version in this replica", ["feed"], registry=REGISTRY)
SWAP_PAUSE_MS = Histogram(
    "driftline_swap_pause_ms", "How long a swap held the engine", buckets=_MILLISECONDS, registry=REGISTRY
)
REFUSALS = Counter("driftline_refusals_total", "Versions refused, by code", ["feed", "code"], registry=REGISTRY)
LIVE_VERSION = Gauge("driftline_live_version", "The version this process serves", ["feed"], registry=REGISTRY)
LIVE_REVISION = Gauge("driftline_live_revision", "The revision this process serves", ["feed"], registry=REGISTRY)
RESIDENT_VERSIONS = Gauge("driftline_resident_versions", "Versions in the bank's slots", registry=REGISTRY)
COLLECTED = Counter(
    "driftline_collected_total", "Inputs of /predict: kept, overflowed, lost", ["feed", "outcome"], registry=REGISTRY
)
SCORED = Counter(
    "driftline_scored_total", "Events of the topic: answered, skipped", ["feed", "outcome"], registry=REGISTRY
)


@contextmanager
def exposed(host: str, port: int | None, key: str) -> Iterator[int | None]:
    """Show `REGISTRY` at http://HOST:PORT/metrics meanwhile, and yield the port (0: any); without one, not at all.

    ConfigError names `key` if the port cannot be had.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, REGISTRY)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{key} = {port} on metrics.host = {host!r}: {reason}; use another port or address") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
