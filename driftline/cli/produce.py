"""`driftline produce`: a file's lines onto a topic, byte for byte. Judging them is ingest's work."""

import gzip
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, cast

import msgspec
import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feed
from driftline.cli.output import err, print_json, say
from driftline.clock import sleep
from driftline.config import feed_topics, load_config
from driftline.errors import UsageError
from driftline.phrases import count_of
from driftline.topics import Outgoing, Topics
from driftline.topics.fields import Fields, Unusable

BATCH_RECORDS = 500
BATCH_BYTES = 1 << 20


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


def produce(
    file: FileArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    topic: TopicOption = Which.events,
    rate: RateOption = None,
    feed: FeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a file's records on the events or labels topic, Kafka or file. Blank lines are left out."""
    from driftline.assembly.wiring import build_topics

    loaded = load_config(config)
    name = choose_feed(loaded, feed)
    names = feed_topics(loaded, name)
    target, id_field = (names.events, loaded.feed[name].fields.id) if topic is Which.events else (names.labels, "id")
    topics = build_topics(loaded)
    started = time.monotonic()
    try:
        topics.ensure([target])
        with _lines(file) as lines:
            records = _send(topics, target, _outgoing(lines, id_field), rate, file)
    finally:
        topics.close()
    if not records:
        err.print(f"[bold yellow]warning:[/] {escape(str(file))} holds no record: nothing went out")
    _report(target, records, time.monotonic() - started, as_json)


def _report(target: str, records: int, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json({"topic": target, "records": records, "seconds": round(seconds, 3)})
    else:
        say(f"{count_of(records, 'record')} onto {target} in {seconds:.1f} s ({records / max(seconds, 1e-9):,.0f}/s)")


def _send(topics: Topics, target: str, records: Iterator[Outgoing], rate: float | None, file: Path) -> int:
    """Append in batches, each durable before the next; with a rate, a batch is what is due in a tenth of a second.

    UsageError if the file cannot be read to its end; it says how many records went out.
    """
    limit = BATCH_RECORDS if rate is None else max(1, min(BATCH_RECORDS, int(rate / 10)))
    started, sent = time.monotonic(), 0
    try:
        for batch in batches(records, limit, BATCH_BYTES):
            topics.append(target, batch)
            sent += len(batch)
            if rate is not None:
                sleep(max(0.0, started + sent / rate - time.monotonic()))
    except (OSError, EOFError, zlib.error) as error:
        gone = f"its first {count_of(sent, 'record')} went out onto {target}: mend the file, send the rest"
        gone = gone if sent else "nothing of it went out: mend the file, then send it"
        raise UsageError(f"{file}: cannot be read to its end ({error}); {gone}") from None
    return sent


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
    if str(path) == "-":
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
