"""A whole replay: options in, report out, and the files it is written to."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driftline.clock import SimulatedClock
from driftline.config import Config
from driftline.errors import DriftlineError
from replay.driver import Driver
from replay.pace import Pace
from replay.page import render_page
from replay.pipeline import open_pipeline, replay_config, state_folder
from replay.report import build_report
from replay.source import EPOCH, stream_items


def run_replay(
    config: Config,
    feed: str,
    events: list[Path],
    *,
    evaluation: Path | None = None,
    state: Path | None = None,
    limit: int | None = None,
    factor: float | None = None,
    on_step: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """The whole replay; returns the report (DESIGN §6). The files are those that `check_events` lets pass."""
    start = time.perf_counter()
    section = config.feed[feed]
    with state_folder(state) as folder:
        own = replay_config(config, feed, folder)
        with open_pipeline(own, feed, SimulatedClock(EPOCH)) as pipeline:
            driver = Driver(pipeline, Pace(factor), on_step)
            driver.run(stream_items(events, section, limit=limit))
            held_back = stream_items([evaluation], section) if evaluation else ()
            return build_report(driver, time.perf_counter() - start, held_back)


def write_outputs(document: dict[str, Any], report: Path | None, plot: Path | None) -> None:
    """Write the report and the page, where asked for. DriftlineError if one cannot be: the disk filled up meanwhile."""
    if report is not None:
        try:
            _write(report, json.dumps(document, indent=2) + "\n")
        except DriftlineError:  # hours of work must not be lost with it
            print(json.dumps(document))
            raise
    if plot is not None:
        _write(plot, render_page(document))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DriftlineError(f"{path}: cannot be written ({error.strerror})") from None
