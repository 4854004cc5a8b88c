"""The report in words, for the terminal: what was learned, what it was worth, and what the stream showed."""

from typing import Any

from rich.markup import escape

from driftline.exams_in_words import recalls_in_words
from driftline.phrases import count_of, percent
from driftline.splitting import splitting_in_words
from replay.comparison import NAMES, OURS, comparison_rows, verdict, verdict_from_first_version
from replay.findings import BRACKETS, findings
from replay.mixtures import mixtures_in_words
from replay.words import (
    FROM_FIRST,
    LABELS_KNOWN,
    counts_in_words,
    forgetting_in_words,
    guessing,
    lost_labels,
    nothing_learned,
)
from replay.worth import TAKEN_OUT, expert_rows, weight_in_words


def summarise(report: dict[str, Any]) -> str:
    """A dozen lines of rich markup."""
    promoted = sum(row["decision"] == "promoted" for row in report["versions"])
    rejected = len(report["versions"]) - promoted
    lines = [
        f"[bold]{count_of(report['events'], 'event')}[/], {count_of(report['examples'], 'example')}"
        f" ({report['holdout_examples']} held out), {counts_in_words(report)}",
        *(f"[yellow]{escape(caution)}[/]" for caution in _cautions(report)),
        f"{count_of(promoted, 'version')} promoted, {rejected} rejected;"
        f" {report['swaps']['count']} swaps, {report['swaps']['requests_failed']} failed requests",
        "",
        *_prequential(report),
        *_experts(report),
        *_retention(report["retention"]),
        *_mixtures(report),
        *(_evaluation(name, row) for name, row in report["evaluation"].items()),
        "",
        *_findings(report),
        _seconds(report),
    ]
    return "\n".join(lines)


def _cautions(report: dict[str, Any]) -> list[str]:
    lost, nothing = lost_labels(report), nothing_learned(report)
    told = ["" if lost in nothing else lost, nothing, splitting_in_words(report["broken_words"]), guessing(report)]
    return [caution for caution in told if caution]


def _prequential(report: dict[str, Any]) -> list[str]:
    """The headline, where it stands, and the table that shows it."""
    ours = report["prequential"]
    rows = [
        f"  {row.name:<32}{percent(row.whole):>12}{percent(row.macro_f1):>10}{percent(row.warm):>24}"
        f"{percent(row.warm_macro_f1):>10}"
        for row in comparison_rows(report)
    ]
    return [
        f"prequential accuracy   [bold]{percent(ours['accuracy'])}[/]  over {ours['n']:,} answers as served",
        *_macro_f1(ours),
        *filter(None, (verdict(report), verdict_from_first_version(report))),
        f"[dim]{LABELS_KNOWN}[/]",
        "",
        f"  {'accuracy and macro-F1 of':<32}{'whole stream':>22}{FROM_FIRST:>34}",
        *(f"[bold]{row}[/]" if OURS in row else row for row in rows),
        "",
    ]


def _macro_f1(ours: dict[str, Any]) -> list[str]:
    recalls = {label: row for label, row in ours["by_class"].items() if row["n"]}
    if not recalls:
        return []
    return [f"macro-F1               [bold]{percent(ours['macro_f1'])}[/]  {escape(recalls_in_words(recalls))}"]


def _experts(report: dict[str, Any]) -> list[str]:
    """What the answers were mixed from; nothing without a fast clock."""
    rows = [
        f"  {f'{row.name} ({row.what})':<49}{percent(row.alone):>8}{percent(row.served):>12}{percent(row.without):>12}"
        f"{weight_in_words(row.weight):>9}"
        for row in expert_rows(report)
    ]
    if not rows:
        return []
    head = f"  {'expert':<49}{'alone':>8}{'in answers':>12}{'without it':>12}{'weight':>9}"
    return [head, *rows, f"[dim]{TAKEN_OUT}[/]", ""]


def _retention(row: dict[str, Any]) -> list[str]:
    if not row["segments"]:
        return []
    average = f"{percent(row['average_accuracy'])} on average of {count_of(row['segments'], 'segment')}"
    return ["retention              " + ", ".join(part for part in (average, forgetting_in_words(row)) if part)]


def _mixtures(report: dict[str, Any]) -> list[str]:
    told = mixtures_in_words(report)
    return [f"at promotion           {told}"] if told else []


def _evaluation(name: str, row: dict[str, Any]) -> str:
    exam = f"{percent(row['accuracy'])}  of {row['n']:,}, macro-F1 {percent(row['macro_f1'])}"
    rivals = ", ".join(f"{NAMES[key]} {percent(one['accuracy'])}" for key, one in row["baselines"].items())
    return f"evaluation {escape(name):<12}{exam}  [dim]({rivals})[/]"


def _findings(report: dict[str, Any]) -> list[str]:
    told = [f"- {escape(sentence)}" for sentence in findings(report)]
    return ["[bold]What this stream showed[/]", *told, f"[dim]{BRACKETS}[/]", ""] if told else []


def _seconds(report: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    speed = report["examples_per_s"]
    return f"{parts}" + (f"; {speed:.0f} examples trained per second" if speed else "")
