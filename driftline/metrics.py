"""Prometheus instruments of all processes, a registry for each room. Importing this only declares them.

A process sets and shows its own room's only: serve under /metrics, the others on the port that `[metrics]` gives them.
The scorer answers with serving's engine, so its room is serving's.

Names start with `driftline_`, units stand in the name, and no label carries text, ids or anything else unbounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from driftline.errors import ConfigError

INGEST = CollectorRegistry(auto_describe=True)
LEARNER = CollectorRegistry(auto_describe=True)
ADAPT = CollectorRegistry(auto_describe=True)
SERVING = CollectorRegistry(auto_describe=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MILLISECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# ingest
INGEST_RECORDS = Counter("driftline_ingest_records_total", "Records read", ["feed", "kind"], registry=INGEST)
INGEST_DEAD_LETTERS = Counter(
    "driftline_ingest_dead_letters_total", "Records put aside, by reason code", ["feed", "reason"], registry=INGEST
)
INGEST_TRANSACTION_SECONDS = Histogram(
    "driftline_ingest_transaction_seconds", "One buffer transaction", buckets=_SECONDS, registry=INGEST
)
INGEST_PAUSED = Gauge("driftline_ingest_paused", "1 while event partitions are paused", registry=INGEST)
WAITING_EXAMPLES = Gauge(
    "driftline_waiting_examples", "Fresh examples waiting for the learner", ["feed"], registry=INGEST
)

SERVED_ACCURACY = Gauge(
    "driftline_served_accuracy_ratio", "Right of the last 1,000 labelled examples, as served", ["feed"], registry=INGEST
)
SERVED_MACRO_F1 = Gauge(
    "driftline_served_macro_f1_ratio", "Macro-F1 of the last 1,000 labelled examples, as served", ["feed"],
    registry=INGEST,
)  # fmt: skip
SERVED_EXAMPLES = Gauge(
    "driftline_served_examples", "How many examples accuracy and macro-F1 are over", ["feed"], registry=INGEST
)
LABEL_COVERAGE = Gauge(
    "driftline_label_coverage_ratio",
    "Labelled of the events since the oldest of the last 1,000 labelled ones, those of the last minute aside",
    ["feed"],
    registry=INGEST,
)
LABEL_DELAY_SECONDS = Gauge(
    "driftline_label_delay_seconds", "From event to label, quantiles of the last 1,000 labelled examples",
    ["feed", "quantile"], registry=INGEST,
)  # fmt: skip

# learner
CYCLES = Counter("driftline_cycles_total", "Turns of the learner, by outcome", ["feed", "outcome"], registry=LEARNER)
TRAINED_EXAMPLES = Counter(
    "driftline_trained_examples_total", "Examples trained, replay included", ["feed"], registry=LEARNER
)
CYCLE_SECONDS = Histogram(
    "driftline_cycle_seconds", "Parts of a cycle", ["feed", "part"], registry=LEARNER, buckets=(*_SECONDS, 60, 600)
)
JOBS = Counter(
    "driftline_scheduler_jobs_total", "Scheduled runs: executed, missed, overlapped, failed", ["outcome"],
    registry=LEARNER,
)  # fmt: skip

# serving
REQUESTS = Counter("driftline_requests_total", "HTTP requests", ["route", "status"], registry=SERVING)
REQUEST_SECONDS = Histogram(
    "driftline_request_seconds", "HTTP requests, body read to answer", ["route"], buckets=_SECONDS, registry=SERVING
)
PULSES = Counter("driftline_pulses_total", "Pulses made", ["feed"], registry=ADAPT)
ADAPTED = Counter("driftline_adapted_examples_total", "Examples learned by the fast clock", ["feed"], registry=ADAPT)
ANSWERED_INPUTS = Counter("driftline_answered_inputs_total", "Texts answered", ["feed"], registry=SERVING)
ANSWERS = Counter(
    "driftline_answers_total",
    "Texts answered, by the label; _none: version 0 has none; _other: a class that the config does not name",
    ["feed", "label"],
    registry=SERVING,
)
FAILED_INPUTS = Counter("driftline_failed_inputs_total", "Texts whose batch failed", ["feed"], registry=SERVING)
OVERLOADED = Counter("driftline_overloaded_total", "Requests refused for lack of room", registry=SERVING)
QUEUED_INPUTS = Gauge("driftline_queued_inputs", "Texts waiting for the engine", registry=SERVING)
BATCH_ROWS = Histogram("driftline_batch_rows", "Texts per micro-batch", buckets=_ROWS, registry=SERVING)
BATCH_SECONDS = Histogram("driftline_batch_seconds", "One micro-batch", buckets=_SECONDS, registry=SERVING)
SWAPS = Counter("driftline_swaps_total", "Changes of the live version in this replica", ["feed"], registry=SERVING)
SWAP_PAUSE_MS = Histogram(
    "driftline_swap_pause_ms", "How long a swap held the engine", buckets=_MILLISECONDS, registry=SERVING
)
REFUSALS = Counter("driftline_refusals_total", "Versions refused, by code", ["feed", "code"], registry=SERVING)
LIVE_VERSION = Gauge("driftline_live_version", "The version this process serves", ["feed"], registry=SERVING)
LIVE_REVISION = Gauge("driftline_live_revision", "The revision this process serves", ["feed"], registry=SERVING)
LIVE_PULSE = Gauge("driftline_live_pulse", "The fast state this process answers with", ["feed"], registry=SERVING)
PULSE_APPLY_MS = Histogram(
    "driftline_pulse_apply_ms", "How long a pulse held the mixing", buckets=_MILLISECONDS, registry=SERVING
)
MIXING_MS = Histogram(
    "driftline_mixing_ms", "Mixing requests that waited together", buckets=_MILLISECONDS, registry=SERVING
)
MIXING_FAILURES = Counter(
    "driftline_mixing_failures_total", "Times that mixing failed, and the head alone answered", ["feed"],
    registry=SERVING,
)  # fmt: skip
RESIDENT_VERSIONS = Gauge("driftline_resident_versions", "Versions in the bank's slots", registry=SERVING)
COLLECTED = Counter(
    "driftline_collected_total", "Inputs of /predict: kept, overflowed, lost", ["feed", "outcome"], registry=SERVING
)
SCORED = Counter(
    "driftline_scored_total", "Events of the topic: answered, skipped", ["feed", "outcome"], registry=SERVING
)


@contextmanager
def exposed(room: CollectorRegistry, host: str, port: int | None, key: str) -> Iterator[int | None]:
    """Show a room's registry at http://HOST:PORT/metrics meanwhile, and yield the port (0: any); without one, don't.

    ConfigError names `key` if the port cannot be had.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, room)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{key} = {port} on metrics.host = {host!r}: {reason}; use another port or address") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
