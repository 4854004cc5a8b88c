"""Logging of the command line: structured lines on stderr, so that stdout stays what the verb prints."""

import logging
import os
import sys

import structlog


def configure_logging(*, process: str | None = None) -> None:
    """Long-running processes log from info on, and say which one they are; other verbs only warnings.

    `DRIFTLINE_LOG_LEVEL` (debug, info, warning, error) overrides the level.
    """
    default = logging.INFO if process else logging.WARNING
    level = logging.getLevelNamesMapping().get(os.environ.get("DRIFTLINE_LOG_LEVEL", "").upper(), default)
    readable = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if readable else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(
        level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
    if process:
        structlog.contextvars.bind_contextvars(process=process)
