"""The page in a real browser, where there is one: run by `nox -s browser`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview_report import looking
from coview_report.images import of_pixels
from coview_report.page import LIMIT, page
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

    def __init__(
        self, browser: Any, file: Path, width: int, scheme: str, wait: str = ".map svg"
    ) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 500
        )
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector(wait)


@pytest.fixture(params=LOOKS, ids=str)
def tab(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Tab]:
    opened = Tab(browser, file, *request.param)
    yield opened
    opened.page.close()


@pytest.fixture(scope="module")
def axe() -> str:
    place = os.environ.get("COVIEW_AXE", "")
    if not place:
        pytest.skip("axe-core is installed by nox -s browser")
    return Path(place).read_text(encoding="utf-8")


def serious(tab: Tab, axe: str) -> list[str]:
    """Return what keeps people out, by axe-core: rule and element."""
    tab.page.evaluate(axe)
    found = tab.page.evaluate("axe.run()")
    assert len(found["passes"]) > 5, "it looked at nothing"
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_nothing_keeps_people_out(tab: Tab, axe: str) -> None:
    assert serious(tab, axe) == []


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_nothing_keeps_people_out_of_comparisons(
    browser: Any, axe: str, trained: Path, tmp_path: Path, look: Any
) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    out = tmp_path / "several.html"
    out.write_text(page(read_all([trained, other])), "utf-8")
    tab = Tab(browser, out, *look, wait="[data-chart] svg")
    assert serious(tab, axe) == [] == tab.said
    tab.page.close()


def test_axe_would_find_something(browser: Any, axe: str, tmp_path: Path) -> None:
    out = tmp_path / "bad.html"
    words = "<p>word</p>" * 12
    out.write_text(f"<html lang=en><title>x</title><body><img src='data:,'>{words}</body></html>")
    tab = Tab(browser, out, 1280, "light", wait="p")
    assert [line.split(":")[0] for line in serious(tab, axe)] == ["image-alt"]
    tab.page.close()


def test_a_transformers_page(browser: Any, axe: str, photographs: Path, tmp_path: Path) -> None:
    coview.train(
        "simclr", photographs, out=tmp_path / "vit", backbone="vit_tiny_patch16_224",
        set={"backbone.patch": 8}, image_size=24, batch_size=16, preset="none", epochs=1,
        max_steps=1, device="cpu", progress=False, report=False,
    )  # fmt: skip
    out = tmp_path / "vit.html"
    out.write_text(page(read_all([tmp_path / "vit"]), looking.look(tmp_path / "vit")), "utf-8")
    tab = Tab(browser, out, 390, "dark")
    pictures = tab.page.locator("#attention img")
    assert pictures.count() == 6 * 5  # an image, the mean, and three heads
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth === 112)")
    assert serious(tab, axe) == []
    tab.page.close()


def test_arrows_go_through_the_map(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, 1280, "light")
    tab.page.locator(".map").first.focus()
    tab.page.keyboard.press("ArrowRight")
    image = tab.page.locator("#vg-tooltip-element.visible img")
    first = image.get_attribute("src")
    tab.page.keyboard.press("ArrowRight")
    assert image.get_attribute("src") != first
    tab.page.keyboard.press("Escape")
    assert tab.page.locator("#vg-tooltip-element.visible").count() == 0
    assert tab.said == []
    tab.page.close()


def test_nothing_goes_wrong_and_nothing_leaves(tab: Tab, file: Path) -> None:
    places = tab.page.locator("[data-chart]")
    assert places.count() == tab.page.locator("[data-chart] svg").count() >= 5
    assert tab.said == []
    others = [url for url in tab.asked if not url.startswith("data:")]
    assert others == [file.as_uri()]
    wider = tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wider <= 0, "the page is wider than the screen"


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_long_names_of_classes_are_not_cut(
    browser: Any, trained: Path, tmp_path: Path, look: Any
) -> None:
    names = tuple(f"immunohistochemistry {number}" for number in range(9))
    point = looking.look(trained, device="cpu").maps[0].points[0]
    points = tuple({**point, "x": n / 9, "class": name} for n, name in enumerate(names))
    drawn = looking.Map("PCA", points, names, 9, 9, "test")
    out = tmp_path / "names.html"
    out.write_text(page(read_all([trained]), looking.Looked(maps=(drawn,))), "utf-8")
    tab = Tab(browser, out, *look)
    edges = tab.page.locator("#map .legend span, svg text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert len(edges) > 9 and max(edges) <= look[0]
    dots = tab.page.locator("#map .legend .dot").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    fills = tab.page.locator("#map .mark-symbol path").evaluate_all(
        "all => all.map(one => getComputedStyle(one).fill)"
    )
    assert dots == fills and len(set(dots)) == 9
    tab.page.close()


def test_a_long_run_with_many_images_opens_at_once(
    browser: Any, written: Any, logged: Any, tmp_path: Path
) -> None:
    run = read_all([written(lines=logged(1_000, per_epoch=50))])
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(
        looking.MOST_POINTS, 3, looking.THUMBNAIL, looking.THUMBNAIL, generator=generator
    )
    points = tuple(
        {
            "x": n % 30,
            "y": n // 30,
            "class": str(n % 10),
            "image": of_pixels(one, looking.THUMBNAIL),
        }
        for n, one in enumerate(noise)
    )
    names = tuple(map(str, range(10)))
    drawn = looking.Map("PCA", points, names, len(points), 50_000, "test")
    text = page(run, looking.Looked(maps=(drawn,)))
    assert len(text.encode()) < LIMIT
    out = tmp_path / "long.html"
    out.write_text(text, "utf-8")
    began = time.perf_counter()
    tab = Tab(browser, out, 1280, "light")
    tab.page.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every(one => one.querySelector('svg'))"
    )
    took = time.perf_counter() - began
    assert took < 3, f"{took:.2f} s"
    assert "of 50,000 test images" in tab.page.locator("#map").inner_text()
    assert tab.said == []
    tab.page.close()


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
    assert any("map" in str(name) for name in reached)
    tab.page.close()
