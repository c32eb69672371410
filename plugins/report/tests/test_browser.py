"""The page in a real browser, where there is one: run by `nox -s browser`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coview_report import looking
from coview_report.page import page
from coview_report.reading import read_all

# Only the session asks for a browser: importing the library and starting one takes seconds.
if not os.environ.get("COVIEW_BROWSER"):
    pytest.skip("run by nox -s browser", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")
PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not PROGRAM:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as session:
        opened = session.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    out.write_text(page(read_all([trained]), looking.look(trained, device="cpu")), "utf-8")
    return out


class Tab:
    """A page that was opened, what it said on its console, and what it asked for."""

    def __init__(self, browser: Any, file: Path, width: int, scheme: str) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 500
        )
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector(".map svg")


@pytest.fixture(params=LOOKS, ids=str)
def tab(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    opened = Tab(browser, file, *request.param)
    yield opened
    opened.page.close()


def test_nothing_goes_wrong_and_nothing_leaves(tab: Tab, file: Path) -> None:
    places = tab.page.locator("[data-chart]")
    assert places.count() == tab.page.locator("[data-chart] svg").count() >= 5
    assert tab.said == []
    others = [url for url in tab.asked if not url.startswith("data:")]
    assert others == [file.as_uri()]
    wider = tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0, "the page is wider than the screen"


def test_pointing_shows_the_image(tab: Tab) -> None:
    place = tab.page.locator(".map").first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 200
    if tab.page.viewport_size["width"] < 500:
        tab.page.touchscreen.tap(x, y)
    else:
        tab.page.mouse.move(x, y)
    image = tab.page.locator("#vg-tooltip-element.visible img")
    image.wait_for(timeout=5_000)
    assert image.get_attribute("src").startswith("data:image/")
    assert image.evaluate("element => element.naturalWidth") > 0


def test_pointing_at_a_curve_tells_its_value(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, 1280, "light")
    place = tab.page.locator("[data-chart=loss]")
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 90)
    told = tab.page.locator("#vg-tooltip-element.visible").inner_text()
    assert "epoch" in told and "Loss" in told and "undefined" not in told
    tab.page.close()


def test_the_colours_follow_the_system(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, 1280, "light")
    stroke = "document.querySelector('[data-chart=loss] .mark-line path').getAttribute('stroke')"
    before = tab.page.evaluate(stroke)
    tab.page.emulate_media(color_scheme="dark")
    tab.page.wait_for_function(f"{stroke} !== {before!r}")
    assert tab.said == []
    tab.page.close()


def test_the_keyboard_reaches_what_opens_and_scrolls(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, 390, "light")
    reached = set()
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        reached.add(
            tab.page.evaluate("document.activeElement.className || document.activeElement.tagName")
        )
    assert {"near", "scroll sheet", "SUMMARY"} <= reached
    tab.page.close()
