"""`driftline serve` as a process: SIGTERM under load drops no request, and the process ends with 0."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from driftline.artefact.manifest import load_or_create_keys
from driftline.base import load_base
from driftline.config import BaseModelConfig
from driftline.names import Keys, StateFiles
from driftline.registry import Registry, connect
from tests.fixtures.replicas import WITHIN_S, eventually
from tests.fixtures.versions import Publisher, random_weights

STARTED_WITHIN_S = 120.0
PATIENT = """
import runpy
import serving.server
serving.server.QUIET_WITHIN_S = 30.0
runpy.run_module("driftline.cli", run_name="__main__")
"""
"""The verb, but a client that the machine starves while the process drains is not taken for an idle one."""


class ServeProcess:
    """The verb in a process of its own, on ports that the system chose."""

    def __init__(self, config: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        command = [
            sys.executable,
            "-c",
            PATIENT,
            "serve",
            "-c",
            str(config),
            "--port",
            "0",
            "--admin-port",
            "0",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines: list[str] = []
        self._listening = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._listening.wait(STARTED_WITHIN_S), "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line)
                found = re.search(r"http://127\.0\.0\.1:\d+", line) if "listening" in line else None
                if found and not self.url:
                    urls = re.findall(r"\burl\W+(http://127\.0\.0\.1:\d+)", line)
                    self.url = urls[0] if urls else found.group(0)
                    self._listening.set()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(WITHIN_S)


@pytest.fixture
def topics_section() -> str:
    return ""


@pytest.fixture
def serving(
    redis_url: str, unique: str, tiny_base_dir: Path, tmp_path: Path, topics_section: str
) -> Iterator[ServeProcess]:
    config = tmp_path / "driftline.toml"
    config.write_text(
        f"""
        [base]
        model = {json.dumps(str(tiny_base_dir))}
        device = "cpu"
        [redis]
        url = {json.dumps(redis_url)}
        prefix = "{unique}"
        {topics_section}
        [feed.f]
        labels = ["negative", "neutral", "positive"]
        """
    )
    (tmp_path / "state").mkdir(mode=0o700)
    signer = load_or_create_keys(StateFiles(tmp_path / "state"))
    base = load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))
    client = connect(redis_url, unique)
    publisher = Publisher(Registry(client, Keys(unique)), signer, base, tiny_base_dir, "f")
    publisher.publish(random_weights(base, 3, seed=1))
    publisher.close()
    client.close()
    process = ServeProcess(config)
    yield process
    process.kill()


def test_what_takes_long_at_the_start_is_announced(serving: ServeProcess, tiny_base_dir: Path) -> None:
    told = [line for line in serving.lines if "loading_base_model" in line or "listening" in line]
    assert "loading_base_model" in told[0]
    assert str(tiny_base_dir) in told[0]
    assert "listening" in told[1]


def test_sigterm_under_load_drops_no_request(serving: ServeProcess) -> None:
    assert eventually(lambda: httpx.get(f"{serving.url}/readyz", timeout=WITHIN_S).status_code == 200)
    warm = threading.Barrier(5)

    def hammer(_: int) -> int:
        answered = 0
        with httpx.Client(timeout=WITHIN_S, limits=httpx.Limits(keepalive_expiry=None)) as client:
            while True:
                body = {"inputs": [{"text": "good phone"}, {"text": "bad service"}]}
                try:
                    response = client.post(f"{serving.url}/v1/feeds/f/predict", json=body)
                except httpx.ConnectError:  # the port is closed: this request was never taken
                    return answered
                assert response.status_code == 200
                assert [one["adapter_version"] for one in response.json()["predictions"]] == [1, 1]
                answered += 1
                if answered == 10:
                    warm.wait(WITHIN_S)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(hammer, number) for number in range(4)]
        warm.wait(WITHIN_S)
        assert serving.end() == 0, "".join(serving.lines)
        assert all(client.result() >= 10 for client in clients)
    assert not any("Traceback" in line for line in serving.lines)


NO_BROKER = """[topics]
        kind = "kafka"
        bootstrap_servers = "127.0.0.1:1"
        client = {bootstrap_timeout_ms = 500}"""


@pytest.mark.parametrize("topics_section", [NO_BROKER])
def test_without_kafka_it_starts_and_answers_and_labels_are_asked_for_again(serving: ServeProcess) -> None:
    assert eventually(lambda: httpx.get(f"{serving.url}/readyz", timeout=WITHIN_S).status_code == 200)
    asked = httpx.post(f"{serving.url}/v1/feeds/f/predict", json={"inputs": [{"text": "good phone"}]}, timeout=WITHIN_S)
    assert asked.json()["predictions"][0]["adapter_version"] == 1
    body = {"labels": [{"id": "a", "label": "neutral"}]}
    refused = httpx.post(f"{serving.url}/v1/feeds/f/labels", json=body, timeout=WITHIN_S)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "topic_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert serving.end() == 0, "".join(serving.lines)
