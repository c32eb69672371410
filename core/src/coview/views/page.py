"""Images and their views as a page of HTML that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from torchvision.transforms.v2.functional import to_pil_image

from coview.views.sheet import Cell, Colour, in_colour, writing

LARGEST = 192
"""Pixels of the page that the longest side of the largest picture takes."""
STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 1rem; } h1 { font-size: 1.2rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; padding: .8rem 0; border-top: 1px solid #8886; }
figure { margin: 0; } figcaption { font-size: .8rem; max-width: 12rem; }
figcaption b { display: block; } ul { margin: 0; padding: 0; list-style: none; }
svg { display: block; max-width: 42vw; height: auto; image-rendering: pixelated; }
"""


def save_page(
    path: Path, heading: str, titles: Sequence[str], rows: Sequence[Sequence[Cell]]
) -> None:
    """Write a page with a row for each image, atomically.

    Args:
        path: of the file.
        heading: what is shown, in words.
        titles: of the columns; lines are separated by a line break.
        rows: the cells of each image; outlines are drawn over the picture, not into it.

    Raises:
        CoviewError: the file cannot be written.
    """
    scale = LARGEST / max(max(cell.picture.shape[-2:]) for row in rows for cell in row)
    shown = "\n".join(
        f'<div class="row">{"".join(map(_figure, row, titles, [scale] * len(row)))}</div>'
        for row in rows
    )
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{escape(heading)}</h1>\n{shown}\n</main></body></html>\n"
    )
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _figure(cell: Cell, title: str, scale: float) -> str:
    name, *below = title.splitlines()
    height, width = cell.picture.shape[-2:]
    frames = [_outline(*box) for box in cell.boxes]
    if cell.frame is not None:
        frames.append(_outline(cell.frame, 0, 0, height, width))
    words = "".join(f"<li>{escape(word)}</li>" for word in cell.caption)
    return (
        f'<figure><svg role="img" aria-label="{escape(name)}" viewBox="0 0 {width} {height}" '
        f'width="{width * scale:.0f}" height="{height * scale:.0f}">'
        f'<image href="{_data(cell)}" width="{width}" height="{height}"/>{"".join(frames)}</svg>'
        f"<figcaption><b>{escape(name)}</b>{escape(', '.join(below))}<ul>{words}</ul>"
        "</figcaption></figure>"
    )


def _outline(colour: Colour, top: float, left: float, height: float, width: float) -> str:
    return (
        f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" '
        f'fill="none" stroke="rgb{colour}" stroke-width="3" vector-effect="non-scaling-stroke"/>'
    )


def _data(cell: Cell) -> str:
    """Return a picture as an address that holds it."""
    file = BytesIO()
    to_pil_image(in_colour(cell.picture)).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
