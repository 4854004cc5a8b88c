"""What both apps share: bounded bodies, typed requests, one shape of error, and the outermost layer.

Every error is `{"error": {"code", "message"}}`; the message names the key, the value and the remedy. What is no HTTP at
all is answered 400 by the server below, in plain text. A request whose length is absurd or ambiguous is refused by its
head alone, before any of its body is waited for.
"""

import asyncio
import json
import math
import threading
import time
from typing import Any, TypeVar

import msgspec
import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from driftline import metrics
from driftline.errors import (
    ArtefactError,
    BadInput,
    DriftlineError,
    NotReady,
    Overloaded,
    RegistryConflict,
    RegistryError,
    RegistryLost,
    RegistryUnavailable,
    ServingError,
    TopicUnavailable,
    UnknownVersion,
)

log = structlog.get_logger()
T = TypeVar("T")

DISCARDED_BODIES = 16
LENGTH_DIGITS = 18  # an int64 holds them; no body is longer
BODY_WITHIN_S = 60.0
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes of it in memory. BadInput 413 beyond, 408 when it does not come.

    What is too much is read and thrown away (up to 16 times the limit), because clients that are still sending would
    see a broken connection instead of the answer. A length declared beyond that is not waited for: the server below
    throws away what still comes of it.
    """
    if int(request.headers.get("content-length", 0)) > limit * DISCARDED_BODIES:
        raise _too_large(limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > limit * DISCARDED_BODIES:
                    break
    except TimeoutError:
        raise BadInput("body_too_slow", f"the body did not come within {BODY_WITHIN_S:g} s", status=408) from None
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> BadInput:
    message = f"the body is larger than {limit} bytes (serve.max_body_bytes): send fewer or shorter inputs"
    return BadInput("body_too_large", message, status=413)


def parse(body: bytes, kind: type[T], example: str) -> T:
    """The body as `kind`. BadInput 400 if it is not JSON, 422 if it does not fit; both show what would."""
    if not body:
        raise BadInput("invalid_json", f"the body is empty; expected {example}", status=400)
    try:
        return msgspec.convert(_decoded(body), kind)
    except msgspec.ValidationError as error:
        raise BadInput("invalid_body", f"{error}; expected {example}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput("invalid_json", f"the body is not JSON: {error}; expected {example}", status=400) from None


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:  # halves of surrogate pairs, which Python's own json writes; as on topics
        return json.loads(body)


def reply(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(document), status, headers, "application/json")


def error_reply(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """The one shape of an error."""
    return reply({"error": {"code": code, "message": message}}, status, headers)


def add_error_replies(app: FastAPI) -> None:
    """Turn every exception into an error reply; what nobody foresaw is logged and answered 500."""
    app.add_exception_handler(DriftlineError, _known_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


async def _known_error(request: Request, error: Exception) -> Response:
    if isinstance(error, BadInput):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return error_reply(error.status, error.code, str(error), headers)
    if isinstance(error, Overloaded):
        return error_reply(429, "overloaded", str(error), {"Retry-After": str(math.ceil(error.retry_after_s))})
    if isinstance(error, ArtefactError):
        return error_reply(409, error.code, str(error))
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            retry = {"Retry-After": "1"} if status == 503 else None
            return error_reply(status, code, str(error), retry)
    log.error("request_failed", path=request.url.path, error=str(error))
    return error_reply(500, "internal", "this request could not be served; see the server's log")


_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotReady, 503, "not_ready"),
    (RegistryUnavailable, 503, "registry_unavailable"),
    (TopicUnavailable, 503, "topic_unavailable"),
    (UnknownVersion, 404, "unknown_version"),
    (RegistryConflict, 409, "conflict"),
    (RegistryLost, 409, "registry_lost"),
    (RegistryError, 500, "registry_error"),
    (ServingError, 500, "prediction_failed"),
)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "http_error")
    return error_reply(error.status_code, code, str(error.detail), dict(error.headers or {}))


async def _gone(*_: object) -> Response:
    return Response(status_code=499)


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("request_broke", path=request.url.path, exc_info=error)
    return error_reply(500, "internal", "this request could not be served; see the server's log")


def _refused_by_its_head(headers: Headers) -> Response | None:
    """400 for a length that no body has, and for two ways to tell it, which a proxy and we might read differently; the
    connection is closed, as nobody knows where the next request would begin."""
    length, close = headers.get("content-length"), {"Connection": "close"}
    if length is None:
        return None
    if "transfer-encoding" in headers:
        message = "Content-Length and Transfer-Encoding in one request: send one of them"
        return error_reply(400, "ambiguous_length", message, close)
    if not (length.isascii() and length.isdigit() and len(length) <= LENGTH_DIGITS):
        message = f"Content-Length = {length:.40}: no body has that length; send the number of its bytes"
        return error_reply(400, "bad_length", message, close)
    return None


class Outermost:
    """Refuses what is absurd by its head, counts and times requests, and tells clients to close their connections while
    the server drains."""

    def __init__(self, app: ASGIApp, draining: threading.Event) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _refused_by_its_head(Headers(scope=scope))
        if refusal is not None:
            metrics.REQUESTS.labels("unmatched", "400").inc()
            await refusal(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._draining.is_set():
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.REQUESTS.labels(route, str(status or 500)).inc()
            metrics.REQUEST_SECONDS.labels(route).observe(time.perf_counter() - started)
