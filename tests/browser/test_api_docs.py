"""/docs of both ports in a real browser: it shows the API, complains of nothing, and asks no other host."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from driftline.artefact.manifest import Signer, Trust
from driftline.base import Base
from driftline.registry import Registry
from driftline.topics.files import FileTopics
from serving.server import Server
from tests.fixtures.replicas import Replica, feed_config

WITHIN_S = 60


@pytest.fixture
def server(registry: Registry, signer: Signer, base: Base, tmp_path: Path) -> Iterator[Server]:
    with Replica(registry, Trust.of(signer.public_key), base, {"f": feed_config()}, tmp_path) as replica:
        yield replica.serve(FileTopics(tmp_path / "topics"))


def asked(browser: webdriver.Chrome) -> set[str]:
    """The hosts that the pages since the last call asked for something."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return {urlsplit(url).netloc for url in urls if url.startswith("http")}


@pytest.mark.parametrize(
    ("port", "operations"),
    [
        ("url", ["/v1/feeds", "/v1/feeds/{feed}/predict", "/v1/feeds/{feed}/labels", "/healthz", "/readyz"]),
        ("admin_url", ["/v1/status", "/v1/feeds/{feed}/{verb}"]),
    ],
)
def test_the_page_shows_the_api_and_asks_no_other_host(
    browser: webdriver.Chrome, server: Server, port: str, operations: list[str]
) -> None:
    url = getattr(server, port)
    browser.get("about:blank")
    asked(browser)
    browser.get_log("browser")
    browser.get(f"{url}/docs")
    WebDriverWait(browser, WITHIN_S).until(
        lambda page: len(page.find_elements(By.CSS_SELECTOR, ".opblock-summary-path")) >= len(operations)
    )
    shown = [one.get_attribute("data-path") for one in browser.find_elements(By.CSS_SELECTOR, ".opblock-summary-path")]
    assert set(operations) <= set(shown)
    assert browser.get_log("browser") == []
    assert asked(browser) == {urlsplit(url).netloc}


def test_a_request_can_be_tried_from_the_page(browser: webdriver.Chrome, server: Server) -> None:
    browser.get(f"{server.url}/docs")
    wait = WebDriverWait(browser, WITHIN_S)

    def click(selector: str) -> None:
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))[0].click()

    route = "#operations-feeds-feeds_v1_feeds_get"
    click(f"{route} .opblock-summary-control")
    click(f"{route} .try-out__btn")
    click(f"{route} .execute")
    answer = f"{route} .live-responses-table .response-col_description .highlight-code"
    shown = wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, answer))[0].text
    assert '"feed": "f"' in shown
