"""Other libraries' log lines in our log: their form, how often they come, and what was left out."""

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from driftline.assembly.bridge import AT_MOST_EVERY_S, Bridge
from driftline.assembly.logs import configure_logging


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def theirs(clock: Clock) -> Iterator[logging.Logger]:
    """A library's logger, bridged."""
    logger, bridge = logging.getLogger("theirs.net"), Bridge(clock)
    logger.addHandler(bridge)
    logger.propagate = False
    yield logger
    logger.removeHandler(bridge)


@pytest.fixture
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_one_line_in_thirty_seconds_and_the_count_of_the_others(theirs: logging.Logger, clock: Clock) -> None:
    with capture_logs() as lines:
        for attempt in range(337):
            theirs.error("node %s: connection to 127.0.0.1:%d refused", attempt % 3, 9092 + attempt)
            theirs.error(f"made without arguments, attempt {attempt}, at 0x{attempt:x}")
        theirs.error("another thing")
        clock.now = AT_MOST_EVERY_S
        theirs.error("node %s: connection to 127.0.0.1:%d refused", 1, 1)
    said = [(line["event"], line["logger"], line.get("left_out")) for line in lines]
    assert said == [
        ("node 0: connection to 127.0.0.1:9092 refused", "theirs.net", None),
        ("made without arguments, attempt 0, at 0x0", "theirs.net", None),
        ("another thing", "theirs.net", None),
        ("lines_left_out", "theirs.net", 336),  # the second kind did not come again
        ("node 1: connection to 127.0.0.1:1 refused", "theirs.net", 336),
    ]
    assert {line["log_level"] for line in lines} == {"error"}


def test_what_was_left_out_is_told_at_the_end(clock: Clock) -> None:
    bridge = Bridge(clock)
    record = logging.LogRecord("theirs", logging.WARNING, "", 0, "again %d", (1,), None)
    with capture_logs() as lines:
        for _ in range(5):
            bridge.handle(record)
        bridge.close()
    assert [(line["event"], line.get("left_out")) for line in lines] == [("again 1", None), ("lines_left_out", 4)]


@pytest.mark.usefixtures("_root_as_before")
def test_processes_write_others_lines_and_warnings_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(process="ingest")
    configure_logging(process="ingest")  # not twice
    logging.getLogger("kafka.net").error("kafka \x1b[31m%s", "gone")
    logging.getLogger("redis").warning("retry")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # catch_warnings set it aside
        logging.captureWarnings(True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    found = [(line["logger"], line["level"], line["process"]) for line in lines]
    assert found == [
        ("kafka.net", "error", "ingest"),
        ("redis", "warning", "ingest"),
        ("uvicorn.error", "warning", "ingest"),
        ("py.warnings", "warning", "ingest"),
    ]
    assert "old thing" in lines[3]["event"]


@pytest.mark.usefixtures("_root_as_before")
def test_a_readable_log_steers_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and tracebacks; the log's own colours are its own."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    configure_logging(process="ingest")
    hostile = "a\x1b]0;title\x07\x9b2J\u202egnp"
    structlog.get_logger().error("failed", who=hostile, exc_info=ValueError(hostile))
    logging.getLogger("theirs").error(hostile)
    written = capsys.readouterr().err
    assert written.count("a\\x1b]0;title") == 3
    assert not {"\x1b]", "\x07", "\x9b", "\u202e"} & {*written, written[written.find("\x1b]") :][:2]}
