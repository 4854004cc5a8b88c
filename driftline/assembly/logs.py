"""Logging: structured lines on stderr, so that stdout stays what the verb prints.

Other libraries' lines and Python's warnings come in the same form (`driftline.assembly.bridge`).
"""

import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from driftline.assembly.bridge import Bridge
from driftline.terminal import harmless

QUIET: dict[str, tuple[int, int]] = {
    "apscheduler": (logging.ERROR, logging.ERROR),
    "kafka": (logging.ERROR, logging.CRITICAL),
    "huggingface_hub.utils": (logging.ERROR, logging.CRITICAL),
}
"""From which level on others' loggers are heard, in processes and in other verbs: our own errors tell it once.

APScheduler: every tick that comes during an update is skipped, on purpose, and counted in our metrics. The hub's client
sets the level of `huggingface_hub` itself when it is imported, so the logger below it is named.
"""


def configure_logging(*, process: str | None = None) -> None:
    """Long-running processes log from info on, and say which one they are; other verbs only warnings.

    Tracebacks come without local variables: those hold texts of users and tokens.
    `DRIFTLINE_LOG_LEVEL` (debug, info, warning, error) overrides the level; debug lets others' warnings through, too.
    """
    default = logging.INFO if process else logging.WARNING
    level = logging.getLevelNamesMapping().get(os.environ.get("DRIFTLINE_LOG_LEVEL", "").upper(), default)
    readable = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([_named(process)] if process else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(
                []
                if readable
                else [structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))]
            ),
            *_for_terminals(readable),
            _console() if readable else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    _bridge(max(level, logging.WARNING))
    for name, (in_processes, in_verbs) in QUIET.items():
        quiet = in_processes if process else in_verbs
        logging.getLogger(name).setLevel(logging.NOTSET if level <= logging.DEBUG else quiet)


def _bridge(level: int) -> None:
    """Others' lines and Python's warnings come through our log. Once per process; handlers of others stay."""
    root = logging.getLogger()
    root.setLevel(level)
    if not any(isinstance(handler, Bridge) for handler in root.handlers):
        root.addHandler(Bridge())
    logging.captureWarnings(True)


def adopt_loggers() -> None:
    """Call it once the model libraries are imported: they write to stderr by handlers of their own, which go."""
    for name in ("transformers", "huggingface_hub"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for terminals: no value steers them. (JSON escapes by itself.)"""
    return {name: harmless(value) if isinstance(value, str) else value for name, value in event.items()}


def _for_terminals(readable: bool) -> list[structlog.typing.Processor]:
    """Tracebacks become strings first, because an exception's message may quote anything."""
    return [structlog.processors.format_exc_info, _harmless] if readable else []


def _console() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _named(process: str) -> Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    """A processor that says which process it was, in every thread."""

    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {"process": process, **event}

    return add
