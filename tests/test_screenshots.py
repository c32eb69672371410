"""The sheet of screenshots: every picture is there, is modest, and is one that the script makes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent.parent / "docs"
LOOKS = DOCS / "pictures" / "looks"
MOST, ALL = 150_000, 1_500_000


def test_every_picture_of_the_page_is_there_and_modest() -> None:
    page = (DOCS / "screenshots.md").read_text(encoding="utf-8")
    shown = {Path(path).name for path in re.findall(r"\]\(pictures/looks/([^)]+)\)", page)}
    sizes = {path.name: path.stat().st_size for path in LOOKS.iterdir()}
    assert shown == set(sizes) and len(shown) > 7
    assert max(sizes.values()) <= MOST and sum(sizes.values()) <= ALL
    for name in shown:
        with Image.open(LOOKS / name) as picture:
            picture.load()
            assert picture.width > 400


def test_the_script_makes_what_the_page_shows() -> None:
    tree = ast.parse((DOCS / "screenshots.py").read_text(encoding="utf-8"))
    named = {
        str(ast.literal_eval(call.args[0]))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Place"
    }
    assert {f"{name}.webp" for name in (*named, "views")} == {p.name for p in LOOKS.iterdir()}
