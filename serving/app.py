"""The public HTTP app: predict, labels, health, metrics (DESIGN §6). Only translates; the engine decides.

Guards: nothing is answered before this replica has read the registry; texts are cleaned exactly as events are; an
answer names the version that gave it; bodies, inputs and texts are bounded.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NoReturn

import msgspec
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from driftline import __version__, metrics
from driftline.clock import Clock, SystemClock
from driftline.config import FeedConfig, FeedTopics, ServeConfig
from driftline.errors import BadInput, NotReady, Overloaded
from driftline.records import Prediction
from driftline.topics import Outgoing, Topics
from driftline.topics.codec import encode_label, labeller_name
from driftline.topics.labels import LabelNames
from serving.auth import Tokens, authorize, authorize_labels
from serving.bodies import (
    LABELS_EXAMPLE,
    PREDICT_EXAMPLE,
    LabelInput,
    LabelsRequest,
    PredictInput,
    PredictRequest,
    check_places,
    checked_flag,
    checked_id,
    checked_version,
    cleaned_text,
)
from serving.collect import Collector
from serving.docs import add_docs
from serving.engine import Answer, Asked, Engine
from serving.http import Outermost, add_error_replies, parse, read_body, reply
from serving.replies import (
    OPEN,
    ExpertReply,
    FeedReply,
    FeedsReply,
    HealthReply,
    LabelsReply,
    PredictionReply,
    PredictReply,
    ReadyFeed,
    ReadyReply,
    described,
)
from serving.watcher import Watcher

MAX_ADMITTING_BODIES = 4
FEED_SHOWN = {
    "feed": "reviews",
    "task": "classification",
    "labels": ["negative", "positive"],
    "ready": True,
    "version": 12,
    "revision": 14,
    "pulse": 345,
}
READY_SHOWN = {  # no null in what is shown: FastAPI drops it
    "ready": True,
    "version": 11,
    "revision": 13,
    "pulse": 345,
    "fell_back": False,
    "refused": "untrusted_key: the manifest is signed by key …",
}
PREDICTION_SHOWN = {
    "id": "r-17",
    "label": "negative",
    "scores": {"negative": 0.9, "positive": 0.1},
    "adapter_version": 12,
    "pulse": 345,
}
PREDICT = described(
    "feeds",
    PredictReply,
    {"predictions": [PREDICTION_SHOWN]},
    body=(PredictRequest, {"inputs": [{"id": "r-17", "text": "the battery died after two days"}]}),
    flags={"experts": "tell with each answer what it was mixed from: every expert's scores and their weight, by label"},
)
LABELS = described(
    "feeds",
    LabelsReply,
    {"accepted": 1},
    status=202,
    body=(LabelsRequest, {"labels": [{"id": "r-17", "label": "negative"}]}),
)
APPENDS_AT_ONCE = 4
MAX_PENDING_APPENDS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the apps are made of. `feeds` and `names` map a feed to its config and topics; `trusted`: the labellers of
    `labels.trusted`."""

    engine: Engine
    watcher: Watcher
    topics: Topics
    feeds: Mapping[str, FeedConfig]
    names: Mapping[str, FeedTopics]
    section: ServeConfig
    tokens: Tokens
    collector: Collector
    trusted: frozenset[str] = frozenset()
    clock: Clock = field(default_factory=SystemClock)
    draining: threading.Event = field(default_factory=threading.Event)


def create_app(parts: Parts) -> FastAPI:
    """The app of the public port. Start engine, watcher and collector beside it."""
    app = FastAPI(title="Driftline", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Outermost, draining=parts.draining)
    add_error_replies(app)
    predictor, labeller = _Predictor(parts), _Labeller(parts)

    @app.get("/v1/feeds", **described("feeds", FeedsReply, {"feeds": [FEED_SHOWN]}))
    async def feeds(request: Request) -> Response:
        """The feeds that this replica answers, their labels, and what is served."""
        authorize(request.headers, parts.tokens.predict, "PREDICT")
        return reply(FeedsReply([_feed_reply(parts, feed) for feed in parts.feeds]))

    @app.post("/v1/feeds/{feed}/predict", **PREDICT)
    async def predict(feed: str, request: Request) -> Response:
        """Answer texts with the live version, or with `adapter_version`."""
        authorize(request.headers, parts.tokens.predict, "PREDICT")
        return await predictor.answer(feed, request)

    @app.post("/v1/feeds/{feed}/labels", **LABELS)
    async def labels(feed: str, request: Request) -> Response:
        """Put labels onto the feed's labels topic."""
        vouched = authorize_labels(request.headers, parts.tokens)
        return await labeller.accept(feed, request, vouched)

    _add_health(app, parts)
    add_docs(app)
    return app


def _add_health(app: FastAPI, parts: Parts) -> None:
    @app.get("/healthz", **described(OPEN, HealthReply, {"status": "ok"}))
    async def healthz() -> Response:
        """Whether the engine thread runs; 503 means: restart this process."""
        alive = parts.engine.alive or parts.draining.is_set()
        return reply(HealthReply("ok" if alive else "engine_stopped"), 200 if alive else 503)

    @app.get("/readyz", **described(OPEN, ReadyReply, {"status": "ready", "feeds": {"reviews": READY_SHOWN}}))
    async def readyz() -> Response:
        """Whether every feed is at a version that the registry named, and requests are taken."""
        ready = parts.watcher.all_ready() and parts.engine.alive and not parts.draining.is_set()
        feeds = {feed: feed_state(parts, feed) for feed in parts.feeds}
        return reply(ReadyReply("ready" if ready else "not_ready", feeds), 200 if ready else 503)

    @app.get("/metrics", tags=[OPEN])
    async def prometheus() -> Response:
        """Prometheus metrics of this process."""
        return Response(generate_latest(metrics.SERVING), media_type=CONTENT_TYPE_LATEST)


def feed_state(parts: Parts, feed: str) -> ReadyFeed:
    """What this replica serves for a feed, and why it is not the live version, if so."""
    version, revision = parts.engine.active(feed)
    fast, refused = parts.engine.fast.get(feed), parts.watcher.refused.get(feed)
    pulse, fell_back = (fast.number, fast.fell_back) if fast else (0, False)
    return ReadyFeed(parts.watcher.ready(feed), version, revision, pulse, fell_back, refused)


def _feed_reply(parts: Parts, feed: str) -> FeedReply:
    section, state = parts.feeds[feed], feed_state(parts, feed)
    return FeedReply(feed, section.task, list(section.labels), state.ready, state.version, state.revision, state.pulse)


class _Admission:
    """Threads for what comes before the engine's queue, and how much may wait for them: inputs that will not find room
    in that queue are refused here, before any work is done on them, and so are long texts beyond a few full bodies."""

    def __init__(self, parts: Parts, threads: int, name: str) -> None:
        self._engine, self._section = parts.engine, parts.section
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._inputs = self._characters = 0  # being admitted; touched by the event loop only

    async def run(self, admit: Callable[[], "Future[list[Answer]]"], inputs: Sequence[PredictInput]) -> list[Answer]:
        """What `admit` has the engine answer. Overloaded if too much waits; errors of `admit`, and of the batch."""
        size, characters = max(1, len(inputs)), sum(len(one.text) for one in inputs)
        self._check_room(size, characters)
        admitted = asyncio.get_running_loop().run_in_executor(self._workers, admit)
        self._count(size, characters)
        admitted.add_done_callback(lambda _: self._count(-size, -characters))
        return await asyncio.wrap_future(await admitted)

    def _check_room(self, size: int, characters: int) -> None:
        """Overloaded if the request may not wait. One that finds nothing waiting always fits."""
        waiting, limit = self._inputs + self._engine.queued_inputs, self._section.max_queue_inputs
        if waiting and waiting + size > limit:
            self._refuse(f"{waiting} inputs wait already, {limit} may (serve.max_queue_inputs)")
        limit = MAX_ADMITTING_BODIES * self._section.max_body_bytes
        if self._characters and self._characters + characters > limit:
            self._refuse(f"{self._characters} characters wait to be cleaned already, {limit} may")

    def _refuse(self, message: str) -> NoReturn:
        metrics.OVERLOADED.inc()
        raise Overloaded(f"{message}: try later", 1.0)

    def _count(self, size: int, characters: int) -> None:
        self._inputs += size
        self._characters += characters


class _Predictor:
    """POST /predict. Cleaning and tokenizing run in worker threads; loading a version in others, so that a request for
    an old version cannot hold up those for the live one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._live = _Admission(parts, 4, "admit")
        self._loading = _Admission(parts, 2, "load")

    async def answer(self, feed: str, request: Request) -> Response:
        parts = self._parts
        parts.engine.labels(feed)  # 404 for an unknown feed
        body = parse(await read_body(request, parts.section.max_body_bytes), PredictRequest, PREDICT_EXAMPLE)
        if not parts.watcher.ready(feed):
            refused = parts.watcher.refused.get(feed)
            message = f"this replica has not taken up the live version of feed {feed!r} yet"
            raise NotReady(f"{message}: {refused}" if refused else message)
        check_places(body.inputs)
        version = checked_version(body.adapter_version)
        asked = Asked.EXPERTS if checked_flag(request.query_params, "experts") else Asked.MIXTURE
        ids = [checked_id(one.id, f"inputs[{index}].id") for index, one in enumerate(body.inputs)]
        answers = await self._predict(feed, body.inputs, version, asked)
        if version is None and parts.collector.wants(feed):
            self._collect(feed, body.inputs, ids, answers)
        shown = _explained if asked is Asked.EXPERTS else _prediction
        return reply(PredictReply([shown(one.id, got) for one, got in zip(body.inputs, answers, strict=True)]))

    async def _predict(
        self, feed: str, inputs: Sequence[PredictInput], version: int | None, asked: Asked
    ) -> list[Answer]:
        limit = self._parts.section.max_inputs_per_request
        if len(inputs) > limit:
            message = f"inputs: {len(inputs)} are more than {limit} (serve.max_inputs_per_request): send them in parts"
            raise BadInput("too_many_inputs", message, status=413)
        loaded = version is None or self._parts.engine.resident(feed, version)
        admission = self._live if loaded else self._loading
        return await admission.run(partial(self._admit, feed, inputs, version, asked), inputs)

    def _admit(
        self, feed: str, inputs: Sequence[PredictInput], version: int | None, asked: Asked
    ) -> "Future[list[Answer]]":
        limit = self._parts.section.max_text_bytes
        texts = [cleaned_text(one.text, index, limit) for index, one in enumerate(inputs)]
        return self._parts.engine.submit(feed, texts, version, asked)

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
                    pulse=answer.pulse,
                    feature=answer.feature if self._parts.feeds[feed].serve.features else None,
                ),
                one.text,
            )
            for one, event_id, answer in zip(inputs, ids, answers, strict=True)
            if event_id is not None
        ]
        if kept:
            self._parts.collector.offer(kept)


class _Labeller:
    """POST /labels. A body may hold a hundred thousand labels, so threads read it, not the event loop; and an append
    may hold its thread for half a minute when Kafka is gone, so only a few may wait."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._workers = ThreadPoolExecutor(APPENDS_AT_ONCE, thread_name_prefix="labels")
        self._names = {feed: LabelNames.of(section) for feed, section in parts.feeds.items()}
        self._pending = 0  # touched by the event loop only

    async def accept(self, feed: str, request: Request, vouched: bool) -> Response:
        """`vouched`: the request may name a labeller of `labels.trusted`."""
        self._parts.engine.labels(feed)  # 404 for an unknown feed
        body = await read_body(request, self._parts.section.max_body_bytes)
        claimable = frozenset() if vouched else self._parts.trusted
        accepted = await self._when_free(partial(self._append, feed, claimable, body, self._parts.clock.now()))
        return reply(LabelsReply(accepted), 202)

    async def _when_free(self, append: Callable[[], int]) -> int:
        """What `append` returns, done by a thread. Overloaded when too many requests wait for the topics."""
        if self._pending >= MAX_PENDING_APPENDS:
            metrics.OVERLOADED.inc()
            raise Overloaded(f"{self._pending} requests with labels wait for the topics: send them again later", 1.0)
        appended = asyncio.get_running_loop().run_in_executor(self._workers, append)
        self._pending += 1
        appended.add_done_callback(self._appended)
        return await appended

    def _append(self, feed: str, refused: frozenset[str], given: bytes, now: datetime) -> int:
        """Durable when it returns; how many. BadInput for the first label that is wrong, or whose labeller is among
        `refused`; TopicUnavailable."""
        body = parse(given, LabelsRequest, LABELS_EXAMPLE)
        records = [self._record(feed, one, f"labels[{index}]", refused, now) for index, one in enumerate(body.labels)]
        self._parts.topics.append(self._parts.names[feed].labels, records)
        return len(records)

    def _record(self, feed: str, one: LabelInput, key: str, refused: frozenset[str], now: datetime) -> Outgoing:
        event_id = checked_id(one.id, f"{key}.id")
        if event_id is None:
            raise BadInput("empty_id", f"{key}.id is empty: give the event's id")
        names = self._names[feed]
        label = names.known(str(one.label))
        if label is None:
            message = f"{key}.label = {one.label!r:.80} {names.refusal(str(one.label))}"
            raise BadInput("unknown_label", f"feed {feed!r}: {message}")
        if labeller_name(one.labeller) in refused:
            message = f"{key}.labeller = {one.labeller!r:.80} is among labels.trusted, whose labels correct all others"
            remedy = "send it with the token of DRIFTLINE_ADMIN_TOKEN, or leave the labeller out"
            raise BadInput("trusted_labeller", f"{message}: {remedy}", status=403)
        return encode_label(event_id, label, now, one.labeller)

    def _appended(self, _: "asyncio.Future[int]") -> None:
        self._pending -= 1


def _prediction(given_id: str | int | None, answer: Answer) -> PredictionReply:
    return PredictionReply(
        id=given_id,
        label=answer.label,
        scores=answer.scores,
        adapter_version=answer.adapter_version,
        pulse=answer.pulse,
    )


def _explained(given_id: str | int | None, answer: Answer) -> PredictionReply:
    experts = {name: ExpertReply(one.scores, one.weight) for name, one in answer.experts.items()}
    return msgspec.structs.replace(_prediction(given_id, answer), experts=experts, bias=answer.bias)
