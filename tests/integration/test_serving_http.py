"""The HTTP interface of a real server with a real Redis and topic files, as a client sees it."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

import serving.app
from driftline.artefact.manifest import Signer, Trust, decode_manifest, load_or_create_keys
from driftline.base import Base
from driftline.errors import ConfigError
from driftline.names import Keys, StateFiles
from driftline.registry import Registry, connect
from driftline.topics import Outgoing
from driftline.topics.files import FileTopics
from serving.auth import Tokens
from serving.collect import Collector
from serving.server import Server
from tests.fixtures.replicas import LABELS, Gate, Replica, eventually, feed_config, topic_names
from tests.fixtures.versions import Publisher, random_weights


@pytest.fixture
def topics(tmp_path: Path) -> FileTopics:
    return FileTopics(tmp_path / "topics")


@pytest.fixture
def trainer(trainer: Publisher, base: Base) -> Publisher:
    trainer.publish(random_weights(base, 3, seed=1))
    return trainer


@pytest.fixture
def replica(
    registry: Registry,
    signer: Signer,
    base: Base,
    tmp_path: Path,
    trainer: Publisher,  # noqa: ARG001 - publishes version 1
) -> Iterator[Replica]:
    feeds = {"f": feed_config(), "kept": feed_config(serve={"collect": True}, fields={"text": "body.review"})}
    limits = {"max_body_bytes": 200_000, "max_text_bytes": 50_000, "max_inputs_per_request": 32, "max_queue_inputs": 8}
    with Replica(registry, Trust.of(signer.public_key), base, feeds, tmp_path, **limits) as replica:
        yield replica


@pytest.fixture
def server(replica: Replica, topics: FileTopics) -> Server:
    return replica.serve(topics)


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def admin(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.admin_url, timeout=30) as client:
        yield client


def predict(client: httpx.Client, *texts: str, **body: Any) -> httpx.Response:
    return client.post("/v1/feeds/f/predict", json={"inputs": [{"text": text} for text in texts], **body})


def records(topics: FileTopics, topic: str) -> list[dict[str, Any]]:
    path = topics._data(topic)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def error(response: httpx.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    document = response.json()
    assert set(document) == {"error"}
    assert document["error"]["code"] == code
    return str(document["error"]["message"])


# --- answers


def test_answers_name_their_version_and_equal_peft(client: httpx.Client, trainer: Publisher) -> None:
    inputs = [{"id": "r-17", "text": "good phone"}, {"text": "bad\u0000  service\n"}, {"id": 5, "text": "slow", "x": 1}]
    response = client.post("/v1/feeds/f/predict", json={"inputs": inputs})
    assert response.status_code == 200
    predictions = response.json()["predictions"]
    assert [one["id"] for one in predictions] == ["r-17", None, 5]
    expected = trainer.scores(1, ["good phone", "bad service", "slow"])  # cleaned as events are
    for one, row in zip(predictions, expected.tolist(), strict=True):
        assert one["adapter_version"] == 1
        assert list(one["scores"]) == list(LABELS)
        assert list(one["scores"].values()) == pytest.approx(row, abs=1e-4)
        assert one["label"] == LABELS[row.index(max(row))]
    assert client.post("/v1/feeds/f/predict", json={"inputs": []}).json() == {"predictions": []}


def test_a_version_can_be_asked_for(client: httpx.Client, trainer: Publisher, base: Base, replica: Replica) -> None:
    trainer.publish(random_weights(base, 3, seed=2))
    assert eventually(lambda: replica.live("f") == 2)
    for version in (1, 2, 0):
        [answer] = predict(client, "good phone", adapter_version=version).json()["predictions"]
        assert answer["adapter_version"] == version
    assert answer["label"] is None
    assert set(answer["scores"].values()) == {1 / 3}
    assert "from 1 to 2" in error(predict(client, "x", adapter_version=9), 404, "unknown_version")
    error(predict(client, "x", adapter_version=-1), 422, "invalid_body")
    inputs = [{"text": "x"}, {"text": "x", "adapter_version": 1}]
    response = client.post("/v1/feeds/f/predict", json={"inputs": inputs})
    assert "inputs[1].adapter_version: it belongs beside `inputs`" in error(response, 422, "misplaced_field")


def test_labels_go_onto_their_topic(client: httpx.Client, topics: FileTopics) -> None:
    body = {"labels": [{"id": "r-17", "label": "negative"}, {"id": 18, "label": "positive", "labeller": "ana"}]}
    response = client.post("/v1/feeds/f/labels", json=body)
    assert (response.status_code, response.json()) == (202, {"accepted": 2})
    first, second = records(topics, "f.labels")
    assert (first["id"], first["label"]) == ("r-17", "negative")
    assert (second["id"], second["label"], second["labeller"]) == ("18", "positive", "ana")
    body = {"labels": [{"id": "r-17", "label": "negative"}, {"id": "r-18", "label": "angry"}]}
    message = error(client.post("/v1/feeds/f/labels", json=body), 422, "unknown_label")
    assert "labels[1].label = 'angry'" in message
    assert "negative, neutral, positive" in message
    error(client.post("/v1/feeds/f/labels", json={"labels": [{"id": "", "label": "negative"}]}), 422, "empty_id")
    error(client.post("/v1/feeds/f/labels", json={"labels": [{"label": "negative"}]}), 422, "invalid_body")
    error(client.post("/v1/feeds/g/labels", json=body), 404, "unknown_feed")
    assert len(records(topics, "f.labels")) == 2, "a refused request leaves nothing"


def test_health_readiness_and_metrics(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["feeds"]["f"] == {
        "ready": True,
        "version": 1,
        "revision": 1,
        "pulse": 0,
        "fell_back": False,
        "refused": None,
    }
    predict(client, "good phone")
    text = client.get("/metrics").text
    for name in (
        "driftline_requests_total",
        "driftline_batch_rows",
        "driftline_swap_pause_ms",
        "driftline_live_version",
    ):
        assert f"# TYPE {name.removesuffix('_total')}" in text or f"# TYPE {name}" in text
    assert 'driftline_live_version{feed="f"} 1.0' in text
    assert "driftline_ingest" not in text, "another process's"
    assert "/v1/feeds/{feed}/predict" in text


# --- what the schema says


def test_the_feeds_are_listed(client: httpx.Client) -> None:
    listed = client.get("/v1/feeds").json()["feeds"]
    assert [(one["feed"], one["labels"], one["task"], one["ready"]) for one in listed] == [
        ("f", list(LABELS), "classification", True),
        ("kept", list(LABELS), "classification", True),
    ]
    assert listed[0]["version"] == 1


def strictly(document: Any, schema: dict[str, Any], where: str = "$") -> None:
    """Fails unless the document has exactly what an inlined JSON schema (of objects, lists, scalars) says."""
    if "anyOf" in schema:
        kinds = [one for one in schema["anyOf"] if fits(document, one)]
        assert kinds, f"{where}: {document!r} fits none of {schema['anyOf']}"
        return strictly(document, kinds[0], where)
    assert fits(document, schema), f"{where}: {document!r} is no {schema['type']}"
    if schema.get("type") == "array":
        for index, one in enumerate(document):
            strictly(one, schema["items"], f"{where}[{index}]")
    elif schema.get("type") == "object" and "properties" in schema:
        assert set(schema["required"]) <= set(document) <= set(schema["properties"]), where
        for name, one in document.items():
            strictly(one, schema["properties"][name], f"{where}.{name}")
    elif schema.get("type") == "object":
        for name, one in document.items():
            strictly(one, schema["additionalProperties"], f"{where}.{name}")
    return None


def fits(value: Any, schema: dict[str, Any]) -> bool:
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    if schema["type"] == "null":
        return value is None
    return isinstance(value, kinds[schema["type"]]) and isinstance(value, bool) == (schema["type"] == "boolean")


def test_every_answer_is_what_the_schema_says(client: httpx.Client, admin: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"] | admin.get("/openapi.json").json()["paths"]
    asked: dict[tuple[str, str], tuple[httpx.Client, Any]] = {
        ("get", "/v1/feeds"): (client, None),
        ("post", "/v1/feeds/{feed}/predict"): (client, {"inputs": [{"id": 5, "text": "ok"}, {"text": "bad"}]}),
        ("post", "/v1/feeds/{feed}/labels"): (client, {"labels": [{"id": "a", "label": LABELS[0]}]}),
        ("get", "/healthz"): (client, None),
        ("get", "/readyz"): (client, None),
        ("get", "/v1/status"): (admin, None),
        ("post", "/v1/feeds/{feed}/{verb}"): (admin, {"reason": "why", "actor": "ana"}),
    }
    described = {(method, path) for path, methods in paths.items() for method in methods} - {("get", "/metrics")}
    assert set(asked) == described
    for (method, path), (where, body) in asked.items():
        answer = where.request(method, path.replace("{feed}", "f").replace("{verb}", "pause"), json=body)
        responses = paths[path][method]["responses"]
        also = {"202"} if path.endswith("{verb}") else set()  # update-now
        assert set(responses) == {str(answer.status_code), "default"} | also, path
        content = responses[str(answer.status_code)]["content"]["application/json"]
        strictly(answer.json(), content["schema"])
        strictly(content["example"], content["schema"])
        wrong = where.request(method, path.replace("{feed}", "g").replace("{verb}", "pause"), json=body)
        if wrong.is_error:
            strictly(wrong.json(), responses["default"]["content"]["application/json"]["schema"])


# --- mistakes


BAD_BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "not json": (b"{", 400, "invalid_json", "expected"),
    "not utf-8": (b'{"inputs": [{"text": "\xff"}]}', 400, "invalid_json", "expected"),
    "deep": (b"[" * 100_000, 400, "invalid_json", "expected"),
    "empty": (b"", 400, "invalid_json", "the body is empty; expected"),
    "not an object": (b"[]", 422, "invalid_body", "object"),
    "no inputs": (b"{}", 422, "invalid_body", "inputs"),
    "typo": (b'{"inputs": [], "adapter_verison": 1}', 422, "invalid_body", "adapter_verison"),
    "wrong type": (b'{"inputs": [{"text": 5}]}', 422, "invalid_body", "$.inputs[0].text"),
    "no text": (b'{"inputs": [{"id": "a"}]}', 422, "invalid_body", "text"),
    "long id": (json.dumps({"inputs": [{"id": "x" * 513, "text": "a"}]}).encode(), 422, "id_too_long", "513 bytes"),
    "empty text": (b'{"inputs": [{"text": "ok"}, {"text": " \\u0000 "}]}', 422, "empty_text", "inputs[1].text"),
    "long text": (json.dumps({"inputs": [{"text": "x" * 50_001}]}).encode(), 413, "text_too_long", "50001 bytes"),
    "many inputs": (json.dumps({"inputs": [{"text": "x"}] * 33}).encode(), 413, "too_many_inputs", "33"),
    "five megabytes": (json.dumps({"inputs": [{"text": "x" * 5_000_000}]}).encode(), 413, "body_too_large", "200000"),
}


def test_a_wrong_body_is_answered_with_what_helps(client: httpx.Client) -> None:
    for name, (body, status, code, hint) in BAD_BODIES.items():
        response = client.post("/v1/feeds/f/predict", content=body)
        assert hint in error(response, status, code), name
    assert predict(client, "good phone").status_code == 200


def test_bodies_without_content_length_are_bounded_too(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"inputs": [{"text": "'
        for _ in range(300):
            yield b"x" * 1000
        yield b'"}]}'

    error(client.post("/v1/feeds/f/predict", content=chunks()), 413, "body_too_large")


def test_surrogates_and_odd_unicode_are_cleaned_not_refused(client: httpx.Client) -> None:
    body = b'{"inputs": [{"text": "good \\ud83d phone"}, {"text": "good phone"}]}'
    first, second = client.post("/v1/feeds/f/predict", content=body).json()["predictions"]
    assert list(first["scores"].values()) == pytest.approx(list(second["scores"].values()), abs=1e-5)


def test_unknown_paths_methods_and_feeds(client: httpx.Client) -> None:
    assert "known feeds: f, kept" in error(client.post("/v1/feeds/g/predict", json={"inputs": []}), 404, "unknown_feed")
    error(client.get("/v1/nothing"), 404, "not_found")
    error(client.get("/v1/feeds/f/predict"), 405, "method_not_allowed")


def test_a_full_queue_answers_429_and_when_to_come_back(client: httpx.Client, replica: Replica) -> None:
    gate = Gate(replica.engine)
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(predict, client, "first")]
        assert gate.entered.wait(30)
        held.append(pool.submit(predict, client, *["waits"] * 8))
        assert eventually(lambda: replica.engine.queued_inputs == 8)
        response = predict(client, "one too many")
        assert "serve.max_queue_inputs" in error(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        gate.open()
        assert [one.result().status_code for one in held] == [200, 200]


class HeldCleaning:
    """Cleaning that waits until it is let go, so that requests wait before the engine's queue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Semaphore(0), threading.Event()
        self._clean = serving.app.cleaned_text
        monkeypatch.setattr("serving.app.cleaned_text", self._held)

    def _held(self, text: str, index: int, max_bytes: int) -> str:
        self.entered.release()
        assert self.go.wait(30)
        return self._clean(text, index, max_bytes)


@pytest.mark.parametrize(
    ("waiting", "more", "hint"),
    [
        (["x"] * 7, ["x"] * 2, "7 inputs wait already, 8 may (serve.max_queue_inputs)"),
        (["é" * 20_000] * 4, ["a" * 45_000] * 3, "80000 characters wait to be cleaned already, 200000 may"),
    ],
)
def test_what_waits_to_be_cleaned_is_bounded_too(
    replica: Replica,
    topics: FileTopics,
    monkeypatch: pytest.MonkeyPatch,
    waiting: list[str],
    more: list[str],
    hint: str,
) -> None:
    monkeypatch.setattr("serving.app.MAX_ADMITTING_BODIES", 1)
    cleaning = HeldCleaning(monkeypatch)
    server = replica.serve(topics)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url, timeout=30) as client:
        held = pool.submit(predict, client, *waiting)
        assert cleaning.entered.acquire(timeout=30)
        try:
            response = predict(client, *more)
            assert client.get("/healthz").status_code == 200
        finally:
            cleaning.go.set()
        assert hint in error(response, 429, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert held.result().status_code == 200
        assert eventually(lambda: predict(client, *more).status_code == 200)


def test_before_the_registry_was_read_nothing_is_answered(
    base: Base, signer: Signer, topics: FileTopics, tmp_path: Path
) -> None:
    nowhere = Registry(connect(f"unix://{tmp_path}/no.sock", "x"), Keys("x"))
    with Replica(nowhere, Trust.of(signer.public_key), base, {"f": feed_config()}, tmp_path) as replica:
        server = replica.serve(topics, ready=False)
        with httpx.Client(base_url=server.url, timeout=30) as client:
            response = client.get("/readyz")
            assert response.status_code == 503
            assert response.json()["status"] == "not_ready"
            assert eventually(
                lambda: "RegistryUnavailable" in str(client.get("/readyz").json()["feeds"]["f"]["refused"])
            )
            refused = predict(client, "good phone")
            error(refused, 503, "not_ready")
            assert refused.headers["retry-after"] == "1"
            assert client.get("/healthz").status_code == 200
        with httpx.Client(base_url=server.admin_url, timeout=30) as admin:
            error(admin.post("/v1/feeds/f/pause"), 503, "registry_unavailable")
            assert admin.get("/v1/status").json()["live"] is None


def test_a_bug_is_answered_500_and_logged(replica: Replica, topics: FileTopics) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    replica.engine.submit = broken  # type: ignore[method-assign]
    server = replica.serve(topics)
    with structlog.testing.capture_logs() as logged, httpx.Client(base_url=server.url, timeout=30) as client:
        assert "see the server's log" in error(predict(client, "good phone"), 500, "internal")
    [entry] = [entry for entry in logged if entry["event"] == "request_broke"]
    assert (entry["path"], str(entry["exc_info"])) == ("/v1/feeds/f/predict", "a bug")


# --- who may do what


def test_tokens_are_asked_for_and_compared(replica: Replica, topics: FileTopics) -> None:
    server = replica.serve(topics, Tokens(predict="p-token", label="l-token", admin="a-token"))
    with (
        httpx.Client(base_url=server.url, timeout=30) as client,
        httpx.Client(base_url=server.admin_url, timeout=30) as admin,
    ):
        asked = {
            "p-token": lambda headers: client.post("/v1/feeds/f/predict", json={"inputs": []}, headers=headers),
            "l-token": lambda headers: client.post("/v1/feeds/f/labels", json={"labels": []}, headers=headers),
            "a-token": lambda headers: admin.post("/v1/feeds/f/pause", json={}, headers=headers),
        }
        for token, ask in asked.items():
            for wrong in (
                {},
                {"Authorization": token},
                {"Authorization": "Bearer other"},
                {"Authorization": "Bearer"},
            ):
                response = ask(wrong)
                assert "_TOKEN" in error(response, 401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
            opens = {token, "a-token"} if token == "l-token" else {token}  # who may administer may label
            for other in set(asked) - opens:
                assert ask({"Authorization": f"Bearer {other}"}).status_code == 401
            assert ask({"Authorization": f"Bearer {token}"}).status_code < 300
        error(admin.get("/v1/status"), 401, "unauthorized")
        assert client.get("/healthz").status_code == 200


def test_only_who_may_administer_may_name_a_trusted_labeller(replica: Replica, topics: FileTopics) -> None:
    server = replica.serve(topics, Tokens(label="l-token", admin="a-token"), trusted=frozenset({"boss"}))

    def post(labeller: str, token: str) -> httpx.Response:
        body = {"labels": [{"id": "a", "label": "negative"}, {"id": "b", "label": "positive", "labeller": labeller}]}
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{server.url}/v1/feeds/f/labels", json=body, headers=headers, timeout=30)

    message = error(post("boss", "l-token"), 403, "trusted_labeller")
    assert "labels[1].labeller = 'boss'" in message
    assert "DRIFTLINE_ADMIN_TOKEN" in message
    assert records(topics, "f.labels") == [], "a refused request leaves nothing"
    assert post("Boss", "l-token").status_code == 202, "another name, which nobody trusts"
    assert post("boss", "a-token").status_code == 202
    assert [one.get("labeller") for one in records(topics, "f.labels")] == [None, "Boss", None, "boss"]


def test_web_pages_of_other_origins_are_refused_where_there_is_no_token(admin: httpx.Client) -> None:
    for origin in ("https://example.org", "null"):
        error(admin.post("/v1/feeds/f/pause", json={}, headers={"Origin": origin}), 403, "foreign_origin")
    assert admin.post("/v1/feeds/f/pause", json={}, headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_off_loopback_all_tokens_are_needed() -> None:
    assert Tokens.from_environment({}, "127.0.0.1") == Tokens()
    assert Tokens.from_environment({}, "localhost") == Tokens()
    assert Tokens.from_environment({}, "::1") == Tokens()
    for host in ("0.0.0.0", "10.1.2.3", "::", "myhost", ""):
        with pytest.raises(ConfigError, match="DRIFTLINE_ADMIN_TOKEN"):
            Tokens.from_environment({"DRIFTLINE_PREDICT_TOKEN": "x", "DRIFTLINE_LABEL_TOKEN": "y"}, host)
    every = {f"DRIFTLINE_{verb}_TOKEN": verb for verb in ("PREDICT", "LABEL", "ADMIN")}
    assert Tokens.from_environment(every, "0.0.0.0") == Tokens(predict="PREDICT", label="LABEL", admin="ADMIN")


# --- collecting


def test_collected_inputs_become_a_prediction_and_then_an_event(client: httpx.Client, topics: FileTopics) -> None:
    inputs = [{"id": "a", "text": "good &amp; cheap"}, {"text": "has no id"}, {"id": 7, "text": "bad"}]
    response = client.post("/v1/feeds/kept/predict", json={"inputs": inputs})
    assert response.status_code == 200
    client.post("/v1/feeds/kept/predict", json={"inputs": [{"id": "b", "text": "pinned"}], "adapter_version": 0})
    assert eventually(lambda: len(records(topics, "kept")) == 2)
    events, predictions = records(topics, "kept"), records(topics, "kept.predictions")
    assert [(e["id"], e["body"]["review"], e["driftline_collected"]) for e in events] == [
        ("a", "good &amp; cheap", True),
        ("7", "bad", True),
    ]
    assert [(p["id"], p["adapter_version"], p["label"], p["replica"]) for p in predictions] == [
        ("a", 0, None, "a"),
        ("7", 0, None, "a"),
    ]
    assert events[0]["timestamp"] == predictions[0]["timestamp"]
    assert records(topics, "f") == [], "feeds that do not collect keep nothing"


class FullDisk(FileTopics):
    """Topics that refuse to take anything until told otherwise."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.full = threading.Event()
        self.full.set()
        self.tried = threading.Event()

    def append(self, topic: str, records: Any) -> None:
        from driftline.errors import TopicUnavailable

        self.tried.set()
        if self.full.is_set():
            raise TopicUnavailable("the disk is full")
        super().append(topic, records)


def test_collecting_retries_overflows_with_a_count_and_drains_at_the_end(tmp_path: Path) -> None:
    from driftline import metrics
    from driftline.records import Prediction
    from tests.fixtures.versions import NOW

    def kept(number: int) -> tuple[Prediction, str]:
        scores = dict.fromkeys(LABELS, 1 / 3)
        return (
            Prediction(
                event_id=f"e{number}", feed="o", label=None, scores=scores, adapter_version=0, replica="a",
                predicted_at=NOW,
            ),
            "text",
        )  # fmt: skip

    topics = FullDisk(tmp_path)
    collector = Collector(topics, {"o": feed_config(serve={"collect": True})}, {"o": topic_names("o")}, max_waiting=3)
    collector.start()
    collector.offer([kept(1), kept(2)])
    assert topics.tried.wait(30)
    collector.offer([kept(3), kept(4), kept(5)])
    overflowed = metrics.SERVING.get_sample_value("driftline_collected_total", {"feed": "o", "outcome": "overflow"})
    assert overflowed == 2
    topics.full.clear()
    collector.close()
    assert [event["id"] for event in records(topics, "o")] == ["e1", "e2", "e3"]
    assert [prediction["id"] for prediction in records(topics, "o.predictions")] == ["e1", "e2", "e3"]


class Held(FileTopics):
    """Topics whose appends wait until they are let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entered, self.go = threading.Semaphore(0), threading.Event()

    def append(self, topic: str, records: Any) -> None:
        self.entered.release()
        assert self.go.wait(30)
        super().append(topic, records)


def post_label(client: httpx.Client, number: int) -> httpx.Response:
    return client.post("/v1/feeds/f/labels", json={"labels": [{"id": f"e{number}", "label": "neutral"}]})


def test_labels_wait_for_slow_topics_in_bounded_numbers(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.app.APPENDS_AT_ONCE", 1)
    monkeypatch.setattr("serving.app.MAX_PENDING_APPENDS", 1)
    topics = Held(tmp_path)
    server = replica.serve(topics)
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url, timeout=30) as client:
        held = pool.submit(post_label, client, 1)
        assert topics.entered.acquire(timeout=30)
        response = post_label(client, 2)
        error(response, 429, "overloaded")
        assert response.headers["retry-after"] == "1"
        topics.go.set()
        assert held.result().status_code == 202
        assert eventually(lambda: post_label(client, 2).status_code == 202)
    assert [record["id"] for record in records(topics, "f.labels")] == ["e1", "e2"]


def test_labels_that_topics_do_not_take_may_be_sent_again(replica: Replica, tmp_path: Path) -> None:
    topics = FullDisk(tmp_path)
    server = replica.serve(topics)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        response = post_label(client, 1)
        error(response, 503, "topic_unavailable")
        assert response.headers["retry-after"] == "1"
        topics.full.clear()
        assert post_label(client, 1).status_code == 202


# --- admin


def test_admin_verbs_change_the_live_record_and_are_audited(
    admin: httpx.Client, client: httpx.Client, trainer: Publisher, base: Base, replica: Replica, registry: Registry
) -> None:
    trainer.publish(random_weights(base, 3, seed=2))
    assert eventually(lambda: replica.live("f") == 2)
    order = {"reason": "complaints", "actor": "ana"}
    response = admin.post("/v1/feeds/f/rollback", json=order)
    assert response.status_code == 200
    assert (response.json()["version"], response.json()["revision"], response.json()["paused"]) == (1, 3, True)
    assert eventually(lambda: replica.engine.active("f") == (1, 3))
    assert predict(client, "good").json()["predictions"][0]["adapter_version"] == 1
    conflict = admin.post("/v1/feeds/f/promote", json={"version": 2, "expected_revision": 2})
    error(conflict, 409, "conflict")
    assert admin.post("/v1/feeds/f/promote", json={"version": 2, **order}).json()["revision"] == 4
    assert admin.post("/v1/feeds/f/resume", json=order).json()["paused"] is False
    assert admin.post("/v1/feeds/f/update-now").status_code == 202
    request = registry.update_request("f")
    assert request is not None
    registry.clear_update_request("f", request)
    assert admin.post("/v1/feeds/f/pause").json()["paused"] is True
    refused = error(admin.post("/v1/feeds/f/update-now"), 409, "paused")
    assert "(paused by the admin API): POST /v1/feeds/f/resume first" in refused
    assert registry.update_request("f") is None
    entries = [(entry.action, entry.actor, entry.reason) for entry in registry.audit("f")][2:]
    assert entries == [
        ("rolled_back", "ana", "complaints"),
        ("promoted", "ana", "complaints"),
        ("resumed", "ana", "complaints"),
        ("paused", "admin-api", "paused by the admin API"),
    ]
    assert eventually(lambda: admin.get("/v1/status").json()["replicas"])
    status = admin.get("/v1/status").json()
    assert status["live"]["f"]["version"] == 2
    assert eventually(lambda: admin.get("/v1/status").json()["feeds"]["f"]["version"] == 2)
    assert status["replicas"][0]["url"] == str(client.base_url).rstrip("/")


def test_admin_verbs_refuse_what_replicas_would_refuse(
    admin: httpx.Client, trainer: Publisher, base: Base, replica: Replica, registry: Registry, tmp_path: Path
) -> None:
    stranger = load_or_create_keys(StateFiles(tmp_path / "stranger"))
    trainer.publish(random_weights(base, 3, seed=2), signer=stranger)
    trainer.publish(random_weights(base, 3, seed=3))
    assert eventually(lambda: replica.live("f") == 3)
    before = registry.live("f")
    for verb, order in (("promote", {"version": 2}), ("rollback", {"version": 2}), ("rollback", {})):
        error(admin.post(f"/v1/feeds/f/{verb}", json=order), 409, "untrusted_key")
    assert registry.live("f") == before
    assert admin.post("/v1/feeds/f/rollback", json={"version": 1}).json()["version"] == 1
    assert eventually(lambda: replica.engine.active("f") == (1, 4))


def test_admin_verbs_say_that_a_version_is_no_longer_kept(
    admin: httpx.Client, trainer: Publisher, base: Base, registry: Registry, redis_url: str, unique: str
) -> None:
    trainer.publish(random_weights(base, 3, seed=2))
    trainer.publish(random_weights(base, 3, seed=3))
    gone = decode_manifest(registry.manifest("f", 2).document).parts["body"]
    connect(redis_url, unique).delete(Keys(unique).blob("f", gone))
    before = registry.live("f")
    for verb, order in (("promote", {"version": 2}), ("rollback", {"version": 2}), ("rollback", {})):
        message = error(admin.post(f"/v1/feeds/f/{verb}", json=order), 404, "unknown_version")
        assert "version 2 cannot go live: its blobs are no longer kept" in message
    assert registry.live("f") == before


def test_admin_verbs_say_that_redis_lost_what_was_promoted(
    admin: httpx.Client, trainer: Publisher, base: Base, redis_url: str, unique: str
) -> None:
    client, key = connect(redis_url, unique), Keys(unique).live("f")
    before = client.hgetall(key)
    trainer.publish(random_weights(base, 3, seed=2))
    client.hset(key, mapping=before)  # a Redis that was restored from before the promotion
    assert "Restore Redis" in error(admin.post("/v1/feeds/f/promote", json={"version": 1}), 409, "registry_lost")
    client.close()


def test_version_0_is_gone_back_to_and_not_promoted(admin: httpx.Client, registry: Registry) -> None:
    before = registry.live("f")
    assert "/v1/feeds/f/rollback" in error(admin.post("/v1/feeds/f/promote", json={"version": 0}), 422, "invalid_body")
    assert registry.live("f") == before
    assert admin.post("/v1/feeds/f/rollback", json={"version": 0}).json()["paused"] is True


def test_admin_mistakes(admin: httpx.Client, client: httpx.Client) -> None:
    error(admin.post("/v1/feeds/f/promote", json={}), 422, "missing_version")
    for verb in ("promote", "rollback"):
        assert ">= 0" in error(admin.post(f"/v1/feeds/f/{verb}", json={"version": -1}), 422, "invalid_body")
    assert "it has 1" in error(admin.post("/v1/feeds/f/promote", json={"version": 7}), 404, "unknown_version")
    assert "known verbs: promote" in error(admin.post("/v1/feeds/f/explode"), 404, "not_found")
    error(admin.post("/v1/feeds/g/pause"), 404, "unknown_feed")
    error(admin.post("/v1/feeds/f/rollback", json={"verison": 1}), 422, "invalid_body")
    error(client.post("/v1/feeds/f/rollback", json={}), 404, "not_found")


# --- life


def test_draining_answers_what_is_in_flight(replica: Replica, topics: FileTopics) -> None:
    server = replica.serve(topics)
    gate = Gate(replica.engine)
    with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=server.url, timeout=30) as client:
        flying = [pool.submit(predict, client, "first")]
        assert gate.entered.wait(30)
        flying += [pool.submit(predict, client, f"text {number}") for number in range(3)]
        assert eventually(lambda: replica.engine.queued_inputs == 3)
        replica.stop.set()
        assert eventually(lambda: _refused(server.url))
        gate.open()
        answers = [one.result() for one in flying]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert {answer.headers.get("connection") for answer in answers} == {"close"}


def test_clients_that_keep_connections_see_no_failure_while_draining(
    replica: Replica, topics: FileTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.server.QUIET_WITHIN_S", 30.0)  # a starved client is not taken for an idle one
    server = replica.serve(topics)
    started = threading.Barrier(5)

    def hammer(_: int) -> int:
        answered = 0
        with httpx.Client(base_url=server.url, timeout=30, limits=httpx.Limits(keepalive_expiry=None)) as client:
            while True:
                try:
                    assert predict(client, "good phone").status_code == 200
                except httpx.ConnectError:
                    return answered
                answered += 1
                if answered == 5:
                    started.wait(30)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(hammer, number) for number in range(4)]
        started.wait(30)
        replica.stop.set()
        assert all(one.result() >= 5 for one in clients)


def test_a_taken_port_is_a_config_error(replica: Replica, server: Server, topics: FileTopics) -> None:
    taken = int(server.url.rpartition(":")[2])
    replica.section = replica.section.model_copy(update={"port": taken})
    with pytest.raises(ConfigError, match=rf"serve\.port = {taken}"):
        replica.serve(topics)


def _refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=30)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:  # it was still in the backlog when the port closed: the next one is refused
        return False
    return False


def test_what_is_on_the_events_topic_is_untouched_by_http(client: httpx.Client, topics: FileTopics) -> None:
    topics.append("f", [Outgoing(value=b'{"id": "x", "text": "good"}')])
    predict(client, "good phone")
    assert len(records(topics, "f")) == 1
