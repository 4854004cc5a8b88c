"""An installation of Driftline as users have it: one config in a folder, and real processes of the command line."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import LABELS
from benchmarks.servers import die_with, end_process, wait_for
from driftline.config import Config, load_config
from tests.fixtures.ports import free_ports

FEED = "sentiment"
READY_WITHIN_S = 180.0
VERB_WITHIN_S = 300.0
DRAIN_WITHIN_S = 90.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the drills vary. `bootstrap` None: file topics. `min_examples` None: as Driftline decides itself."""

    redis_url: str
    bootstrap: str | None = None
    partitions: int = 1
    every_s: float = 5.0
    min_examples: int | None = 250
    max_examples: int = 500
    score: bool = True

    def toml(self, port: int, admin_port: int) -> str:
        """The config file. One engine thread per process: several processes share the cores here."""
        least = "" if self.min_examples is None else f"min_examples = {self.min_examples}\n"
        kafka = f'kind = "kafka"\nbootstrap_servers = "{self.bootstrap}"\npartitions = {self.partitions}\n'
        return (
            "[base]\nmax_tokens = 64\n"
            f"[topics]\n{kafka if self.bootstrap else ''}"
            f'[redis]\nurl = "{self.redis_url}"\n'
            f"[serve]\nport = {port}\nadmin_port = {admin_port}\nthreads = 1\n"
            f"[feed.{FEED}]\nlabels = {json.dumps(LABELS)}\nprediction_wait_s = 30\n"
            f"[feed.{FEED}.schedule]\nevery_s = {self.every_s}\n"
            f"{least}max_examples = {self.max_examples}\n"
            f"[feed.{FEED}.serve]\nscore = {str(self.score).lower()}\n"
        )


@dataclass
class Started:
    """A running verb. Its output, logs included, is in `log`."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    url: str = ""

    def tail(self) -> str:
        """The end of what it said, for a message."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-1500:]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Its structured log lines of one event."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            if f'"{event}"' in line and line.startswith("{"):
                record = json.loads(line)
                if record.get("event") == event:
                    found.append(record)
        return found


@dataclass
class Installation:
    """Use `installation`. Everything that was started is ended when its block is left, by its own process id."""

    folder: Path
    config_file: Path
    port: int
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def config(self) -> Config:
        """The config as the processes read it."""
        return load_config(self.config_file)

    @property
    def url(self) -> str:
        """Where `serve` of `up` answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, *arguments: str) -> Started:
        """Start a verb that runs until it is told to end."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._command(*arguments), stdout=output, stderr=output, preexec_fn=partial(die_with, os.getpid())
            )
        self._stack.callback(end_process, process, DRAIN_WITHIN_S)
        return Started(name, process, log)

    def serve(self, name: str) -> Started:
        """Start a replica of this name on ports of its own; returns once it is ready. RuntimeError if it is not."""
        port, admin_port = free_ports(2)
        ports = ("--port", str(port), "--admin-port", str(admin_port))
        replica = self.start(f"serve-{name}", "serve", "--replica", name, *ports)
        replica.url = f"http://127.0.0.1:{port}"
        self.require(replica, lambda: is_ready(replica.url))
        return replica

    def require(self, started: Started, happened: Any, within_s: float = READY_WITHIN_S) -> None:
        """Wait until it happened while the process runs. RuntimeError with the end of its log otherwise."""
        if not wait_for(lambda: happened() or started.process.poll() is not None, within_s) or not happened():
            raise RuntimeError(f"{started.name} did not come to it within {within_s:.0f} s:\n{started.tail()}")

    def run(self, *arguments: str, within_s: float = VERB_WITHIN_S) -> "subprocess.CompletedProcess[str]":
        """Run a verb to its end."""
        command = self._command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s)

    def json(self, *arguments: str) -> Any:
        """What a verb prints with --json. RuntimeError with its message if it fails."""
        done = self.run(*arguments, "--json")
        if done.returncode != 0:
            raise RuntimeError(f"driftline {' '.join(arguments)} failed: {done.stderr[-1500:]}")
        return json.loads(done.stdout)

    def produce(self, events: Sequence[dict[str, Any]]) -> None:
        """Put events onto the feed's topic with `driftline produce`. RuntimeError if it did not take them all."""
        if not events:
            return
        path = self.folder / "produce.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        done = self.json("produce", str(path))
        if done["records"] != len(events):
            raise RuntimeError(f"produced {done['records']} of {len(events)} events")

    def close(self) -> None:
        """End everything, the last first."""
        self._stack.close()

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "driftline.cli", *arguments, "-c", str(self.config_file)]


@contextmanager
def installation(folder: Path, setting: Setting) -> Iterator[Installation]:
    """A fresh installation in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port, admin_port = free_ports(2)
    config_file = folder / "driftline.toml"
    config_file.write_text(setting.toml(port, admin_port), encoding="utf-8")
    made = Installation(folder, config_file, port)
    try:
        yield made
    finally:
        made.close()


def is_ready(url: str) -> bool:
    """Whether the replica says that it has taken up what the registry names."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
