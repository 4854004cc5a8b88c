"""Which processes run on a state folder, and with which config: a JSON file for each, locked as long as it lives.

Guards that nobody takes a config for what runs: a process reads its file once, when it starts, so whoever changes the
file is told who still has the one of before, and what is wrong with it. A file whose lock nobody holds is of a process
that was killed; the next one that starts removes it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from driftline.config import Config, config_sha256, load_config
from driftline.errors import ConfigError
from driftline.locks import hold, is_held
from driftline.names import StateFiles

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process: the verb that it runs, and the config file with the sha256 of what that said at the start."""

    name: str
    pid: int
    config: str
    config_sha256: str


@contextmanager
def recorded(name: str, path: Path, config: Config) -> Iterator[None]:
    """This process is among those that `running` names until the block ends. ConfigError for a state.path that cannot
    be used; where the disk is full it runs unnamed."""
    from driftline.assembly.wiring import state_files

    one = Running(name=name, pid=os.getpid(), config=str(path.absolute()), config_sha256=config_sha256(config))
    folder = state_files(config).running
    with ExitStack() as until_the_end:
        try:
            _write(one, folder, until_the_end)
        except OSError as error:
            log.warning("process_not_recorded", folder=str(folder), error=str(error))
        yield


def _write(one: Running, folder: Path, until_the_end: ExitStack) -> None:
    folder.mkdir(exist_ok=True)
    for left_behind in folder.glob("*.json"):
        if not is_held(left_behind):
            left_behind.unlink(missing_ok=True)
    file = folder / f"{one.name}-{one.pid}.json"
    draft = file.with_suffix(".draft")
    lock = until_the_end.enter_context(draft.open("w", encoding="utf-8"))
    hold(lock.fileno())
    lock.write(json.dumps(asdict(one)))
    lock.flush()
    draft.replace(file)  # locked before it can be seen, so that nobody takes it for one left behind
    until_the_end.callback(file.unlink, missing_ok=True)


def running(files: StateFiles) -> list[Running]:
    """The processes that run, by name."""
    found = []
    for file in sorted(files.running.glob("*.json")):
        if is_held(file):
            try:
                found.append(Running(**json.loads(file.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError):  # it ended just now, or another version of Driftline wrote it
                continue
    return found


def outdated(files: StateFiles) -> dict[str, str]:
    """What is to be said of each process that has another config than its file holds now, by the process's name."""
    told = {}
    found = running(files)
    for path in dict.fromkeys(one.config for one in found):
        sha256, mistake = _now(Path(path))
        for one in found:
            if one.config == path and one.config_sha256 != sha256:
                told[one.name] = mistake or f"{path} was changed"
    return told


def _now(path: Path) -> tuple[str | None, str]:
    """What the file holds, or what is wrong with it."""
    try:
        return config_sha256(load_config(path)), ""
    except ConfigError as error:
        return None, f"{path} cannot be used any more ({error})"
