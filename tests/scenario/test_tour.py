"""The tour of the README, word for word: every command of every `sh` block of README and docs, in order, in an empty
folder, as a user would type it.

What a user does between two commands stands in `TOUR`: what is awaited first, and the edits that a command asks for. A
command that `TOUR` does not know fails the test, and so does a block without a language. Ports are those of this test.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from driftline.cli.status import collect
from driftline.clock import Deadline
from driftline.config import load_config
from replay.simulate import Simulation, simulate
from tests.fixtures.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
LANGUAGES = {"sh", "text", "json", "toml", "python", "promql"}
NOT_RUN = ("make ",)
"""The suite that this test is of is run by them."""
EVENTS = 240
WITHIN_S = 240.0


@dataclass
class Tour:
    """The folder, and where the user stands in it."""

    folder: Path
    ports: tuple[int, int]
    here: Path = field(init=False)
    up: "subprocess.Popen[str] | None" = None

    def __post_init__(self) -> None:
        self.here = self.folder

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.here, capture_output=True, text=True, check=False, timeout=WITHIN_S
        )

    def start(self, command: str) -> subprocess.CompletedProcess[str]:
        """In a terminal of its own, where it runs on."""
        log = self.folder / "up.log"
        with log.open("w") as output:
            self.up = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.here, stdout=output, stderr=subprocess.STDOUT, text=True
            )
        self.until(lambda: "answering on" in log.read_text())
        return subprocess.CompletedProcess(command, 0, log.read_text(), "")

    def until(self, condition: Callable[[], object]) -> None:
        deadline, tick = Deadline(WITHIN_S), threading.Event()
        while not condition():
            assert not deadline.expired(), (self.folder / "up.log").read_text()[-3000:]
            tick.wait(0.2)

    def status(self) -> dict[str, Any]:
        """What `driftline status` shows, without a process for each look, which would slow what is awaited."""
        return collect(load_config(self.folder / "myfeed" / "driftline.toml"), ["reviews"])

    def live(self) -> int:
        return int(self.status()["feeds"]["reviews"]["version"] or 0)

    def served(self) -> int:
        """The version that answers now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}/v1/feeds", timeout=30) as response:
            return int(json.load(response)["feeds"][0]["version"])

    def learned(self) -> bool:
        """Whether a version is live, and answers."""
        return 0 < self.live() == self.served()

    def bring_more(self) -> bool:
        """A few labelled events, too few for a tick, right before the update that is to learn them."""
        lines = [json.dumps({"id": f"more-{n}", "text": f"it works, {n} times", "label": "positive"}) for n in range(9)]
        (self.folder / "more.jsonl").write_text("\n".join(lines))
        return self.run("../.venv/bin/driftline produce ../more.jsonl").returncode == 0

    def edit(self, _: str) -> subprocess.CompletedProcess[str]:
        """What the user does in the editor: the labels are the stream's already; the ports are this machine's."""
        config = self.folder / "myfeed" / "driftline.toml"
        text = config.read_text()
        for default, mine in zip((8080, 8081), self.ports, strict=True):
            assert f"port = {default}\n" in text
            text = text.replace(f"port = {default}\n", f"port = {mine}\n")
        config.write_text(text)
        return subprocess.CompletedProcess("edit", 0, "", "")

    def move(self, command: str) -> subprocess.CompletedProcess[str]:
        self.here = (self.here / shlex.split(command, comments=True)[1]).resolve()
        return subprocess.CompletedProcess(command, 0, "", "")

    def export(self, command: str) -> subprocess.CompletedProcess[str]:
        """The README's version 12 is the live one here."""
        return self.run(command.replace("export 12", f"export {max(1, self.live())}"))

    def close(self) -> None:
        if self.up is not None and self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
            self.up.wait(WITHIN_S)
        self.run(".venv/bin/driftline stop -c myfeed/driftline.toml")


Run = Callable[[Tour, str], subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Step:
    """A command as the page has it (its start), what it must print, and what the user waits for before."""

    command: str
    tells: tuple[str, ...] = ()
    run: Run = Tour.run
    before: Callable[[Tour], object] = bool


TOUR = (
    Step(".venv/bin/driftline init myfeed", ("wrote myfeed/driftline.toml", "driftline check")),
    Step("$EDITOR myfeed/driftline.toml", run=Tour.edit),
    Step(".venv/bin/driftline replay events.jsonl", ("Driftline, as served", "majority label", "report.html")),
    Step(".venv/bin/driftline check -c", ("ok config", "ok base model")),
    Step(".venv/bin/driftline up", ("answering on http://127.0.0.1",), Tour.start),
    Step(".venv/bin/driftline produce events.jsonl", (f"{EVENTS} records", "reviews")),
    Step(".venv/bin/driftline status -c", ("live: version", "accuracy", "as served"), before=Tour.learned),
    Step("curl -s localhost:8080/v1/feeds/reviews/predict", ('"predictions":[{"id":"q-1"', '"adapter_version":')),
    Step("curl -s localhost:8080/v1/feeds/reviews/labels", ('{"accepted":1}',)),
    Step("cd myfeed", run=Tour.move),
    Step("../.venv/bin/driftline history", ("promoted", "learner")),
    Step("../.venv/bin/driftline rollback", ("automatic promotion is paused",)),
    Step("../.venv/bin/driftline resume --relearn", ("will be learned again",)),
    Step("../.venv/bin/driftline resume", ("goes on from version",)),
    Step("../.venv/bin/driftline dead-letters list", ("no dead letters",)),
    Step("../.venv/bin/driftline dead-letters retry", ("0 dead letters marked",)),
    Step("../.venv/bin/driftline examples --corrections", ("no label of reviews was corrected",)),
    Step("../.venv/bin/driftline update-now", ("asked the learner of reviews",), before=Tour.bring_more),
    Step("../.venv/bin/driftline export 12", ("README.md there shows how to load it",), Tour.export),
)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(language, text) of the page's code blocks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def commands() -> list[str]:
    """All commands to be typed, in order; continued lines are one."""
    found = [text for page in PAGES for language, text in blocks(page) if language == "sh"]
    lines = "".join(found).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(NOT_RUN)]


def step_of(command: str) -> Step:
    known = [step for step in TOUR if command.startswith(step.command)]
    assert known, f"the tour does not know this command: {command}"
    return max(known, key=lambda step: len(step.command))


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    lines = [json.dumps(event) + "\n" for event in simulate(Simulation(events=EVENTS))]
    (tmp_path / "events.jsonl").write_text("".join(lines))
    first, second = free_ports(2)
    tour = Tour(tmp_path, (first, second))
    yield tour
    tour.close()


def test_every_block_says_what_it_is() -> None:
    without = [(page, text[:60]) for page in PAGES for language, text in blocks(page) if language not in LANGUAGES]
    assert without == []


def test_every_command_of_the_tour_is_on_a_page() -> None:
    assert {step_of(command).command for command in commands()} == {step.command for step in TOUR}


@pytest.mark.timeout(900)
def test_the_tour_goes_as_the_pages_say(tour: Tour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("EDITOR", "false")
    for command in commands():
        step = step_of(command)
        if step.before is not bool:
            tour.until(lambda step=step: step.before(tour))
        typed = command.replace("localhost:8080", f"localhost:{tour.ports[0]}")
        done = step.run(tour, typed)
        said = f"$ {typed}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, said
        printed = " ".join((done.stdout + done.stderr).split())  # columns are as wide as what stands in them
        assert [words for words in step.tells if words not in printed] == [], said
    assert tour.up is not None
    os.kill(tour.up.pid, signal.SIGTERM)
    assert tour.up.wait(WITHIN_S) == 0
