"""The report as one HTML page: what the stream showed, accuracy by window, experts, what was kept, every version.

The page is one file that asks nothing of any other: script and style stand in it, and its policy lets no other run.
Every string is escaped by the template; the chart's figures are JSON, escaped for HTML.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from driftline.phrases import percent
from driftline.reasons import decision_in_words
from driftline.records import GateDecision, GateReason
from driftline.splitting import splitting_in_words
from replay.chart import accuracy_chart, weight_chart
from replay.classes import classes_shown, confusions_shown, matrix_shown, sources_shown
from replay.comparison import NAMES, OURS, comparison_rows, verdict, verdict_from_first_version
from replay.findings import BRACKETS, findings
from replay.mixtures import mixtures_in_words
from replay.tables import accuracy_table, confusion_table, matrix_table, weight_table
from replay.words import (
    FROM_FIRST,
    LABELS_KNOWN,
    counts_in_words,
    few_windows,
    forgetting_in_words,
    guessing,
    lost_labels,
    nothing_learned,
)
from replay.worth import TAKEN_OUT, expert_rows, weight_in_words

SHADES = 10
"""So many steps lie between a share of 0 and of 1 in a matrix; `page.css` has their colours."""


def render_page(report: dict[str, Any]) -> str:
    """The page's HTML. `report` is the document of DESIGN §6."""
    environment = Environment(loader=PackageLoader("replay", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": percent, "shade": shade, "figure": figure}
    styles, scripts = [_uplot("uPlot.min.css"), _own("page.css")], [_uplot("uPlot.iife.min.js"), _own("chart.js")]
    charts = {"accuracy": accuracy_chart(report), "weights": weight_chart(report)}
    return environment.get_template("page.html.j2").render(
        report=report,
        policy=policy(scripts, styles),
        styles=styles,
        scripts=scripts,
        findings=findings(report),
        brackets=BRACKETS,
        charts={name: one for name, one in charts.items() if one},
        **charts,
        windows=accuracy_table(report),
        weight_rows=weight_table(report),
        experts=expert_rows(report),
        taken_out=TAKEN_OUT,
        matrix=matrix_table(report["retention"]["matrix"]),
        rows=comparison_rows(report),
        ours=OURS,
        names=NAMES,
        versions=version_rows(report),
        mixtures=mixtures_in_words(report),
        verdict=verdict(report),
        verdict_from_first_version=verdict_from_first_version(report),
        from_first=FROM_FIRST,
        counts=counts_in_words(report),
        lost=lost_labels(report),
        nothing=nothing_learned(report),
        forgetting=forgetting_in_words(report["retention"]),
        labels_known=LABELS_KNOWN,
        few_windows=few_windows(report),
        cautions=[text for text in (splitting_in_words(report["broken_words"]), guessing(report)) if text],
        classes=classes_shown(report),
        confusion=matrix_shown(report),
        confusions=confusions_shown(report),
        pairs=confusion_table(report["prequential"]["confusion"], report["labels"]),
        sources=sources_shown(report),
    )


def policy(scripts: list[Markup], styles: list[Markup]) -> str:
    """A Content-Security-Policy under which only these scripts and styles run, and nothing is fetched."""
    allowed = {"script-src": scripts, "style-src": styles}
    sources = {name: " ".join(f"'sha256-{_digest(text)}'" for text in texts) for name, texts in allowed.items()}
    fixed = {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    return "; ".join(f"{name} {source}" for name, source in (fixed | sources).items())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _own(name: str) -> Markup:
    return Markup(files("replay").joinpath(name).read_text(encoding="utf-8"))


def _uplot(name: str) -> Markup:
    """A file of the chart library, with the notice that its licence asks to go along."""
    folder = files("driftline").joinpath("static", "uplot")
    notice, text = (folder.joinpath(one).read_text(encoding="utf-8") for one in ("LICENSE", name))
    return Markup(f"/* uPlot\n{notice}\n*/\n{text}")


def shade(share: float) -> int:
    """The step of a share in 0..1, for its colour."""
    return round(share * SHADES)


def figure(value: float | None, unit: str) -> str:
    """A figure of a chart, as its script tells it, too: a `share` in percent, else a `weight`."""
    return percent(value) if unit == "share" else weight_in_words(value)


def version_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every version with the gate's decision in words."""
    return [
        {
            "version": row["version"],
            "parent": row["parent"],
            "fresh": row["fresh"],
            "replayed": row["examples"] - row["fresh"],
            "promoted": row["decision"] == "promoted",
            "words": decision_in_words(_decision(row)),
            "holdouts": row.get("holdouts"),
        }
        for row in report["versions"]
    ]


def _decision(row: dict[str, Any]) -> GateDecision:
    return GateDecision(
        promote=row["decision"] == "promoted", reasons=tuple(GateReason(**reason) for reason in row["reasons"])
    )
