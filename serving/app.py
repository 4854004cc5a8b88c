"""The public HTTP app: predict, labels, health, metrics (DESIGN §6). Only translates; the engine decides.

Guards: nothing is answered before this replica has read the registry; texts are cleaned exactly as events are; an
answer names the version that gave it; bodies, inputs and texts are bounded.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from driftline import __version__, metrics
from driftline.clock import Clock, SystemClock
from driftline.config import FeedConfig, FeedTopics, ServeConfig
from driftline.errors import BadInput, NotReady
from driftline.records import Prediction
from driftline.topics import Topics
from driftline.topics.codec import clean_text, encode_label
from driftline.topics.fields import MAX_ID_BYTES
from serving.auth import Tokens, authorize
from serving.collect import Collector
from serving.engine import Answer, Engine
from serving.http import Outermost, add_error_replies, parse, read_body, reply
from serving.watcher import Watcher

PREDICT_EXAMPLE = (
    '{"inputs": [{"id": "r-17", "text": "…"}], "adapter_version": 12}; id and adapter_version are optional'
)
LABELS_EXAMPLE = '{"labels": [{"id": "r-17", "label": "…"}]}'


class PredictInput(msgspec.Struct):
    """One text; further fields are ignored, so that events can be posted as they are."""

    text: str
    id: str | int | None = None


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /predict."""

    inputs: list[PredictInput]
    adapter_version: int | None = None


class LabelInput(msgspec.Struct):
    """One label of an event."""

    id: str | int
    label: str | int
    labeller: str | None = None


class LabelsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /labels."""

    labels: list[LabelInput]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the apps are made of. `feeds` and `names` map a feed to its config and topics."""

    engine: Engine
    watcher: Watcher
    topics: Topics
    feeds: Mapping[str, FeedConfig]
    names: Mapping[str, FeedTopics]
    section: ServeConfig
    tokens: Tokens
    collector: Collector
    clock: Clock = field(default_factory=SystemClock)
    draining: threading.Event = field(default_factory=threading.Event)


def create_app(parts: Parts) -> FastAPI:
    """The app of the public port. Start engine, watcher and collector beside it."""
    app = FastAPI(title="Driftline", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Outermost, draining=parts.draining)
    add_error_replies(app)
    predictor, labeller = _Predictor(parts), _Labeller(parts)

    @app.post("/v1/feeds/{feed}/predict", openapi_extra=_body_schema(PredictRequest))
    async def predict(feed: str, request: Request) -> Response:
        """Answer texts with the live version, or with `adapter_version`."""
        authorize(request.headers, parts.tokens.predict, "PREDICT")
        return await predictor.answer(feed, request)

    @app.post("/v1/feeds/{feed}/labels", status_code=202, openapi_extra=_body_schema(LabelsRequest))
    async def labels(feed: str, request: Request) -> Response:
        """Put labels onto the feed's labels topic."""
        authorize(request.headers, parts.tokens.label, "LABEL")
        return await labeller.accept(feed, request)

    _add_health(app, parts)
    return app


def _add_health(app: FastAPI, parts: Parts) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the engine thread runs; 503 means: restart this process."""
        alive = parts.engine.alive or parts.draining.is_set()
        return reply({"status": "ok" if alive else "engine_stopped"}, 200 if alive else 503)

    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether every feed is at a version that the registry named, and requests are taken."""
        ready = parts.watcher.all_ready() and parts.engine.alive and not parts.draining.is_set()
        feeds = {feed: feed_state(parts, feed) for feed in parts.feeds}
        return reply({"status": "ready" if ready else "not_ready", "feeds": feeds}, 200 if ready else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Prometheus metrics of this process."""
        return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)


def feed_state(parts: Parts, feed: str) -> dict[str, Any]:
    """What this replica serves for a feed, and why it is not the live version, if so."""
    version, revision = parts.engine.active(feed)
    return {
        "ready": parts.watcher.ready(feed),
        "version": version,
        "revision": revision,
        "refused": parts.watcher.refused.get(feed),
    }


class _Predictor:
    """POST /predict. Cleaning and tokenizing run in worker threads; loading a version in others, so that a request for
    an old version cannot hold up those for the live one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="admit")
        self._loaders = ThreadPoolExecutor(2, thread_name_prefix="load")

    async def answer(self, feed: str, request: Request) -> Response:
        parts = self._parts
        parts.engine.labels(feed)  # 404 for an unknown feed
        body = parse(await read_body(request, parts.section.max_body_bytes), PredictRequest, PREDICT_EXAMPLE)
        if not parts.watcher.ready(feed):
            refused = parts.watcher.refused.get(feed)
            message = f"this replica has not taken up the live version of feed {feed!r} yet"
            raise NotReady(f"{message}: {refused}" if refused else message)
        version = _checked_version(body.adapter_version)
        ids = [checked_id(one.id, f"inputs[{index}].id") for index, one in enumerate(body.inputs)]
        answers = await self._predict(feed, body.inputs, version)
        if version is None and parts.collector.wants(feed):
            self._collect(feed, body.inputs, ids, answers)
        return reply({"predictions": [_prediction(one.id, got) for one, got in zip(body.inputs, answers, strict=True)]})

    async def _predict(self, feed: str, inputs: Sequence[PredictInput], version: int | None) -> list[Answer]:
        loaded = version is None or self._parts.engine.resident(feed, version)
        pool = self._workers if loaded else self._loaders
        loop = asyncio.get_running_loop()
        future = await loop.run_in_executor(pool, self._admit, feed, inputs, version)
        return await asyncio.wrap_future(future)

    def _admit(self, feed: str, inputs: Sequence[PredictInput], version: int | None) -> "Future[list[Answer]]":
        section = self._parts.section
        if len(inputs) > section.max_inputs_per_request:
            limit = section.max_inputs_per_request
            message = f"inputs: {len(inputs)} are more than {limit} (serve.max_inputs_per_request): send them in parts"
            raise BadInput("too_many_inputs", message, status=413)
        texts = [_cleaned(one.text, index, section.max_text_bytes) for index, one in enumerate(inputs)]
        return self._parts.engine.submit(feed, texts, version)

    def _collect(
        self, feed: str, inputs: Sequence[PredictInput], ids: Sequence[str | None], answers: Sequence[Answer]
    ) -> None:
        now, replica = self._parts.clock.now(), self._parts.section.replica
        kept = [
            (
                Prediction(
                    event_id=event_id,
                    feed=feed,
                    label=answer.label,
                    scores=answer.scores,
                    adapter_version=answer.adapter_version,
                    replica=replica,
                    predicted_at=now,
                ),
                one.text,
            )
            for one, event_id, answer in zip(inputs, ids, answers, strict=True)
            if event_id is not None
        ]
        if kept:
            self._parts.collector.offer(kept)


class _Labeller:
    """POST /labels."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="labels")

    async def accept(self, feed: str, request: Request) -> Response:
        parts = self._parts
        known = parts.engine.labels(feed)  # 404 for an unknown feed
        body = parse(await read_body(request, parts.section.max_body_bytes), LabelsRequest, LABELS_EXAMPLE)
        now = parts.clock.now()
        records = []
        for index, one in enumerate(body.labels):
            event_id = checked_id(one.id, f"labels[{index}].id")
            if event_id is None:
                raise BadInput("empty_id", f"labels[{index}].id is empty: give the event's id")
            label = str(one.label)
            if label not in known:
                message = f"labels[{index}].label = {one.label!r:.80} is no label of feed {feed!r}"
                raise BadInput("unknown_label", f"{message}; its labels: {', '.join(known)}")
            records.append(encode_label(event_id, label, now, one.labeller))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._workers, parts.topics.append, parts.names[feed].labels, records)
        return reply({"accepted": len(records)}, 202)


def checked_id(value: str | int | None, key: str) -> str | None:
    """An event id as topics carry it: digits for an integer, None if absent or empty. BadInput if it is too long."""
    if value is None or value == "":
        return None
    try:
        text = str(value)
        text.encode()
    except ValueError:
        raise BadInput("invalid_body", f"{key} is not valid Unicode, or a number with too many digits") from None
    size = len(text.encode())
    if size > MAX_ID_BYTES:
        raise BadInput("id_too_long", f"{key} has {size} bytes, at most {MAX_ID_BYTES} are allowed")
    return text


def _checked_version(version: int | None) -> int | None:
    if version is not None and not 0 <= version < 2**53:
        raise BadInput("invalid_body", f"adapter_version = {version}: use a version from 0 on, or leave it out")
    return version


def _cleaned(text: str, index: int, max_bytes: int) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        message = f"inputs[{index}].text has {size} bytes, at most {max_bytes} are allowed (serve.max_text_bytes)"
        raise BadInput("text_too_long", message, status=413)
    cleaned = clean_text(text)
    if not cleaned:
        raise BadInput("empty_text", f"inputs[{index}].text: nothing is left of it after cleaning")
    return cleaned


def _prediction(given_id: str | int | None, answer: Answer) -> dict[str, Any]:
    return {
        "id": given_id,
        "label": answer.label,
        "scores": answer.scores,
        "adapter_version": answer.adapter_version,
    }


def _body_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind])
    schema = msgspec.json.schema(kind) if not components else _inline(components, kind.__name__)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inline(components: dict[str, Any], name: str) -> Any:
    """The named schema with references to others replaced by them: a path's schema cannot carry its own definitions."""

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(components[value["$ref"].rsplit("/", 1)[1]])
            return {key: resolved(part) for key, part in value.items()}
        return [resolved(part) for part in value] if isinstance(value, list) else value

    return resolved(components[name])
