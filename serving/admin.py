"""The admin HTTP app, on its own port: the registry's verbs and this replica's status.

Every change is compare-and-set on the live record's revision: the one the caller names, else the one read here just
before. A change shows in answers once the watcher has followed it, within two seconds.
"""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from driftline import __version__
from driftline.errors import BadInput, DriftlineError, TopicError
from driftline.records import LiveRecord
from driftline.registry import Registry
from driftline.topics.ends import ends
from driftline.update_requests import UPDATE_WAIT_S, Wanted
from serving.app import READY_SHOWN, Parts, feed_state
from serving.auth import authorize
from serving.docs import add_docs
from serving.http import Outermost, add_error_replies, parse, read_body, reply
from serving.replies import LiveReply, StatusReply, described

log = structlog.get_logger()

EXAMPLE = '{"version": 12, "reason": "…", "actor": "ana"}'
MAX_BODY_BYTES = 64 * 1024
LIVE_SHOWN = {
    "feed": "reviews",
    "version": 12,
    "revision": 15,
    "anchor": 12,
    "paused": True,
    "pause_reason": "rolled back to 11: wrong on refunds",
    "changed_at": "2026-11-22T08:00:00Z",
    "actor": "ana",
}
STATUS_SHOWN = {
    "replica": "a",
    "version": __version__,
    "queued_inputs": 0,
    "resident": [{"feed": "reviews", "version": 12}],
    "feeds": {"reviews": READY_SHOWN},
    "registry": "ok",
    "live": {"reviews": LIVE_SHOWN},
    "replicas": [],
}


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an admin verb; every field may be left out where the verb does not need it."""

    version: Annotated[int, msgspec.Meta(ge=0)] | None = None
    reason: str = ""
    actor: str = "admin-api"
    expected_revision: int | None = None


CHANGE = described(
    "admin", LiveReply, LIVE_SHOWN, body=(Order, {"version": 12, "reason": "wrong on refunds", "actor": "ana"})
)


CHANGE["responses"][202] = {**CHANGE["responses"][200], "description": "update-now: the learner was asked"}


def create_admin_app(parts: Parts, registry: Registry) -> FastAPI:
    """The app of the admin port."""
    app = FastAPI(title="Driftline admin", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Outermost, draining=parts.draining)
    add_error_replies(app)
    verbs = _Verbs(parts, registry)

    @app.get("/v1/status", **described("admin", StatusReply, STATUS_SHOWN))
    async def status(request: Request) -> Response:
        """What this replica serves, what the registry names as live, and who else serves."""
        authorize(request.headers, parts.tokens.admin, "ADMIN")
        return reply(await run_in_threadpool(_status, parts, registry))

    @app.post("/v1/feeds/{feed}/{verb}", **CHANGE)
    async def change(feed: str, verb: str, request: Request) -> Response:
        """promote, rollback, pause, resume or update-now."""
        authorize(request.headers, parts.tokens.admin, "ADMIN")
        parts.engine.labels(feed)  # 404 for an unknown feed
        body = await read_body(request, MAX_BODY_BYTES)
        order = _order(body)
        done = await asyncio.shield(run_in_threadpool(verbs.carry_out, feed, verb, order))
        return reply(done, 202 if verb == "update-now" else 200)  # the learner takes it up later, if it has anything

    add_docs(app)
    return app


def _order(body: bytes) -> Order:
    """The order in a body, which may be empty. BadInput; also for what neither Redis nor a log could hold."""
    order = parse(body, Order, EXAMPLE) if body.strip() else Order()
    for key in ("actor", "reason"):
        try:
            getattr(order, key).encode()
        except UnicodeEncodeError:
            raise BadInput("invalid_body", f"{key} is not valid Unicode: half of a surrogate pair is in it") from None
    return order


class _Verbs:
    """The verbs. RegistryConflict and ArtefactError become 409, UnknownVersion 404, RegistryUnavailable 503."""

    def __init__(self, parts: Parts, registry: Registry) -> None:
        self._parts = parts
        self._registry = registry

    def carry_out(self, feed: str, verb: str, order: Order) -> dict[str, Any]:
        """Do it, and tell the live record after it."""
        verbs = {
            "promote": self._promote,
            "rollback": self._rollback,
            "pause": self._pause,
            "resume": self._resume,
            "update-now": self._update_now,
        }
        if verb not in verbs:
            raise BadInput("not_found", f"no verb {verb!r}; known verbs: {', '.join(verbs)}", status=404)
        return live_document(verbs[verb](feed, order))

    def _promote(self, feed: str, order: Order) -> LiveRecord:
        if order.version is None:
            raise BadInput("missing_version", f"promote needs a version; expected {EXAMPLE}")
        if order.version == 0:
            remedy = f"POST /v1/feeds/{feed}/rollback with version 0, which pauses automatic promotion, too"
            raise BadInput("invalid_body", f"version = 0: the base is not promoted but gone back to: {remedy}")
        expected = order.expected_revision
        if expected is None:
            expected = self._registry.live(feed).revision
        self._check_servable(feed, order.version)
        return self._registry.promote(
            feed, order.version, expected_revision=expected, **self._signature(order, "promoted")
        )

    def _rollback(self, feed: str, order: Order) -> LiveRecord:
        live = self._registry.live(feed)
        version = self._registry.rollback_target(live) if order.version is None else order.version
        self._check_servable(feed, version)
        expected = live.revision if order.expected_revision is None else order.expected_revision
        return self._registry.rollback(
            feed, version, expected_revision=expected, **self._signature(order, "rolled back")
        )

    def _pause(self, feed: str, order: Order) -> LiveRecord:
        return self._registry.pause(feed, **self._signature(order, "paused"))

    def _resume(self, feed: str, order: Order) -> LiveRecord:
        return self._registry.resume(feed, **self._signature(order, "resumed"))

    def _update_now(self, feed: str, order: Order) -> LiveRecord:
        live = self._registry.live(feed)
        if live.paused:
            message = f"feed {feed!r} is paused ({live.pause_reason}): POST /v1/feeds/{feed}/resume first"
            raise BadInput("paused", message, status=409)
        names = self._parts.names[feed]
        try:
            found = ends(self._parts.topics, [names.events, names.labels])
        except TopicError as error:  # the learner takes what it has
            log.warning("update_waits_for_nothing", feed=feed, error=str(error))
            found = {}
        self._registry.request_update(feed, order.actor, Wanted(positions=found, wait_s=UPDATE_WAIT_S))
        return live

    def _check_servable(self, feed: str, version: int) -> None:
        """UnknownVersion, or ArtefactError for what this replica would refuse (its probe aside), before any change."""
        if version:
            self._registry.require_kept(feed, version)
            self._parts.watcher.load_version(feed, version)

    def _signature(self, order: Order, done: str) -> dict[str, Any]:
        reason = order.reason.strip() or f"{done} by the admin API"
        return {"actor": order.actor, "reason": reason, "at": self._parts.clock.now()}


def live_document(live: LiveRecord) -> dict[str, Any]:
    """A live record as JSON values."""
    document: dict[str, Any] = msgspec.to_builtins(asdict(live))
    return document


def _status(parts: Parts, registry: Registry) -> dict[str, Any]:
    document: dict[str, Any] = {
        "replica": parts.section.replica,
        "version": __version__,
        "queued_inputs": parts.engine.queued_inputs,
        "resident": [{"feed": feed, "version": version} for feed, version in parts.engine.residents()],
        "feeds": {feed: feed_state(parts, feed) for feed in parts.feeds},
    }
    try:
        live = {feed: live_document(registry.live(feed)) for feed in parts.feeds}
        replicas = [msgspec.to_builtins(asdict(status)) for status in registry.replicas()]
    except DriftlineError as error:
        return {**document, "registry": str(error), "live": None, "replicas": None}
    return {**document, "registry": "ok", "live": live, "replicas": replicas}
