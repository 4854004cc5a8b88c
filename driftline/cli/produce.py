"""`driftline produce`: a file's lines onto a topic, byte for byte. Judging them is ingest's work.

Guards that nobody has to guess how far it came: whatever ends it early, it says how many records are acknowledged and
what to type to go on from there.
"""

import gzip
import shlex
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, cast

import msgspec
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feed
from driftline.cli.output import err, print_json, say
from driftline.cli.sending import Sending
from driftline.clock import sleep
from driftline.config import Config, feed_topics, load_config
from driftline.errors import DriftlineError, TopicError, UsageError
from driftline.names import StateFiles
from driftline.phrases import count_of
from driftline.topics import Outgoing
from driftline.topics.fields import Fields, Unusable

BATCH_RECORDS = 500
BATCH_BYTES = 1 << 20
WAIT_S = 1800.0
STANDARD_INPUT = "-"


class Which(StrEnum):
    """Which of the feed's topics to write on."""

    events = "events"
    labels = "labels"


def which(text: str) -> Which:
    """The topic as it is typed."""
    if text not in list(Which):
        raise typer.BadParameter(f"{text!r} is none of the feed's topics to write on: {', '.join(Which)}")
    return Which(text)


FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE.jsonl[.gz]", help="One record a line; - is standard input.")
]
TopicOption = Annotated[
    Which, typer.Option("--topic", parser=which, metavar="[events|labels]", help="What the file holds.")
]
RateOption = Annotated[float | None, typer.Option("--rate", min=0.001, help="Records per second; default: no limit.")]

SkipOption = Annotated[
    int, typer.Option("--skip", min=0, metavar="N", help="Leave out the first N records: they are there already.")
]
WaitOption = Annotated[
    float, typer.Option("--wait-s", min=0.0, help="How long an outage of the broker (or a full disk) is waited for.")
]


def produce(
    file: FileArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    topic: TopicOption = Which.events,
    rate: RateOption = None,
    feed: FeedOption = None,
    skip: SkipOption = 0,
    wait_s: WaitOption = WAIT_S,
    as_json: JsonOption = False,
) -> None:
    """Put a file's records on the events or labels topic, Kafka or file. Blank lines are left out. An outage is waited
    for; whatever ends it early, exit code 1 says how many records are acknowledged, and how to go on."""
    from driftline.assembly.wiring import build_topics

    loaded = load_config(config)
    name = choose_feed(loaded, feed)
    names = feed_topics(loaded, name)
    target, id_field = (names.events, loaded.feed[name].fields.id) if topic is Which.events else (names.labels, "id")
    again = _again(file, topic, name if feed else None, rate)
    started = time.monotonic()
    with closing(build_topics(loaded)) as topics, _lines(file) as lines, _ended_by_signals():
        sending = Sending(topics, _where(loaded), target, wait_s, skip)
        _send(sending, _outgoing(lines, id_field), rate, file, again)
    if not sending.given:
        err.print(f"[bold yellow]warning:[/] {escape(str(file))} holds no record: nothing went out")
    _report(sending, time.monotonic() - started, as_json)


def _report(sending: Sending, seconds: float, as_json: bool) -> None:
    records, again = sending.given - sending.skipped, sending.sent_again
    if as_json:
        print_json({"topic": sending.topic, "records": records, "seconds": round(seconds, 3), "sent_again": again})
        return
    per_s = records / max(seconds, 1e-9)
    say(f"{count_of(records, 'record')} onto {sending.topic} in {seconds:.1f} s ({per_s:,.0f}/s)")
    if again:
        say(f"{count_of(again, 'record')} sent again after an outage: they may be there twice; an id is taken in once")


def _send(sending: Sending, records: Iterator[Outgoing], rate: float | None, file: Path, again: str) -> None:
    """Append in batches, each durable before the next; with a rate, a batch is what is due in a tenth of a second.

    UsageError if the file cannot be read to its end, DriftlineError for whatever else ends it early (an outage, a
    topic that refuses, Ctrl-C): both say how many records are acknowledged.
    """
    limit = BATCH_RECORDS if rate is None else max(1, min(BATCH_RECORDS, int(rate / 10)))
    try:
        sending.ensure()
        _leave_out(records, sending.skipped, file)
        started = time.monotonic()
        for batch in batches(records, limit, BATCH_BYTES):
            sending.append(batch)
            if rate is not None:
                due = started + sending.waited_s + (sending.given - sending.skipped) / rate
                sleep(max(0.0, due - time.monotonic()))
    except (OSError, EOFError, zlib.error) as error:
        gone = f"its first {count_of(sending.without_gap, 'record')} went out onto {sending.topic}: mend the file, then"
        gone = f"{gone} `{again} --skip {sending.without_gap}`" if sending.given else "nothing of it went out: mend it"
        raise UsageError(f"{file}: cannot be read to its end ({error}); {gone}") from None
    except (TopicError, KeyboardInterrupt) as error:
        why = f"{sending.where}: {error}" if isinstance(error, TopicError) else "stopped by a signal"
        raise DriftlineError(
            f"{why}\n{_account(sending, _total(file))}; to go on: `{again} --skip {sending.without_gap}`"
        ) from None


def _where(config: Config) -> str:
    if config.topics.kind == "kafka":
        return f"Kafka at {config.topics.bootstrap_servers}"
    return f"topic files in {StateFiles(config.state.path).topics}"


def _leave_out(records: Iterator[Outgoing], skip: int, file: Path) -> None:
    """UsageError if there are not so many."""
    left_out = sum(1 for _ in islice(records, skip))
    if left_out < skip:
        raise UsageError(f"--skip {skip}: {file} holds only {count_of(left_out, 'record')}: nothing is left to send")


def _account(sending: Sending, total: int | None) -> str:
    """`12,500 of 20,000 records are on the topic reviews`, and what is not known of those after them."""
    of = "" if total is None else f" of {total:,}"
    told = f"{sending.acknowledged:,}{of} records are on the topic {sending.topic}"
    if sending.acknowledged > sending.without_gap:
        told += f", the first {sending.without_gap:,} without a gap"
    if open_ := sending.given - sending.acknowledged:
        told += f"; of {open_:,} more that were on their way some may be, too (an id is taken in once)"
    return told


def _total(file: Path) -> int | None:
    """How many records the file holds, read anew; None where that cannot be told, as of standard input."""
    if not file.is_file():
        return None
    try:
        with _lines(file) as lines:
            return sum(1 for line in lines if line.strip())
    except (OSError, EOFError, zlib.error):
        return None


def _again(file: Path, topic: Which, feed: str | None, rate: float | None) -> str:
    """This command, to be typed again, without `--skip`."""
    options = [] if topic is Which.events else ["--topic", topic]
    options += ["--feed", feed] if feed else []
    options += ["--rate", f"{rate:g}"] if rate else []
    return f"driftline produce {shlex.join([str(file), *options])}"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block by KeyboardInterrupt, as Ctrl-C does. Main thread only."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def batches(records: Iterator[Outgoing], max_records: int, max_bytes: int) -> Iterator[list[Outgoing]]:
    """Lists of at most `max_records`, closed once they hold `max_bytes` of values; a bigger record goes alone."""
    batch: list[Outgoing] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value)
        if len(batch) >= max_records or size >= max_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _outgoing(lines: Iterator[bytes], id_field: str) -> Iterator[Outgoing]:
    for line in lines:
        value = line.removesuffix(b"\n")
        if value.strip():
            yield Outgoing(value=value, key=record_key(value, id_field))


def record_key(value: bytes, id_field: str) -> bytes | None:
    """The record's id as ingest will read it, so that all records of one id share a partition; None without one."""
    try:
        event_id = Fields(msgspec.json.decode(value, type=dict)).id(id_field)
    except (Unusable, ValueError, RecursionError):
        return None
    return event_id.encode("utf-8", "replace") if event_id else None


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    """The file's lines with a progress bar on stderr; gzip is recognised by its first bytes."""
    if str(path) == STANDARD_INPUT:
        yield iter(sys.stdin.buffer)
        return
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    with raw, _bar(path) as show:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if zipped else raw)
        yield _watched(stream, lambda: show(raw.tell()))


def _watched(stream: IO[bytes], advance: Callable[[], None]) -> Iterator[bytes]:
    for number, line in enumerate(stream):
        if number % BATCH_RECORDS == 0:
            advance()
        yield line


@contextmanager
def _bar(path: Path) -> Iterator[Callable[[int], None]]:
    """A bar over the file's bytes; yields a function that takes the bytes read so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)
        yield lambda position: progress.update(task, completed=position)
