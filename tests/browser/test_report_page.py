"""A report's page in a real browser, from a file: it draws, tells its figures by mouse and key, fits every width, keeps
its policy, and can be read without script."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from replay.page import render_page
from replay.tables import RIVALS
from tests.fixtures.reports import make_report, with_evaluation

WITHIN_S = 30
REPORT = with_evaluation(make_report(5_000, updates=20, segments=10, fast=True))
BASELINES = ("frozen-mixture", "online-head", "last-label", "majority")
EXPERTS = tuple(REPORT["experts"])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(REPORT), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> Iterator[webdriver.Chrome]:
    browser.get_log("browser")
    browser.get(address)
    yield browser
    for command, settings in (
        ("Emulation.clearDeviceMetricsOverride", {}),
        ("Emulation.setEmulatedMedia", {"media": "", "features": []}),
        ("Emulation.setScriptExecutionDisabled", {"value": False}),
    ):
        browser.execute_cdp_cmd(command, settings)


def sized(page: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    WebDriverWait(page, WITHIN_S).until(
        lambda p: p.execute_script(
            "return innerWidth === arguments[0] && [...document.querySelectorAll('.chart canvas')]"
            ".every((c) => Math.abs(c.clientWidth - c.closest('.chart').clientWidth) < 1)",
            width,
        )
    )


def chart(page: webdriver.Chrome, name: str = "accuracy") -> WebElement:
    return page.find_element(By.ID, name)


def note(page: webdriver.Chrome, name: str = "accuracy") -> str:
    return page.find_element(By.ID, f"{name}-note").text


def values(page: webdriver.Chrome, name: str = "accuracy") -> list[str]:
    return [one.text for one in page.find_elements(By.CSS_SELECTOR, f"#{name}-legend output")]


def expected(window: int) -> list[str]:
    rivals = [REPORT["baselines"][name]["windows"][window] for name in RIVALS]
    experts = [REPORT["experts"][name]["windows"][window] for name in EXPERTS]
    ours = REPORT["prequential"]["windows"][window]["accuracy"]
    return [f"{100 * share:.1f} %" for share in (ours, *rivals, *experts)]


def weights(window: int) -> list[str]:
    return [f"{REPORT['experts'][name]['weights'][window]:.2f}" for name in EXPERTS]


def button(page: webdriver.Chrome, chart: str, line: str) -> WebElement:
    """What shows and hides the line of this name."""
    [found] = [
        one
        for one in page.find_elements(By.CSS_SELECTOR, f"#{chart}-legend button")
        if one.find_element(By.TAG_NAME, "span").text == line
    ]
    return found


def painted(page: webdriver.Chrome, name: str = "accuracy") -> list[int]:
    """The chart's pixels that are not empty, each as one number of red, green and blue."""
    return page.execute_script(
        "const c = document.querySelector(`#${arguments[0]} canvas`), all = new Set();"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) all.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);"
        "return [...all]",
        name,
    )


def colour(page: webdriver.Chrome, name: str) -> int:
    script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    return int(page.execute_script(script, f"--{name}")[1:], 16)


def test_every_line_is_drawn_and_nothing_is_complained_of(page: webdriver.Chrome) -> None:
    colours = set(painted(page))
    assert {colour(page, name) for name in ("ours", *BASELINES)} <= colours
    experts = {colour(page, name) for name in EXPERTS}
    assert not experts & colours, "each expert alone is hidden until it is asked for"
    assert experts <= set(painted(page, "weights"))
    assert page.get_log("browser") == []


def test_a_script_that_is_not_the_pages_own_does_not_run(page: webdriver.Chrome) -> None:
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s);"
    )
    assert page.execute_script("return window.ran") is None
    assert "Content Security Policy" in json.dumps(page.get_log("browser"))


@pytest.mark.parametrize("width", [360, 390, 768, 1440])
def test_it_fits_every_width(page: webdriver.Chrome, width: int) -> None:
    sized(page, width)
    assert page.execute_script("const r = document.documentElement; return r.scrollWidth - r.clientWidth") == 0
    cut = page.execute_script(
        "return [...document.querySelectorAll('h1, h2, p, button, .figures div')]"
        ".filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline')"
        ".map((one) => one.textContent)"
    )
    assert cut == []


def test_the_last_window_is_told_first_and_the_mouse_tells_the_others(page: webdriver.Chrome) -> None:
    sized(page, 1440)
    assert note(page).startswith("Events 4,751 to 5,000, version 20")
    assert values(page) == expected(19)
    plot = page.find_element(By.CSS_SELECTOR, "#accuracy .u-over")
    ActionChains(page).move_to_element_with_offset(plot, -plot.size["width"] // 2 + 3, 0).perform()
    WebDriverWait(page, WITHIN_S).until(
        lambda p: note(p).startswith("Events 1 to 250, version 1 (went live: 1 at 101)")
    )
    assert values(page) == expected(0)


def test_arrow_keys_go_from_window_to_window_and_say_what_they_find(page: webdriver.Chrome) -> None:
    chart(page).send_keys(Keys.HOME)
    assert values(page) == expected(0)
    chart(page).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert note(page).startswith("Events 251 to 500, version ")
    said = chart(page).get_attribute("aria-valuetext") or ""
    assert said.startswith(note(page))
    assert f"online head on the frozen base {expected(1)[2]}" in said
    assert chart(page).get_attribute("aria-valuenow") == "2"
    chart(page).send_keys(Keys.END)
    assert values(page) == expected(19)


def test_a_line_can_be_hidden_by_key_and_shown_again(page: webdriver.Chrome) -> None:
    majority, green = button(page, "accuracy", "majority label"), colour(page, "majority")
    majority.send_keys(Keys.SPACE)
    assert majority.get_attribute("aria-pressed") == "false"
    WebDriverWait(page, WITHIN_S).until(lambda p: green not in painted(p))
    majority.send_keys(Keys.ENTER)
    WebDriverWait(page, WITHIN_S).until(lambda p: green in painted(p))


def test_an_experts_own_answers_are_shown_where_they_are_asked_for(page: webdriver.Chrome) -> None:
    words, pink = button(page, "accuracy", "words alone"), colour(page, "words")
    assert words.get_attribute("aria-pressed") == "false"
    words.click()
    WebDriverWait(page, WITHIN_S).until(lambda p: pink in painted(p))
    words = button(page, "weights", "words")
    assert words.get_attribute("aria-pressed") == "true"
    words.click()
    WebDriverWait(page, WITHIN_S).until(lambda p: pink not in painted(p, "weights"))
    assert pink in painted(page), "one chart's lines are not the other's"


def test_weights_are_told_by_key_each_chart_for_itself(page: webdriver.Chrome) -> None:
    assert values(page, "weights") == weights(19)
    chart(page, "weights").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert values(page, "weights") == weights(1)
    assert note(page, "weights").startswith("Events 251 to 500, version ")
    said = chart(page, "weights").get_attribute("aria-valuetext") or ""
    assert said.endswith(f"names {weights(1)[4]}")
    assert values(page) == expected(19), "the other chart stays where it is"


def test_dark_is_drawn_dark_and_paper_light(page: webdriver.Chrome) -> None:
    light = colour(page, "ours")
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": dark})
    WebDriverWait(page, WITHIN_S).until(lambda p: colour(p, "ours") != light and colour(p, "ours") in painted(p))
    WebDriverWait(page, WITHIN_S).until(lambda p: colour(p, "ridge") in painted(p, "weights"))
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    WebDriverWait(page, WITHIN_S).until(lambda p: colour(p, "ours") == light and light in painted(p))
    WebDriverWait(page, WITHIN_S).until(lambda p: colour(p, "ridge") in painted(p, "weights"))
    widths = "return [...document.querySelectorAll('.chart canvas')].map((c) => c.clientWidth)"
    assert page.execute_script(widths) == [640, 640]
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    WebDriverWait(page, WITHIN_S).until(lambda p: colour(p, "ours") in painted(p) and colour(p, "ours") != light)


@pytest.mark.parametrize("plot", ["accuracy", "weights"])
def test_a_plot_can_be_taken_away(page: webdriver.Chrome, tmp_path: Path, plot: str) -> None:
    settings: dict[str, Any] = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
    page.find_element(By.CSS_SELECTOR, f"a[download='reviews-{plot}.csv']").send_keys(Keys.ENTER)
    found = tmp_path / f"reviews-{plot}.csv"
    WebDriverWait(page, WITHIN_S).until(lambda _: found.exists() and found.stat().st_size)
    rows = list(csv.reader(found.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 1 + 20
    assert page.get_log("browser") == []


def test_without_script_the_figures_are_in_a_table(page: webdriver.Chrome, address: str) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.get(address)
    assert "The chart needs JavaScript" in page.find_element(By.TAG_NAME, "body").text
    for name, figures in (("accuracy", expected(19)), ("weights", weights(19))):
        assert not chart(page, name).is_displayed()
        figures_below = page.find_element(By.CSS_SELECTOR, f"#{name} ~ details")
        figures_below.find_element(By.TAG_NAME, "summary").click()
        cells = [one.text for one in figures_below.find_elements(By.CSS_SELECTOR, "tbody tr:last-child td")]
        assert cells[4:] == figures
