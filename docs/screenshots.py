"""docs/screenshots.md's pictures, made anew: three real runs, their pages, and a browser.

    nox -s screenshots

trains what is missing below ``.nox/screenshots`` (about ten minutes on one core), draws every
page, opens it in Chromium at two widths, light and dark, refuses one that scrolls sideways or
says something on its console, and lays the four looks of a place on a sheet.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import photographs
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
HEIGHT, SHOWN, GAP = 1500, 774, 12
"""Pixels of a page that are shown, of a sheet, and around its looks."""
MOST_BYTES = 150_000
QUALITIES = (80, 70, 60, 50, 40)
GREY = (120, 120, 120)
SMALL = ("--preset", "tiny", "--threads", "1")
RUNS = {
    "fashion-mnist": ("moco-v2", "--epochs", "4", "--evaluate-every", "1"),
    "photographs": ("simclr", "--epochs", "30", "--evaluate-every", "5", "--log-every", "20"),
    "transformer": (
        *("moco-v3", "--backbone", "moco-v3-vit-tiny", "--set", "backbone.patch=8"),
        *("--set", "optimizer.lr=0.001", "--set", "views.flip_p=0.0"),
        *("--epochs", "10", "--evaluate-every", "2", "--log-every", "20"),
    ),
}
COMPARED = (
    *("compare", "simclr", "moco-v2", "--with", "lightly", "--data", "moved-digits"),
    *("--preset", "tiny", "--set", "views.flip_p=0.0", "--steps", "99", "--seeds", "2"),
)


@attrs.frozen
class Place:
    """What a sheet shows: a part of a page.

    Attributes:
        name: of the picture.
        page: the file, below the folder of the work, or below the root.
        part: a selector of the element at the top; empty: the page's own.
        wait: a selector of what is there once the page is drawn.
    """

    name: str
    page: str
    part: str = ""
    wait: str = "[data-chart] svg"


PLACES = (
    Place("fashion-mnist", "runs/fashion-mnist/report.html"),
    Place("fashion-mnist-map", "runs/fashion-mnist/report.html", "#map"),
    Place("photographs", "runs/photographs/report.html"),
    Place("photographs-neighbours", "runs/photographs/report.html", "#neighbours"),
    Place("transformer", "runs/transformer/report.html", "#attention"),
    Place("three", "three.html"),
    Place("compared", "compared.html"),
    Place("start", ".nox/site/index.html", wait="h1"),
)


def main() -> None:
    """Do what is missing, and write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / ".nox" / "screenshots")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "looks")
    parser.add_argument("--only", nargs="*", help="names of sheets")
    parser.add_argument("--whole", action="store_true", help="keep whole pages too, as PNG")
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    make_runs(work)
    draw_pages(work)
    asked.out.mkdir(parents=True, exist_ok=True)
    with Image.open(work / "views.png") as drawn:
        save(drawn.convert("RGB"), asked.out / "views.webp")
    with browser() as opened:
        for place in PLACES:
            if not asked.only or place.name in asked.only:
                looks = [shot(opened, place, work, *look, whole=asked.whole) for look in LOOKS]
                save(sheet(looks), asked.out / f"{place.name}.webp")


def coview(work: Path, *words: object) -> None:
    """Run a command of coview in the work's folder, on one thread."""
    command = [sys.executable, "-m", "coview", *map(str, words)]
    sys.stderr.write(f"{shlex.join(command[2:])}\n")
    subprocess.run(command, cwd=work, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def make_runs(work: Path) -> None:
    """Train the three runs that are not finished yet."""
    if not FASHION_MNIST.is_dir():
        sys.exit(f"There is no {FASHION_MNIST}: apt-get install dataset-fashion-mnist")
    if not (work / "photographs").is_dir():
        photographs.write(work / "photographs")
    data = {
        "fashion-mnist": f"idx:{FASHION_MNIST}",
        "photographs": "photographs",
        "transformer": "moved-digits",
    }
    for name, words in RUNS.items():
        folder = work / "runs" / name
        if not (folder / "backbone.safetensors").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            coview(work, "train", *words, "--data", data[name], *SMALL, "--out", f"runs/{name}")


def draw_pages(work: Path) -> None:
    """Write every page anew, so that it is today's."""
    for name in RUNS:
        coview(work, "report", f"runs/{name}")
    coview(work, "report", *(f"runs/{name}" for name in RUNS), "--out", "three.html")
    coview(work, "views", "runs/photographs", "--images", 6, "--out", "views.png")
    coview(work, *COMPARED)
    newest = max((work / "comparisons").glob("*.html"), key=lambda path: path.stat().st_mtime)
    shutil.copy(newest, work / "compared.html")


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a Chromium that shows nothing."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit("There is no Chromium: apt-get install chromium")
    with sync_playwright() as session:
        yield session.chromium.launch(executable_path=program, args=["--no-sandbox"])


def shot(
    opened: Any, place: Place, work: Path, width: int, scheme: str, *, whole: bool
) -> Image.Image:
    """Return a part of a page as a screen of this width shows it."""
    file = work / place.page if (work / place.page).is_file() else ROOT / place.page
    tab = opened.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(file.as_uri())
    tab.wait_for_selector(place.wait)
    tab.wait_for_load_state("networkidle")
    look = f"{place.name}, {width} pixels, {scheme}"
    wider = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    if wider > 0 or said:
        sys.exit(f"{look}: {wider} pixels too wide; console: {json.dumps(said)}")
    if whole:
        folder = work / "whole"
        folder.mkdir(exist_ok=True)
        tab.screenshot(path=folder / f"{place.name}-{width}-{scheme}.png", full_page=True)
    if place.part:
        tab.locator(place.part).first.evaluate("one => one.scrollIntoView({behavior: 'instant'})")
    picture = Image.open(io.BytesIO(tab.screenshot()))
    tab.close()
    return picture.convert("RGB")


def sheet(looks: Sequence[Image.Image]) -> Image.Image:
    """Return the looks beside each other, at one scale."""
    inside = SHOWN - 2 * GAP
    small = [look.resize((look.width * inside // look.height, inside)) for look in looks]
    width = GAP + sum(look.width + GAP for look in small)
    found, left = Image.new("RGB", (width, SHOWN), GREY), GAP
    for look in small:
        found.paste(look, (left, GAP))
        left += look.width + GAP
    return found


def save(picture: Image.Image, file: Path) -> None:
    """Write a picture as WebP, as good as its size allows."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "webp", quality=quality, method=6)
        if len(buffer.getvalue()) <= MOST_BYTES:
            break
    file.write_bytes(buffer.getvalue())
    sys.stderr.write(f"{file.name}: {len(buffer.getvalue()) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
