"""How the base sees the names of a feed's labels: from whoever loads the base to the fast clock, which never does.

`learn`, `serve` and `score` keep it in a file (`keep_names`). `adapt` takes it from there (`await_names`); it loses
nothing by waiting, since nobody answered anything before a replica had loaded the base. Only where no such process
comes within `WAIT_S` does it start one of its own: `python -m driftline.assembly.base_names FILE BASE NAME…`, with the
base's section as JSON.

Guards that names are those of the base that answers: its fingerprint stands in the file, whoever loads another base
under the same config writes it anew, and a fast clock that runs reads it again. Atomicity: the file is whole or absent.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy
import structlog
from numpy.typing import NDArray

from driftline.assembly.wiring import state_files
from driftline.config import BaseModelConfig, Config
from driftline.errors import BaseModelError
from driftline.experts.choice import spoken

if TYPE_CHECKING:
    from driftline.base import Base

__all__ = ["BaseNames", "await_names", "keep_names"]

log = structlog.get_logger()

WAIT_S = 30.0
POLL_S = 0.1
NAMES, FINGERPRINT = "names", "base_fingerprint"


def keep_names(config: Config, base: "Base") -> None:
    """Write what is missing, or of another base, for all feeds with a fast clock."""
    for section in config.feed.values():
        if section.fast.enabled and _fingerprint(path := _file(config, section.labels)) != base.fingerprint:
            _write(path, base, spoken(section.labels))


def await_names(config: Config, labels: Sequence[str], stop: threading.Event) -> "BaseNames | None":
    """The names of these labels, once somebody has kept them; None if `stop` is set before. BaseModelError if the base
    cannot read them."""
    path, until = _file(config, labels), time.monotonic() + WAIT_S
    while _fingerprint(path) is None and time.monotonic() < until:
        if stop.wait(POLL_S):
            return None
    if _fingerprint(path) is None:
        log.info("reading_label_names", reason="no learn, serve or score has come that loads the base model")
        base = json.dumps(config.base.model_dump(mode="json"))
        command = [sys.executable, "-m", __name__, str(path), base, *spoken(labels)]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode or _fingerprint(path) is None:
            raise BaseModelError(f"base.model = {config.base.model}: label names cannot be read by it, see above")
    return BaseNames(path)


class BaseNames:
    """The kept names, (C, d) fp32: call it for those that are there now. `feature_size`: d, as of the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._names = self._read()
        self.feature_size = int(self._names.shape[1])

    def __call__(self) -> NDArray[np.float32]:
        """BaseModelError where features have another size by now."""
        if self._changed_at() != self._at:
            self._names = self._read()
        if self._names.shape[1] != self.feature_size:
            raise BaseModelError(
                f"the base model's features have {self._names.shape[1]} numbers by now, and had {self.feature_size} "
                "when this process was started: start `adapt` again"
            )
        return self._names

    def _read(self) -> NDArray[np.float32]:
        self._at = self._changed_at()
        names: NDArray[np.float32] = safetensors.numpy.load_file(self._path)[NAMES]
        return names

    def _changed_at(self) -> int:
        return self._path.stat().st_mtime_ns


def _file(config: Config, labels: Sequence[str]) -> Path:
    return state_files(config).names_of(json.dumps([config.base.model_dump(mode="json"), spoken(labels)]))


def _fingerprint(path: Path) -> str | None:
    """That of the base that the kept names are of; None of a file that is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return str(file.metadata()[FINGERPRINT]) if NAMES in file.keys() else None  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, KeyError, TypeError):
        return None


def _write(path: Path, base: "Base", words: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.draft")
    names = base.features(words).numpy()  # (C, d)
    draft.write_bytes(safetensors.numpy.save({NAMES: names}, {FINGERPRINT: base.fingerprint}))
    draft.replace(path)


def main() -> None:
    """Write the names to the file."""
    from driftline.base import load_base

    path, section, *words = sys.argv[1:]
    _write(Path(path), load_base(BaseModelConfig.model_validate(json.loads(section))), words)


if __name__ == "__main__":
    main()
