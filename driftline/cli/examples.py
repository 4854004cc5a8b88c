"""`driftline examples`: what the buffer holds, as the learner sees it. Texts are shown only to whoever asks here."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_buffer
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feed
from driftline.cli.output import print_json, print_table, say, to_type
from driftline.config import load_config

if TYPE_CHECKING:
    from driftline.buffer import Buffer

LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Only the newest N; default: 20, JSON: all.")]
CorrectionsOption = Annotated[
    bool, typer.Option("--corrections", help="Labels that replaced another one, and who had learned that.")
]
SHOWN = 20
TEXT_CHARACTERS = 60
AT_ONCE = 1000


def examples(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    limit: LimitOption = None,
    corrections: CorrectionsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Labelled examples in the buffer, with the answer that was served for each."""
    loaded = load_config(config)
    name = choose_feed(loaded, feed)
    buffer = existing_buffer(loaded)
    what, read, show = ("corrections", read_corrections, show_corrections) if corrections else _EXAMPLES
    rows: list[dict[str, Any]] = []
    if buffer is not None:
        with closing(buffer):
            rows = read(buffer, name, limit if limit or as_json else SHOWN)
    if as_json:
        print_json({"feed": name, what: rows})
    else:
        show(name, rows)


def read_rows(buffer: "Buffer", feed: str, limit: int | None) -> list[dict[str, Any]]:
    """The newest `limit` examples (None: all), by event order. `predicted` is null where no answer counts."""
    newest = buffer.exams.scored(feed, last=limit)
    rows = []
    for start in range(0, len(newest), AT_ONCE):
        part = newest[start : start + AT_ONCE]
        for row, example in zip(part, buffer.ledger.examples(feed, [row.seq for row in part]), strict=True):
            rows.append(
                {
                    "seq": row.seq,
                    "id": row.event_id,
                    "label": row.label,
                    "predicted": row.predicted,
                    "adapter_version": row.version,
                    "holdout": row.holdout,
                    "source": row.source,
                    "timestamp": example.occurred_at,
                    "labelled_at": example.labelled_at,
                    "text": example.text,
                }
            )
    return rows


def read_corrections(buffer: "Buffer", feed: str, limit: int | None) -> list[dict[str, Any]]:
    """The newest `limit` corrections (None: all), newest first. `learned_by`: versions that had learned the wrong
    label, fresh or replayed."""
    return [
        {
            "seq": one.correction.seq,
            "id": one.correction.event_id,
            "was": one.correction.was,
            "becomes": one.correction.becomes,
            "labeller": one.correction.labeller,
            "corrected_at": one.correction.corrected_at,
            "learned_by": one.learned_by,
        }
        for one in buffer.corrections.newest(feed, limit)
    ]


def show_corrections(feed: str, rows: list[dict[str, Any]]) -> None:
    """The corrections for people."""
    if not rows:
        say(escape(f"no label of {feed} was corrected"))
        return
    shown = [
        (
            row["seq"],
            row["id"],
            row["was"],
            row["becomes"],
            row["labeller"] or "–",
            row["corrected_at"].strftime("%Y-%m-%d %H:%M:%S"),
            ", ".join(str(version) for version in row["learned_by"]) or "none",
        )
        for row in rows
    ]
    print_table((">number", "id", "was", "is now", "by", "corrected (UTC)", "learned wrongly by"), shown)


def _show(feed: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        say(escape(f"{feed} has no example yet; see `{to_type('status')}` for what is awaited"))
        return
    shown = [
        (
            row["seq"],
            row["id"],
            row["label"],
            row["predicted"] or "–",
            row["adapter_version"],
            "held out" if row["holdout"] else "",
            _short(row["text"]),
        )
        for row in rows
    ]
    print_table((">number", "id", "label", "answered", ">by version", "", "text"), shown)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else text[: TEXT_CHARACTERS - 1] + "…"


_EXAMPLES = ("examples", read_rows, _show)
