"""Work that one thread hands to another and waits for."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["handed_over"]

T = TypeVar("T")


def handed_over(work: Callable[[], T]) -> tuple[Callable[[], None], "Future[T]"]:
    """What the other thread is to call, which never raises, and the future of what `work` then returned or raised."""
    done: Future[T] = Future()

    def job() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            done.set_exception(error)

    return job, done
