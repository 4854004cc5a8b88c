"""The report in words, for the terminal: what was learned, and what it was worth against the baselines."""

from typing import Any

from rich.markup import escape

from driftline.cli.output import count_of, percent
from driftline.cli.replay.words import LABELS_KNOWN, counts_in_words, forgetting_in_words, lost_labels, nothing_learned


def summarise(report: dict[str, Any]) -> str:
    """A dozen lines of rich markup."""
    ours, rivals = report["prequential"], report["baselines"]
    promoted = sum(row["decision"] == "promoted" for row in report["versions"])
    rejected = len(report["versions"]) - promoted
    lines = [
        f"[bold]{count_of(report['events'], 'event')}[/], {count_of(report['examples'], 'example')}"
        f" ({report['holdout_examples']} held out), {counts_in_words(report)}",
        *(f"[yellow]{escape(caution)}[/]" for caution in _cautions(report)),
        f"{count_of(promoted, 'version')} promoted, {rejected} rejected;"
        f" {report['swaps']['count']} swaps, {report['swaps']['requests_failed']} failed requests",
        "",
        f"prequential accuracy   [bold]{percent(ours['accuracy'])}[/]  over {ours['n']:,} answers as served",
        f"  [dim]{LABELS_KNOWN}[/]",
        *(f"  {name:<20} {percent(row['accuracy'])}" for name, row in rivals.items() if name != "first_version"),
        *_first_version(rivals["first_version"]),
        *_retention(report["retention"]),
        *(
            f"evaluation {name:<12}{percent(row['accuracy'])}  of {row['n']:,}"
            for name, row in report["evaluation"].items()
        ),
        "",
        _seconds(report),
    ]
    return "\n".join(lines)


def _cautions(report: dict[str, Any]) -> list[str]:
    lost, nothing = lost_labels(report), nothing_learned(report)
    return [caution for caution in ("" if lost in nothing else lost, nothing) if caution]


def _first_version(row: dict[str, Any]) -> list[str]:
    if not row["n"]:
        return ["  first_version        –  (no version was promoted)"]
    ours = f"against ours {percent(row['ours'])} on its {row['n']:,} events"
    return [f"  first version, frozen  {percent(row['accuracy'])}  {ours}"]


def _retention(row: dict[str, Any]) -> list[str]:
    if not row["segments"]:
        return []
    average = f"{percent(row['average_accuracy'])} on average of {count_of(row['segments'], 'segment')}"
    return ["retention              " + ", ".join(part for part in (average, forgetting_in_words(row)) if part)]


def _seconds(report: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    speed = report["examples_per_s"]
    return f"{parts}" + (f"; {speed:.0f} examples trained per second" if speed else "")
