"""All lines by name, in the order they run."""

from collections.abc import Callable

from benchmarks.acceptance.clone import clean_clone
from benchmarks.acceptance.drills import figures, kafka_stream, learner_kills, outage, rollback
from benchmarks.acceptance.fast import clean_watch, fast_clock, poison
from benchmarks.acceptance.quality import repeat, stream
from benchmarks.acceptance.rows import Options, Row
from benchmarks.acceptance.streams import whole
from benchmarks.acceptance.tests import tests_of

LINES: dict[str, Callable[[Options], list[Row]]] = {
    "clean_clone": clean_clone,
    "stream": stream,
    "airline": whole("airline"),
    "steam": whole("steam"),
    "clinc": whole("clinc"),
    "repeat": repeat,
    "kafka_stream": kafka_stream,
    "ingest_kills": tests_of(
        "ingest killed between any two steps", "*/test_ingest_kill*.py", "*/test_buffer_crash*.py"
    ),
    "learner_kills": learner_kills,
    "swaps": tests_of("100 swaps under 8 clients, PEFT as oracle; refusals", "*/test_swaps*.py", "*/test_watcher*.py"),
    "rollback": rollback,
    "bad_input": tests_of(
        "bad input: topics, HTTP, config",
        "*/test_replay*.py",
        "*/test_codec*.py",
        "*/test_ingest.py",
        "*/test_serving_http*.py",
        "*/test_config*.py",
    ),
    "outage": outage,
    "fast_clock": fast_clock,
    "poison": poison,
    "watch": clean_watch,
    "figures": figures,
}
