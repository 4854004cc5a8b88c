"""Requests that no honest client sends, on raw sockets against both ports of a real server: each is answered 4xx within
seconds, none 500, and the server answers the next honest one."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from driftline.artefact.manifest import Signer, Trust
from driftline.base import Base
from driftline.registry import Registry
from driftline.topics.files import FileTopics
from serving.server import Server
from tests.fixtures.replicas import Replica, feed_config
from tests.fixtures.versions import Publisher, random_weights

ANSWERED_WITHIN_S = 10.0
MAX_BODY_BYTES = 200_000
BODY = b'{"inputs": [{"text": "good phone"}]}'


@pytest.fixture
def server(registry: Registry, signer: Signer, base: Base, tmp_path: Path, trainer: Publisher) -> Iterator[Server]:
    trainer.publish(random_weights(base, 3, seed=1))
    trust = Trust.of(signer.public_key)
    with Replica(registry, trust, base, {"f": feed_config()}, tmp_path, max_body_bytes=MAX_BODY_BYTES) as replica:
        yield replica.serve(FileTopics(tmp_path / "topics"))


def answer(url: str, request: bytes) -> tuple[int, bytes]:
    """(status, what follows the head) of the first final answer to these bytes; (400, nothing) where the server hung up
    on what it would not read. TimeoutError if nothing comes."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), ANSWERED_WITHIN_S) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answered before it had read all of this
            connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received or not _whole(received):
            try:
                more = connection.recv(1 << 16)
            except ConnectionResetError:
                return 400, b""
            if not more:
                break
            received += more
            received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def _whole(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0])


def request(path: str, *headers: bytes, body: bytes = b"", host: bytes = b"Host: x") -> bytes:
    head = [f"POST {path} HTTP/1.1".encode(), *([host] if host else []), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)

ATTACKS: dict[str, tuple[bytes, tuple[int, ...], str]] = {
    # what is sent, the statuses that are right, the code of our error where it is ours
    "broken origin": (request("PATH", b"Origin: http://[::1", LENGTH, body=BODY), (400,), "bad_origin"),
    "origin of a foreign kind": (request("PATH", b"Origin: http://[zz]:1", LENGTH, body=BODY), (400,), "bad_origin"),
    "origin with a port beyond all": (request("PATH", b"Origin: http://a:99999999", LENGTH, body=BODY), (403,), ""),
    "length beyond any integer": (request("PATH", b"Content-Length: 99999999999999999999"), (400,), "bad_length"),
    "length of 19 digits": (request("PATH", b"Content-Length: 9999999999999999999"), (400,), "bad_length"),
    "length of a terabyte": (request("PATH", b"Content-Length: 1000000000000"), (413,), "body_too_large"),
    "negative length": (request("PATH", b"Content-Length: -5", body=BODY), (400,), ""),
    "length in words": (request("PATH", b"Content-Length: many", body=BODY), (400,), ""),
    "two lengths": (request("PATH", LENGTH, b"Content-Length: 1", body=BODY), (400,), ""),
    "length and chunks": (request("PATH", LENGTH, CHUNKED, body=CHUNKS), (400,), "ambiguous_length"),
    "chunks of no number": (request("PATH", CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"), (400,), ""),
    "a chunk of exabytes": (request("PATH", CHUNKED, body=b"f" * 30 + b"\r\nabc\r\n"), (400,), ""),
    "coding unknown": (request("PATH", b"Transfer-Encoding: gzip", body=BODY), (400, 501), ""),
    "no host": (request("PATH", LENGTH, body=BODY, host=b""), (400,), ""),
    "two hosts": (request("PATH", b"Host: y", LENGTH, body=BODY), (400,), ""),
    "a header of a megabyte": (request("PATH", b"X: " + b"x" * 1_000_000, LENGTH, body=BODY), (400, 431), ""),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n", (400,), ""),
    "path of nonsense": (request("/v1/feeds/%ff%00%0a%zz/predict", LENGTH, body=BODY), (404,), ""),
    "path of 60 kB": (request("/v1/feeds/" + "f" * 60_000 + "/predict", LENGTH, body=BODY), (404,), ""),
    "path that climbs": (request("/v1/feeds/../../etc/passwd", LENGTH, body=BODY), (404,), "not_found"),
    "absolute target": (request("http://[::1/v1", LENGTH, body=BODY), (404,), ""),
}
HARMLESS: dict[str, bytes] = {
    # strange, and to be answered like any other request: never 5xx
    "broken host": request("PATH", LENGTH, body=BODY, host=b"Host: [::1"),
    "host of bytes": request("PATH", LENGTH, body=BODY, host=b"Host: \xff\xfe"),
    "broken host and a slash too many": request("PATH/", LENGTH, body=BODY, host=b"Host: [::1"),
    "strange authorization": request("PATH", b"Authorization: Bearer \xff\xfe\x80", LENGTH, body=BODY),
    "authorization without a scheme": request("PATH", b"Authorization: \xe4", LENGTH, body=BODY),
    "ten thousand headers": request("PATH", *[b"X: y"] * 10_000, LENGTH, body=BODY),
    "path of raw bytes": request("PATH", LENGTH, body=BODY).replace(b"PATH", b"/v1/feeds/\xff\xfe/predict"),
    "chunks": request("PATH", CHUNKED, body=CHUNKS),
    "expects to be told to continue": request("PATH", b"Expect: 100-continue", LENGTH, body=BODY),
    "surrogate in a key": request("PATH", b"Content-Length: 13", body=b'{"\\ud800": 1}'),
    "surrogate in a value": request("PATH", b"Content-Length: 25", body=b'{"adapter_version": "\\ud800"}'[:25]),
    "not utf-8": request("PATH", b"Content-Length: 13", body=b'{"reason":"\xff"'[:13]),
}


@pytest.mark.parametrize(("port", "path"), [("url", "/v1/feeds/f/predict"), ("admin_url", "/v1/feeds/f/pause")])
def test_what_is_no_honest_request_is_refused_at_once_and_never_with_500(server: Server, port: str, path: str) -> None:
    url = getattr(server, port)
    for name, (sent, statuses, code) in ATTACKS.items():
        status, body = answer(url, sent.replace(b"PATH", path.encode(), 1))
        assert status in statuses, (name, status, body)
        if code:
            assert json.loads(body)["error"]["code"] == code, (name, body)
    for name, sent in HARMLESS.items():
        status, body = answer(url, sent.replace(b"PATH", path.encode(), 1))
        assert status < 500, (name, status, body)
    honest = httpx.post(f"{server.url}/v1/feeds/f/predict", content=BODY)
    assert honest.status_code == 200, "the server goes on"


def test_a_broken_origin_is_told_by_the_reading_routes_too(server: Server) -> None:
    for url in (f"{server.url}/v1/feeds", f"{server.admin_url}/v1/status"):
        response = httpx.get(url, headers={"Origin": "http://[::1"})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_origin")


@pytest.mark.parametrize("field", ["reason", "actor"])
def test_half_a_surrogate_pair_in_an_order_is_refused(server: Server, field: str) -> None:
    response = httpx.post(f"{server.admin_url}/v1/feeds/f/pause", content=b'{"%s": "\\ud800"}' % field.encode())
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_body")


def test_a_body_that_is_too_large_by_its_own_word_is_not_waited_for(server: Server) -> None:
    """The length alone decides; not one byte of the body is sent."""
    for url, path in ((server.url, "/v1/feeds/f/labels"), (server.admin_url, "/v1/feeds/f/pause")):
        declared = b"Content-Length: %d" % (MAX_BODY_BYTES * 16 + 1)
        status, body = answer(url, request(path, declared))
        assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
