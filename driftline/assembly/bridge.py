"""Other libraries' log lines and warnings, in our log's form, and not too many of them.

Guards that an outage does not bury our own lines: the same thing from the same logger (numbers in it aside) is written
at most once in 30 s; how often it was left out stands in its next line (`left_out`), or in a line of its own.
"""

import logging
import re
import time
from collections.abc import Callable

import structlog

__all__ = ["Bridge"]

AT_MOST_EVERY_S = 30.0
MAX_KINDS = 1000
NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")
Kind = tuple[str, int, str]


class Bridge(logging.Handler):
    """A handler for the root logger: records → `log`, with the logger's name as `logger`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._written: dict[Kind, float] = {}
        self._left_out: dict[Kind, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write it or count it. Never raises: the library that logs must not feel it."""
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001 - as every handler of the standard library
            self.handleError(record)

    def close(self) -> None:
        """Tell what was left out and not told yet."""
        for kind in [kind for kind, count in self._left_out.items() if count]:
            self._tell(kind)
        super().close()

    def _emit(self, record: logging.LogRecord) -> None:
        now, kind = self._clock(), _kind(record)
        self._forget(now, kind)
        if kind in self._written and now - self._written[kind] < AT_MOST_EVERY_S:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._written[kind] = now
        more = {"left_out": count} if (count := self._left_out.pop(kind, 0)) else {}
        structlog.get_logger().log(
            _level(record.levelno),
            record.getMessage().strip(),
            logger=record.name,
            exc_info=record.exc_info or None,
            **more,
        )

    def _forget(self, now: float, but: Kind) -> None:
        """Kinds that were quiet for the time; what was left out of them is told first."""
        past = [kind for kind, at in self._written.items() if kind != but and now - at >= AT_MOST_EVERY_S]
        beyond = list(self._written)[: max(0, len(self._written) - MAX_KINDS)]
        for kind in {*past, *beyond} - {but}:
            self._tell(kind)
            del self._written[kind]

    def _tell(self, kind: Kind) -> None:
        name, level, template = kind
        if count := self._left_out.pop(kind, 0):
            structlog.get_logger().log(_level(level), "lines_left_out", logger=name, like=template, left_out=count)


def _level(number: int) -> int:
    """The standard level at or below; structlog knows no others, and libraries make their own."""
    return max(logging.DEBUG, min(logging.CRITICAL, number // 10 * 10))


def _kind(record: logging.LogRecord) -> Kind:
    """What makes two records the same: logger, level and the message as it stands in the code, numbers aside."""
    template = str(record.msg) if record.args and record.msg != "%s" else record.getMessage()
    return record.name, record.levelno, NUMBERS.sub("#", template.strip())
