"""A replay that is told to end leaves nothing behind: no Redis, no state folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.processes import is_alive
from tests.fixtures.replicas import eventually

WITHIN_S = 60.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_replay_leaves_no_redis_and_no_folder(
    number: signal.Signals, tiny_base_dir: Path, tmp_path: Path
) -> None:
    process = waiting_replay(tiny_base_dir, tmp_path)
    try:
        told = told_until(process, "replay: 1 event")
        assert any("Loading the base model" in line for line in told)
        [folder] = (tmp_path / "temporary").glob("driftline-replay-*")
        [redis] = servers(folder)
        process.send_signal(number)
        process.send_signal(number)  # a closing terminal may send several
        _, end = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number, end
    assert f"stopped by {number.name}; what it had started is cleaned up, and no report was written" in end
    assert "Traceback" not in end
    assert not folder.exists()
    assert eventually(lambda: not is_alive(redis))


def waiting_replay(base: Path, folder: Path) -> subprocess.Popen[str]:
    """A replay in real time whose second event comes after an hour."""
    events = [{"text": "good phone", "label": "good", "timestamp": f"2026-03-01T0{hour}:00:00Z"} for hour in (1, 2)]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "driftline.toml").write_text(
        f'[base]\nmodel = "{base}"\ndevice = "cpu"\n[feed.reviews]\nlabels = ["bad", "good"]\n'
    )
    (folder / "temporary").mkdir()
    command = [sys.executable, "-m", "driftline.cli", "replay", "events.jsonl", "--speed", "real", "--limit", "2"]
    environment = os.environ | {"TMPDIR": str(folder / "temporary")}

    def as_from_a_terminal() -> None:  # the suite itself may run under nohup or with &, which a replay would respect
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=as_from_a_terminal
    )


def told_until(process: subprocess.Popen[str], sign: str) -> list[str]:
    """The lines on stderr, up to the one that has `sign`."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if sign in line:
            return lines
    raise AssertionError("".join(lines))


def servers(folder: Path) -> list[int]:
    """The Redis servers of a state folder, by the files they wrote."""
    return [int(path.read_text()) for path in folder.rglob("*.pid")]
