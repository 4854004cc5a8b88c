"""The verb `driftline demo`: a simulated review feed through the real pipeline, told as it happens."""

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from driftline.assembly.logs import configure_logging
from driftline.assembly.signals import unwound_by_signals
from driftline.cli.output import say, this_command
from driftline.config import Config, load_config
from driftline.errors import UsageError
from driftline.phrases import count_of, percent
from driftline.reasons import decision_in_words

DirOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where events, report and page are written.")]
EventsOption = Annotated[int, typer.Option("--events", min=250, metavar="N", help="Length of the simulated stream.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Another seed, another stream.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="HTTP port; 0 takes a free one.")]
if TYPE_CHECKING:
    from replay.pipeline import Pipeline

PROGRESS_EVERY = 500
QUIET_S = 15.0
EXAMPLE_TEXT = "the battery died after two days, what a joke"


def demo(
    dir: DirOption = Path("driftline-demo"), events: EventsOption = 2500, seed: SeedOption = 0, port: PortOption = 0
) -> None:
    """Watch a model keep up with a simulated review feed (about three minutes on 2 idle cores)."""
    configure_logging()
    config_file = prepare(dir, events, seed)
    config = load_config(config_file)
    say(
        f"[bold]Driftline demo[/]: {count_of(events, 'product review')}, five products in turn, new slang on the way,"
        " 4 % wrong labels,\nlabels two minutes late. The model starts knowing nothing; each answer is given before its"
        " label is seen.\nFour baselines answer beside it. It takes about three minutes on 2 otherwise idle cores.\n"
    )
    say("Loading the base model …")
    with unwound_by_signals():
        report, seconds = run(config, dir / "events.jsonl", port, events)
    finish(report, dir, config_file, seconds)


def prepare(folder: Path, events: int, seed: int) -> Path:
    """Write the simulated stream and its config; returns the config's path. UsageError if the folder cannot be used."""
    from replay.simulate import Simulation, simulate

    source = Path(__file__).with_name("demo.toml")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "events.jsonl").open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(event) + "\n" for event in simulate(Simulation(events=events, seed=seed)))
        shutil.copyfile(source, folder / "driftline.toml")
    except OSError as error:
        raise UsageError(f"--dir {folder}: cannot be written ({error.strerror}): name a folder of yours") from None
    return folder / "driftline.toml"


def run(config: Config, events: Path, port: int, total: int) -> tuple[dict[str, Any], float]:
    """Replay the stream of `total` events while answering over HTTP; returns the report and the wall seconds."""
    from driftline.clock import SimulatedClock
    from replay.driver import Driver, Pace
    from replay.pipeline import open_pipeline, replay_config, state_folder
    from replay.report import build_report
    from replay.source import EPOCH, stream_items

    feed = next(iter(config.feed))
    start = time.perf_counter()
    with (
        listen(port) as listener,
        state_folder(None) as folder,
        open_pipeline(replay_config(config, feed, folder), feed, SimulatedClock(EPOCH)) as pipeline,
        open_http(pipeline, listener) as url,
    ):
        say(f"Answering meanwhile at [bold]{url}[/]; in another terminal, now and again later:\n  {curl(url, feed)}\n")
        driver = Driver(pipeline, Pace(None), Narrator(total).tell)
        driver.run(stream_items([events], config.feed[feed]))
        seconds = time.perf_counter() - start
        return build_report(driver, seconds, ()), seconds


def listen(port: int) -> socket.socket:
    """A socket on loopback. UsageError names --port."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(f"--port {port}: {why}: name another, or leave it out for any free one") from None


@contextmanager
def open_http(pipeline: "Pipeline", listener: socket.socket) -> Iterator[str]:
    """The public app, in a thread, on the pipeline's own engine; yields its URL."""
    import uvicorn

    from driftline.assembly.wiring import build_parts
    from serving.app import create_app

    app = create_app(build_parts(pipeline.config, pipeline.engine, pipeline.watcher, pipeline.topics))
    settings = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def curl(url: str, feed: str) -> str:
    """A command to paste that asks the running demo."""
    body = json.dumps({"inputs": [{"text": EXAMPLE_TEXT}]})
    return escape(f"curl -s {url}/v1/feeds/{feed}/predict -H 'content-type: application/json' -d '{body}'")


class Narrator:
    """Prints each cycle as it ends, now and then how the answers are doing against the baselines, and a sign of life
    where nothing else was told for a while."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._cycles = 0
        self._told_events = 0
        self._told_at = clock()
        self._ended = False

    def tell(self, driver: Any) -> None:
        """`Driver.on_step`."""
        cycles, events = driver.tally.cycles[self._cycles :], driver.tally.events
        for report in cycles:
            say(cycle_line(report))
        self._cycles += len(cycles)
        if events >= self._told_events + PROGRESS_EVERY:
            self._told_events = events
            say(progress_line(driver))
        elif not cycles and self._clock() < self._told_at + QUIET_S:
            return
        elif not cycles:
            say(f"[dim]{events:>6,} of {self._total:,} events answered …[/]")
        if events >= self._total and not self._ended:
            self._ended = True
            say("All events are answered. The last labels come, and what was kept of the past is measured …")
        self._told_at = self._clock()


def cycle_line(report: Any) -> str:
    """One cycle in one line: what was learned, what the gate said."""
    cycle = report.cycle
    learned = f"{len(cycle.plan.fresh)} fresh + {len(cycle.plan.replayed)} replayed in {report.train_seconds:.1f} s"
    colour = "green" if report.outcome == "promoted" else "yellow"
    words = escape(decision_in_words(report.decision)) if report.decision else report.outcome
    return f"  version {cycle.version:>2}  {learned}; [{colour}]{words}[/]"


def progress_line(driver: Any) -> str:
    """Accuracy over the last stretch of examples, ours and the baselines'."""
    scored = driver.pipeline.buffer.exams.scored(driver.pipeline.feed, last=PROGRESS_EVERY)
    ours = share(s.predicted == s.label for s in scored)
    rivals = {
        name.replace("_", " "): share(answers.get(s.event_id) == s.label for s in scored)
        for name, answers in driver.rivals.answers.items()
    }
    others = ", ".join(f"{name} {percent(value)}" for name, value in rivals.items())
    told = f"last {len(scored)} answers right: [bold]{percent(ours)}[/]  [dim]({others})[/]"
    return f"[dim]{driver.tally.events:>6,} events[/]  {told}"


def share(outcomes: Iterable[bool]) -> float | None:
    """Share of True; None of nothing."""
    found = list(outcomes)
    return sum(found) / len(found) if found else None


def finish(report: dict[str, Any], folder: Path, config_file: Path, seconds: float) -> None:
    """The summary, where the files are, and what to try next."""
    from replay.laboratory import write_outputs
    from replay.summary import summarise

    write_outputs(report, folder / "report.json", folder / "report.html")
    say("\n" + summarise(report))
    stream, page = folder / "events.jsonl", folder / "report.html"
    say(
        f"\nDone in {seconds:.0f} s. Open [bold]{page}[/] for the plots; the figures are in {folder / 'report.json'}.\n"
    )
    ours = escape(this_command())
    say("Next:")
    say(f"  {ours} replay {stream} -c {config_file} --plot again.html")
    say("      the same again, with settings that you change")
    say(f"  {ours} init myfeed")
    say("      a commented config for a stream of your own, in the folder myfeed; its feed is named reviews")
    say(f"  {ours} up -c myfeed/driftline.toml")
    say("      ingest, learn, adapt, serve and score, live on this machine")
