"""What the collector finds: an error in the test that runs where it is ours, nothing where it is a library's."""

import gc
import socket
import sys
import threading
import warnings
from types import FunctionType
from typing import Any

import pytest

from tests.fixtures import leaks

LIBRARY = "/somewhere/site-packages/library/net.py"


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would fail a test, kept here instead."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", leaks.hooked(lambda one: found.append(one.exc_value)))
    return found


def of_a_library(source: str, name: str) -> FunctionType:
    """A function as an installed package has it, to be run where none of our frames stands on the stack."""
    scope: dict[str, Any] = {"socket": socket}
    exec(compile(source, LIBRARY, "exec"), scope)
    return scope[name]


def on_its_own_thread(function: FunctionType) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_our_socket_is_reported(reported: list[Any]) -> None:
    def forget() -> None:
        socket.socket()

    forget()
    gc.collect()
    assert [type(one) for one in reported] == [ResourceWarning]


def test_our_file_is_reported(reported: list[Any]) -> None:
    def forget() -> None:
        open(__file__)  # noqa: SIM115

    forget()
    gc.collect()
    assert [type(one) for one in reported] == [ResourceWarning]


def test_a_socket_that_a_library_made_for_us_is_ours(reported: list[Any]) -> None:
    of_a_library("def connect():\n    socket.socket()\n", "connect")()
    gc.collect()
    assert [type(one) for one in reported] == [ResourceWarning]


def test_a_socket_that_a_library_made_on_its_own_thread_is_not(reported: list[Any]) -> None:
    on_its_own_thread(of_a_library("def loop():\n    socket.socket()\n", "loop"))
    gc.collect()
    assert reported == []


def test_a_coroutine_counts_by_its_code(reported: list[Any]) -> None:
    with warnings.catch_warnings(action="error"):
        of_a_library("async def wait(): ...\n", "wait")()
        gc.collect()
        assert reported == []

        async def wait() -> None: ...

        wait()  # type: ignore[unused-coroutine]
        gc.collect()
    assert [type(one) for one in reported] == [RuntimeWarning]


def test_an_error_in_a_librarys_finaliser_is_reported(reported: list[Any]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise RuntimeError("not a warning")

    Broken()
    gc.collect()
    assert [type(one) for one in reported] == [RuntimeError]
