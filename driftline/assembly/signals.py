"""SIGTERM, SIGINT and SIGHUP: a process finishes what is in hand, a verb that runs once cleans up; then it ends."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from driftline.clock import Deadline

CLEANED_WITHIN_S = 10.0


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once. Main thread only."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


@contextlib.contextmanager
def unwound_by_signals() -> Iterator[None]:
    """SIGINT (Ctrl-C), SIGTERM and SIGHUP end the block by an exception, so that all it opened is closed again; then
    the process ends with 128 + the signal's number. For a verb that writes its report afterwards. Main thread only.

    Further ones are ignored for a while, since a closing terminal may send several and cleaning up takes a moment; then
    they count again, should that hang. What was ignored before (as nohup does) stays ignored.
    """
    received: list[int] = []
    patience = Deadline(0.0)

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal patience
        if patience.expired():
            received.append(number)
            patience = Deadline(CLEANED_WITHIN_S)
            raise SystemExit(128 + number)

    asked = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            with contextlib.suppress(OSError):  # the terminal may be gone
                name = signal.Signals(received[0]).name
                print(
                    f"stopped by {name}; what it had started is cleaned up, and no report was written", file=sys.stderr
                )
