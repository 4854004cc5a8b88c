"""The page as a document: it asks for nothing, runs nothing that its policy does not name, and can be read by everyone.

How it looks and works in a browser is in tests/browser/test_report_page.py.
"""

import base64
import csv
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from driftline.experts import EXPERTS
from driftline.phrases import percent
from replay.chart import STYLES, accuracy_chart, weight_chart
from replay.mixtures import mixtures_in_words
from replay.page import figure, render_page, shade
from replay.tables import accuracy_table, confusion_table, matrix_table, weight_table
from tests.fixtures.reports import make_report, with_evaluation

CSS = (Path(__file__).parents[2] / "replay" / "page.css").read_text(encoding="utf-8")
HOSTILE = "</script><img src=x onerror=alert(1)>"


class Parsed(HTMLParser):
    """Every element's attributes, and the text of scripts and styles as a browser sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._open: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.texts:
            self._open = tag
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = None if tag == self._open else self._open

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, found in self.elements if (value := found.get(name, None)) is not None]


@pytest.fixture(scope="module")
def page() -> Parsed:
    return Parsed(render_page(with_evaluation(make_report(fast=True))))


# --- one file


def test_nothing_is_asked_for_and_nothing_stands_in_an_attribute_that_runs(page: Parsed) -> None:
    links = [value for name in ("src", "href", "action", "srcset") for value in page.attributes(name)]
    assert links
    assert [link for link in links if not link.startswith("data:")] == []
    running = {name for _, found in page.elements for name in found if name == "style" or name.startswith("on")}
    assert running == set()


def test_the_policy_names_every_script_and_style_by_its_digest_and_nothing_else(page: Parsed) -> None:
    [policy] = [found["content"] for tag, found in page.elements if tag == "meta" and "http-equiv" in found]
    rules = dict(rule.split(" ", 1) for rule in (policy or "").split("; "))
    *data, library, own = page.texts["script"]
    scripts = [library, own]
    assert [json.loads(one)["events"] for one in data] == [1500, 1500], "what is no program needs no leave"
    for name, texts in (("script-src", scripts), ("style-src", page.texts["style"])):
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert rules[name] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'",) * 3


def test_the_chart_library_goes_with_its_licence(page: Parsed) -> None:
    for text in (page.texts["script"][-2], page.texts["style"][0]):
        assert "The MIT License" in text
        assert "Copyright (c) 2022 Leon Sorokin" in text


def test_a_long_stream_of_many_classes_makes_a_small_page() -> None:
    labels = [f"intent {i}" for i in range(150)]
    fast = make_report(20_000, fast=True)
    experts = {name: fast[name] for name in ("experts", "pulses")}
    assert len(render_page(make_report(20_000, labels, updates=80, segments=16) | experts)) < 600_000


def test_a_hostile_name_stays_a_name() -> None:
    page = render_page(make_report(300, (HOSTILE, "neutral")) | {"feed": HOSTILE})
    assert HOSTILE not in page
    parsed = Parsed(page)
    assert [found for tag, found in parsed.elements if tag == "img"] == []
    assert len(parsed.texts["script"]) == 3


@pytest.mark.parametrize("events", [0, 1, 249, 251])
def test_a_short_stream_has_a_page_too(events: int) -> None:
    report = make_report(events, cold=0, updates=min(events, 1), segments=1)
    page = Parsed(render_page(report))
    assert ("accuracy" in page.attributes("id")) == (events > 0)


# --- the figures of the plots


def read_csv(link: str) -> list[list[str]]:
    kind, _, text = link.partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    return list(csv.reader(io.StringIO(base64.b64decode(text).decode(), newline="")))


def test_every_plot_can_be_taken_away_with_all_its_digits(page: Parsed) -> None:
    report = make_report(fast=True)
    links = {found["download"]: found["href"] or "" for tag, found in page.elements if tag == "a"}
    assert set(links) == {f"reviews-{name}.csv" for name in ("accuracy", "weights", "confusion", "retention")}
    head, *rows = read_csv(links["reviews-accuracy.csv"])
    assert head[4:6] == ["Driftline, as served", "experts on the frozen base"]
    assert head[6:9] == ["online head on the frozen base", "last label", "majority label"]
    assert head[9:] == [f"{name} alone" for name in EXPERTS]
    assert [float(row[4]) for row in rows] == [one["accuracy"] for one in report["prequential"]["windows"]]
    assert [float(row[6]) for row in rows] == report["baselines"]["online_head"]["windows"]
    assert [float(row[10]) for row in rows] == report["experts"]["ridge"]["windows"]
    head, *rows = read_csv(links["reviews-weights.csv"])
    assert head[4:] == list(EXPERTS)
    assert [float(row[8]) for row in rows] == report["experts"]["names"]["weights"]
    matrix = [
        [float(cell) if cell else None for cell in row[1:]] for row in read_csv(links["reviews-retention.csv"])[1:]
    ]
    assert matrix == report["retention"]["matrix"]
    pairs = {(label, answer): int(n) for label, answer, n in read_csv(links["reviews-confusion.csv"])[1:]}
    assert pairs == {(a, b): n for a, row in report["prequential"]["confusion"].items() for b, n in row.items()}
    assert next(iter(pairs))[0] == "negative"
    missing = render_page(make_report())
    assert ">no answer</th>" in missing, "without a fast clock 100 events came before the first version"
    assert ("negative", "") not in pairs


def test_a_name_with_commas_quotes_and_lines_survives_the_csv() -> None:
    odd = 'a,"b"\nc'
    assert read_csv(confusion_table({odd: {odd: 3}}, [odd]).link)[1:] == [[odd, odd, "3"]]
    assert read_csv(matrix_table([]).link) == [["after learning segment"]]


def test_a_window_tells_its_events_from_1_its_version_and_the_swaps_in_it() -> None:
    report = make_report(600, cold=250, updates=3)
    at = [one["scored"] for one in report["swaps"]["at_event"]]
    assert at == [250, 366, 483]
    rows = [row[:4] for row in accuracy_table(report).rows]
    assert rows == [(1, 250, 0, ""), (251, 500, 3, "1 at 251; 2 at 367; 3 at 484"), (501, 600, 3, "")]
    drawn = accuracy_chart(report)
    assert drawn is not None
    assert drawn["notes"][:2] == [
        "Events 1 to 250, version 0",
        "Events 251 to 500, version 3 (went live: 1 at 251; 2 at 367; 3 at 484)",
    ]
    assert (drawn["x"], drawn["swaps"], drawn["events"]) == ([125.0, 375.0, 550.0], at, 600)
    assert drawn["lines"][0]["name"] == "Driftline, as served"


# --- experts


def test_weights_are_drawn_from_0_up_and_an_experts_own_answers_are_hidden_at_first() -> None:
    report = make_report(600, cold=250, updates=3, fast=True)
    accuracies, weights = accuracy_chart(report), weight_chart(report)
    assert accuracies is not None
    assert weights is not None
    assert (weights["x"], weights["swaps"], weights["notes"]) == tuple(
        accuracies[key] for key in ("x", "swaps", "notes")
    )
    assert [line["name"] for line in weights["lines"]] == list(EXPERTS)
    assert {line["name"]: line["values"][0] for line in weights["lines"]}["head"] is None, "it spoke from event 251 on"
    assert max(report["experts"]["head"]["weights"][1:]) < weights["top"] < 1.5
    assert {line["name"] for line in accuracies["lines"] if not line["shown"]} == {f"{name} alone" for name in EXPERTS}
    assert (accuracies["unit"], accuracies["top"], weights["unit"]) == ("share", 1.0, "weight")
    assert weight_table(report).rows[1][5] == report["experts"]["ridge"]["weights"][1]


def test_the_table_of_experts_says_what_each_one_was_worth(page: Parsed) -> None:
    report = make_report(fast=True)
    text = render_page(report)
    section = text[text.index("<h2>Experts</h2>") : text.index("<h2>Class by class")]
    for name, row in report["experts"].items():
        cells = [f"{100 * row[key]:.1f} %" for key in ("accuracy", "ours", "without")] + [f"{row['weight']:.2f}"]
        assert f"<b>{name}</b>" in section
        assert all(f'<td class="n">{cell}</td>' in section for cell in cells)
    assert {"accuracy-data", "weights-data"} <= set(page.attributes("id"))


def test_without_a_fast_clock_nothing_is_said_of_experts() -> None:
    page = render_page(make_report())
    assert weight_chart(make_report()) is None
    assert "Experts</h2>" not in page
    assert "weights" not in Parsed(page).attributes("id")


def test_each_version_shows_its_mixture_beside_its_head() -> None:
    report = make_report(fast=True)
    report["versions"][1]["holdouts"] = None  # one that was rejected
    text = render_page(report)
    table = text[text.index("Versions and the gate</h2>") :]
    assert mixtures_in_words(report) in table
    assert ">mixture</th>" in table
    cells = re.findall(r'<td class="n">\d+ \+ \d+</td><td class="n">(.*?)</td><td class="n">(.*?)</td>', table)
    shown = [row["holdouts"] or {"head": None, "mixture": None} for row in report["versions"]]
    assert cells == [(percent(row["head"]), percent(row["mixture"])) for row in shown]
    for older in (make_report(), {**report, "versions": [_before_format_5(row) for row in report["versions"]]}):
        assert ">mixture</th>" not in render_page(older)


def _before_format_5(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "holdouts"}


def test_a_fast_clock_of_a_stream_without_labels_has_a_table_and_nothing_to_draw() -> None:
    page = Parsed(render_page(make_report(0, cold=0, updates=0, segments=0, fast=True)))
    assert not {"accuracy", "weights"} & set(page.attributes("id"))


def test_a_figure_is_told_in_its_unit() -> None:
    assert [figure(0.756, "share"), figure(0.756, "weight"), figure(None, "weight")] == ["75.6 %", "0.76", "–"]


# --- for every eye


def test_lines_are_told_apart_without_colour() -> None:
    for marks in ([style.dash for style in STYLES.values()], [style.symbol for style in STYLES.values()]):
        assert len(set(marks)) == len(STYLES)


def palettes() -> list[dict[str, str]]:
    """The light and the dark colours."""
    return [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r"{([^{}]*--paper:[^{}]*)}", CSS)]


def luminance(colour: tuple[float, ...]) -> float:
    """WCAG 2.2's relative luminance of sRGB in 0..1."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


@pytest.mark.parametrize("colours", palettes(), ids=["light", "dark"])
def test_text_and_lines_stand_out_as_wcag_asks(colours: dict[str, str]) -> None:
    lines = [key.replace("_", "-") for key in STYLES]
    for name, ground in itertools.product(["ink", "quiet", "good", "bad", *lines], ["paper", "card"]):
        assert contrast(rgb(colours[name]), rgb(colours[ground])) >= 4.5, (name, ground)
    card, heat = rgb(colours["card"]), rgb(colours["heat"])
    for step in range(shade(1.0) + 1):
        mixed = tuple(a + (b - a) * step / 10 for a, b in zip(card, heat, strict=True))
        assert contrast(rgb(colours["ink"]), mixed) >= 4.5, step


def test_every_step_of_a_share_has_its_colour() -> None:
    assert {shade(share / 1000) for share in range(1001)} == {int(step) for step in re.findall(r"\.heat-(\d+) ", CSS)}


def test_tables_name_their_rows_and_columns_and_scroll_by_keyboard(page: Parsed) -> None:
    heads = [found for tag, found in page.elements if tag == "th"]
    assert all(found.get("scope") in ("row", "col") for found in heads)
    wide = [found for _, found in page.elements if found.get("class") == "wide"]
    assert len(wide) == sum(tag == "table" for tag, _ in page.elements)
    assert all(found.get("tabindex") == "0" and found.get("aria-label") for found in wide)


def test_baselines_stand_beside_ours_on_the_evaluation_file() -> None:
    report = with_evaluation(make_report())
    text = render_page(report)
    exam = text[text.index("on the evaluation file</h2>") :]
    for name in ("online_head", "first_version"):
        assert f"{100 * report['evaluation']['all']['baselines'][name]['accuracy']:.1f} %" in exam
