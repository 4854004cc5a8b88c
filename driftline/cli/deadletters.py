"""`driftline dead-letters list | retry`: what could not be used and why, and another try after the cause is mended."""

import base64
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_buffer
from driftline.assembly.running import outdated
from driftline.cli.letter_values import offending
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feeds
from driftline.cli.output import print_json, print_table, say, to_type
from driftline.config import Config, feed_topics, load_config
from driftline.errors import UsageError
from driftline.names import DEAD_LETTER_REASONS, LETTER_STATES, RECORD_TOO_LARGE, StateFiles
from driftline.phrases import count_of

if TYPE_CHECKING:
    from driftline.buffer import LetterRow

LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most N per feed; default: 20, JSON: all.")]
OfReasonOption = Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Only those of this reason.")]
IdsArgument = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Only these, by the number that `list` shows.")
]
IdsOption = Annotated[list[int] | None, typer.Option("--id", help="The same as an option.")]
SHOWN = 20
ALL = 1 << 31

dead_letters = typer.Typer(help="Records that could not be used: see why, and try them again.", no_args_is_help=True)


@dead_letters.command("list")
def list_letters(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    limit: LimitOption = None,
    reason: OfReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """The dead letters with their reasons; JSON has the original bytes, too."""
    loaded = load_config(config)
    if reason is not None and reason not in DEAD_LETTER_REASONS:
        raise UsageError(f"--reason {reason}: no such reason; there are: {', '.join(DEAD_LETTER_REASONS)}")
    most = limit or (ALL if as_json else SHOWN)
    buffer = existing_buffer(loaded)
    found: list[LetterRow] = []
    total = let_go = 0
    if buffer is not None:
        with closing(buffer):
            for name in choose_feeds(loaded, feed):
                found.extend(buffer.letters.newest(name, most, reason))
                counts = buffer.counts(name)
                by_reason, let_go = counts.by_reason, let_go + counts.letters_let_go
                total += sum(by_reason.values()) if reason is None else by_reason.get(reason, 0)
    if as_json:
        print_json({"dead_letters": [_row(row, loaded) for row in found], "total": total, "let_go": let_go})
    elif not found:
        say("no dead letters" if reason is None else f"no dead letters of the reason {reason}")
    else:
        _show(found, total, loaded)
    if let_go and not as_json:
        why = "sent longer ago than ingest.keep_letters_s, or beyond ingest.max_letter_bytes"
        say(escape(f"{count_of(let_go, 'letter')} more, {why}: only counted; on the dead-letter topic they still are"))


@dead_letters.command("retry")
def retry(
    ids: IdsArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    more_ids: IdsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark dead letters, all or those named; ingest decodes them again under their original positions."""
    from driftline.assembly.wiring import open_buffer

    loaded = load_config(config)
    feeds, chosen = choose_feeds(loaded, feed), {*(ids or []), *(more_ids or [])}
    marked, bytesless, known = 0, 0, set[int]()
    if StateFiles(loaded.state.path).buffer.exists():
        with closing(open_buffer(loaded)) as buffer:
            if chosen:
                known = {number for name in feeds for number in buffer.letters.numbers(name)}
            if chosen <= known:
                marked = sum(buffer.letters.mark_for_retry(name, sorted(chosen) or None) for name in feeds)
                bytesless = sum(buffer.counts(name).by_reason.get(RECORD_TOO_LARGE, 0) for name in feeds)
    if unknown := chosen - known:
        named = ", ".join(str(number) for number in sorted(unknown))
        raise UsageError(f"no dead letter {named}; none was marked: `driftline dead-letters list` shows their numbers")
    if as_json:
        print_json({"marked": marked})
    else:
        left = f"`{to_type('dead-letters list')}` shows what is left"
        after = f"; {_tried_again(loaded)}. {left}" if marked else ""
        say(escape(f"{count_of(marked, 'dead letter')} marked{after}"))
        if bytesless:
            lost = (
                f"{count_of(bytesless, 'letter')} of the reason {RECORD_TOO_LARGE} cannot be retried: no bytes are kept"
            )
            say(escape(f"{lost}; send such records again, shorter or with a greater ingest.max_record_bytes"))


def _tried_again(config: Config) -> str:
    """By which config ingest tries the letters again: a mended one counts from its next start on."""
    if (why := outdated(StateFiles(config.state.path)).get("ingest")) is not None:
        return f"ingest tries them by the config that it was started with ({why}): start it again, then retry once more"
    return "ingest tries them again, by the config that it was started with"


def _show(found: "list[LetterRow]", total: int, config: Config) -> None:
    print_table(
        (">id", "feed", "position", "reason", "detail", "value", "state"), [_cells(row, config) for row in found]
    )
    if len(found) < total:
        say(f"{len(found):,} of {total:,}, newest first; --limit N, --reason REASON")
    _explain({row.letter.reason for row in found}, {row.state for row in found})


def _cells(row: "LetterRow", config: Config) -> tuple[object, ...]:
    letter = row.letter
    field, value = _offending(row, config)
    shown = f"{field}: {value}" if field else value
    return row.id, letter.feed, letter.position, letter.reason, letter.detail, shown, row.state


def _offending(row: "LetterRow", config: Config) -> tuple[str | None, str | None]:
    feed = row.letter.feed
    return offending(row.letter, config.feed[feed], feed_topics(config, feed).labels)


def _row(row: "LetterRow", config: Config) -> dict[str, Any]:
    letter = row.letter
    field, value = _offending(row, config)
    return {
        "id": row.id,
        "feed": letter.feed,
        "position": str(letter.position),
        "reason": letter.reason,
        "detail": letter.detail,
        "field": field,
        "value": value,
        "state": row.state,
        "at": row.at,
        "value_base64": base64.b64encode(letter.value).decode("ascii"),
    }


def _explain(reasons: set[str], states: set[str]) -> None:
    say("")
    for reason in sorted(reasons):
        say(f"{escape(reason)}: {escape(DEAD_LETTER_REASONS.get(reason, 'an unknown reason'))}")
    for state in sorted(states):
        say(f"state {escape(state)}: {escape(LETTER_STATES.get(state, 'an unknown state'))}")
