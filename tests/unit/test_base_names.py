"""How the base sees label names: kept by who loads it, for the fast clock, which never does."""

import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from driftline.assembly import base_names
from driftline.assembly.base_names import await_names, keep_names
from driftline.base import load_base
from driftline.config import Config, parse_config
from driftline.errors import BaseModelError

LABELS = ("very_good", "bad")
RUNNING = threading.Event()


@dataclass
class FakeBase:
    """Sees names as it is told to."""

    fingerprint: str
    seen: np.ndarray
    asked: int = 0

    def features(self, words: list[str]) -> torch.Tensor:
        assert words == ["very good", "bad"]
        self.asked += 1
        return torch.from_numpy(self.seen)


def base_of(fingerprint: str, value: float = 1.0, size: int = 4) -> FakeBase:
    return FakeBase(fingerprint, np.full((2, size), value, np.float32))


@pytest.fixture
def config(tmp_path: Path, tiny_base_dir: Path) -> Config:
    return parse_config(
        {
            "state": {"path": str(tmp_path / "state")},
            "base": {"model": str(tiny_base_dir), "device": "cpu"},
            "feed": {"reviews": {"labels": list(LABELS)}, "still": {"labels": ["a", "b"], "fast": {"enabled": False}}},
        },
        root=tmp_path,
    )


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """None may be started."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", started)


@pytest.mark.usefixtures("no_process")
def test_the_fast_clock_takes_what_another_process_kept(config: Config) -> None:
    base = base_of("one")
    keeping = threading.Timer(0.3, keep_names, (config, base))
    keeping.start()
    names = await_names(config, LABELS, RUNNING)
    keeping.join()
    assert names is not None
    assert (names.feature_size, names().tolist(), base.asked) == (4, base.seen.tolist(), 1)


@pytest.mark.usefixtures("no_process")
def test_what_is_kept_is_computed_once(config: Config) -> None:
    again = base_of("one", 2.0)
    keep_names(config, base_of("one"))
    keep_names(config, again)
    assert again.asked == 0


@pytest.mark.usefixtures("no_process")
def test_another_base_under_the_same_config_is_noticed_while_the_clock_runs(config: Config) -> None:
    keep_names(config, base_of("one"))
    names = await_names(config, LABELS, RUNNING)
    assert names is not None
    assert names().max() == 1.0
    keep_names(config, base_of("another", 2.0))
    assert names().max() == 2.0
    keep_names(config, base_of("a larger one", 3.0, size=8))
    with pytest.raises(BaseModelError, match=r"8 numbers by now, and had 4 .* start `adapt` again"):
        names()


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize("damage", [b"", b"junk", b"\xff" * 100])
def test_a_damaged_file_is_written_anew(config: Config, damage: bytes) -> None:
    keep_names(config, base_of("one"))
    (file,) = (config.state.path / "names").iterdir()
    file.write_bytes(damage)
    keep_names(config, base_of("one", 2.0))
    names = await_names(config, LABELS, RUNNING)
    assert names is not None
    assert names().max() == 2.0


@pytest.mark.usefixtures("no_process")
def test_who_is_stopped_waits_no_longer(config: Config) -> None:
    stop, started = threading.Event(), time.monotonic()
    threading.Timer(0.2, stop.set).start()
    assert await_names(config, LABELS, stop) is None
    assert time.monotonic() - started < base_names.WAIT_S / 2


def test_where_nobody_comes_a_process_of_its_own_does_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_names, "WAIT_S", 0.0)
    names = await_names(config, LABELS, RUNNING)
    base = load_base(config.base)
    assert names is not None
    assert np.allclose(names(), base.features(["very good", "bad"]).numpy(), atol=1e-6)
    (file,) = (config.state.path / "names").iterdir()
    before = file.stat().st_mtime_ns
    keep_names(config, base)
    assert file.stat().st_mtime_ns == before, "it named the same base"


def test_a_base_that_cannot_be_read_is_told(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base_names, "WAIT_S", 0.0)
    gone = config.model_copy(update={"base": config.base.model_copy(update={"model": str(tmp_path / "gone")})})
    with pytest.raises(BaseModelError, match="label names cannot be read"):
        await_names(gone, LABELS, RUNNING)
