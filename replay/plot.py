"""The report as one self-contained HTML page: accuracy by window, the accuracy matrix, every version and why.

The script library is inside the page, so that it opens without a network. Every string is escaped by the template.
"""

from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from driftline.phrases import percent
from driftline.reasons import decision_in_words
from driftline.records import GateDecision, GateReason
from driftline.splitting import splitting_in_words
from replay.classes import classes_shown, confusions_shown, matrix_shown, sources_shown
from replay.comparison import NAMES, OURS, comparison_rows, verdict, verdict_after_cold_start
from replay.words import (
    LABELS_KNOWN,
    counts_in_words,
    few_windows,
    forgetting_in_words,
    guessing,
    lost_labels,
    nothing_learned,
)

COLOUR = "#1f5fa8"
RIVALS = {
    "online_head": {"color": "#c2571a", "dash": "solid", "symbol": "square"},
    "last_label": {"color": "#8d5aa6", "dash": "dash", "symbol": "diamond"},
    "majority": {"color": "#4d7a52", "dash": "dot", "symbol": "x"},
}
"""Told apart in grey print too: by the dash, and by the symbol where there are few windows."""
PAGE_WIDTH = 1000
"""Pixels that a figure has; a matrix of few segments takes less."""
FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
SCALE = [[0.0, "#f7f2e8"], [0.5, "#9db9d6"], [1.0, "#1f5fa8"]]


def render_page(report: dict[str, Any]) -> str:
    """The page's HTML. `report` is the document of DESIGN §6."""
    environment = Environment(loader=PackageLoader("replay", "."), autoescape=select_autoescape(default=True))
    environment.filters["percent"] = percent
    return environment.get_template("page.html.j2").render(
        report=report,
        accuracy=_embed(accuracy_figure(report), script=True),
        matrix=_embed(matrix_figure(report["retention"]["matrix"])) if report["retention"]["segments"] else None,
        rows=comparison_rows(report),
        ours=OURS,
        versions=version_rows(report),
        verdict=verdict(report),
        verdict_after_cold_start=verdict_after_cold_start(report),
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
        sources=sources_shown(report),
    )


def accuracy_figure(report: dict[str, Any]) -> go.Figure:
    """Prequential accuracy by window of 250 labelled events: ours bold, the baselines thin, a tick for each swap."""
    windows = report["prequential"]["windows"]
    middles = [(w["start"] + w["end"]) / 2 for w in windows]
    figure = go.Figure()
    for name, style in RIVALS.items():
        figure.add_scatter(
            x=middles,
            y=report["baselines"][name]["windows"],
            name=NAMES[name],
            line={"color": style["color"], "width": 1.8, "dash": style["dash"]},
            marker={"symbol": style["symbol"], "size": 7},
        )
    figure.add_scatter(
        x=middles,
        y=[w["accuracy"] for w in windows],
        name=OURS,
        line={"color": COLOUR, "width": 3},
        cliponaxis=False,
        customdata=[w["version"] for w in windows],
        hovertemplate="%{y:.1%} with version %{customdata}",
    )
    swaps = report["swaps"]["at_event"]
    figure.add_scatter(
        x=[s["scored"] for s in swaps],
        y=[0.02] * len(swaps),
        name="swap to a new version",
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 11, "color": COLOUR, "line": {"width": 1.5}},
        customdata=[s["version"] for s in swaps],
        hovertemplate="version %{customdata} live",
    )
    figure.update_layout(hovermode="x unified", height=420, **_layout())
    figure.update_xaxes(
        title="labelled events, in the order they were answered",
        rangemode="tozero",
        gridcolor="#eceef1",
        zeroline=False,
    )
    figure.update_yaxes(
        title="accuracy in the window", range=[0, 1], tickformat=".0%", gridcolor="#eceef1", zeroline=False
    )
    return figure


def matrix_figure(matrix: list[list[float | None]]) -> go.Figure:
    """Row i: after segment i; column j: accuracy on the hold-outs of segment j. Above the diagonal: not yet seen."""
    labels = [str(i + 1) for i in range(len(matrix))]
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=labels,
            y=labels,
            zmin=0,
            zmax=1,
            colorscale=SCALE,
            text=[["" if cell is None else f"{100 * cell:.0f}" for cell in row] for row in matrix],
            texttemplate="%{text}",
            hovertemplate="after segment %{y}, on segment %{x}: %{z:.1%}<extra></extra>",
            colorbar={"tickformat": ".0%", "outlinewidth": 0, "thickness": 12},
            xgap=2,
            ygap=2,
            hoverongaps=False,
        )
    )
    width = 180 + 72 * max(len(matrix), 3)  # the axis title needs as much
    figure.update_layout(
        height=140 + 34 * max(len(matrix), 4), width=width if width < PAGE_WIDTH else None, **_layout()
    )
    figure.update_xaxes(title="measured on the hold-outs of segment", type="category", showgrid=False, side="bottom")
    figure.update_yaxes(title="after learning segment", type="category", autorange="reversed", showgrid=False)
    return figure


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
        }
        for row in report["versions"]
    ]


def _decision(row: dict[str, Any]) -> GateDecision:
    return GateDecision(
        promote=row["decision"] == "promoted", reasons=tuple(GateReason(**reason) for reason in row["reasons"])
    )


def _embed(figure: go.Figure, *, script: bool = False) -> Markup:
    """The figure's own HTML; its strings are JSON inside a script, escaped by the plotting library."""
    library = "inline" if script else False
    return Markup(figure.to_html(full_html=False, include_plotlyjs=library, config={"displayModeBar": False}))


def _layout() -> dict[str, Any]:
    return {
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": "#2b2f36"},
        "margin": {"l": 70, "r": 20, "t": 30, "b": 70},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
    }
