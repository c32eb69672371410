"""A sheet of pictures in rows and columns, with titles above and captions below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from coview.errors import CoviewError
from coview.files import replacing

SIDE = 96
"""Pixels of the longest side of the largest picture."""
GAP = 8
"""White pixels between pictures, and around the sheet."""
TEXT = 12
"""Pixels of the letters' height."""
LINE = 15
"""Pixels from one line of text to the next."""
RIGHT, WRONG = (43, 138, 62), (201, 42, 42)
"""Colours of frames: green and red."""
FRAME, OUTLINE = 3, 2
"""Pixels of the width of a frame, and of an outline inside a picture."""
COLOURS = (
    *((31, 119, 180), (230, 126, 0), (44, 140, 60), (200, 40, 40), (140, 90, 190), (130, 80, 70)),
    *((215, 90, 170), (90, 90, 90), (150, 150, 0), (0, 150, 170)),
)
"""Colours that tell views apart: of a view's frame, and of its crop in the image."""

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@attrs.frozen(eq=False)
class Cell:
    """A picture of a sheet.

    Attributes:
        picture: (C, H, W) float in [0, 1], of 3 channels or shown as grey.
        caption: lines below it, shortened to the picture's column.
        frame: colour of the frame around it; None: no frame.
        boxes: parts of the picture to outline: colour, top, left, height and width, in its pixels.
    """

    picture: Tensor
    caption: tuple[str, ...] = ()
    frame: Colour | None = None
    boxes: tuple[tuple[Colour, float, float, float, float], ...] = ()


def draw_sheet(
    titles: Sequence[str], rows: Sequence[Sequence[Cell]], side: int = SIDE, wide: bool = False
) -> Image.Image:
    """Return a sheet; all pictures are scaled by one number, so small ones stay smaller.

    Args:
        titles: above the columns; lines are separated by a line break.
        rows: the cells of each row; rows may be shorter than others.
        side: pixels of the longest side of the largest picture.
        wide: whether columns are as wide as their captions, which are else shortened.
    """
    font = ImageFont.load_default(TEXT)
    scale = side / max(max(cell.picture.shape[-2:]) for row in rows for cell in row)
    columns = [[row[n] for row in rows if n < len(row)] for n in range(max(map(len, rows)))]
    widths = [
        max(
            *(font.getlength(line) for line in title.splitlines()),
            *(cell.picture.shape[-1] * scale for cell in column),
            *(font.getlength(line) for cell in column for line in cell.caption if wide),
        )
        for title, column in zip(titles, columns, strict=True)
    ]
    heights = [max(cell.picture.shape[-2] * scale for cell in row) for row in rows]
    captions = [max(len(cell.caption) for cell in row) * LINE for row in rows]
    head = max(len(title.splitlines()) for title in titles) * LINE
    lefts = _starts(widths, GAP)
    tops = _starts([h + c for h, c in zip(heights, captions, strict=True)], GAP + head + GAP)
    sheet = Image.new("RGB", (lefts[-1], tops[-1]), "white")
    pen = ImageDraw.Draw(sheet)
    for left, title in zip(lefts, titles, strict=False):
        _write(pen, left, GAP, title.splitlines(), font)
    for top, height, row in zip(tops, heights, rows, strict=False):
        for left, width, cell in zip(lefts, widths, row, strict=False):
            _paste(sheet, pen, cell, (left, top, round(width), round(height)), scale)
            lines = [_shortened(line, width, font) for line in cell.caption]
            _write(pen, left, top + round(height) + 1, lines, font)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, atomically.

    Raises:
        CoviewError: the file cannot be written.
    """
    with writing(path) as temporary:
        sheet.save(temporary, "png")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces ``path``.

    Raises:
        CoviewError: the file cannot be written, or cannot have this name.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except ValueError as error:
        raise CoviewError(f"{path} could not be written: {error}") from error


def _starts(lengths: Sequence[float], first: int) -> list[int]:
    """Return where each of several things begins, and the end of the last with its gap."""
    starts = [first]
    for length in lengths:
        starts.append(starts[-1] + round(length) + GAP)
    return starts


def _paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    cell: Cell,
    place: tuple[int, int, int, int],
    scale: float,
) -> None:
    """Draw a picture at the left of its place, in the middle of its height."""
    image = to_pil_image(in_colour(cell.picture))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    left, top, _, height = place
    top += (height - image.height) // 2
    sheet.paste(image, (left, top))
    if cell.frame is not None:
        corner = (left + image.width - 1, top + image.height - 1)
        pen.rectangle(((left, top), corner), outline=cell.frame, width=FRAME)
    for colour, *box in cell.boxes:
        down, right, tall, wide = (value * scale for value in box)
        corners = (left + right, top + down), (left + right + wide - 1, top + down + tall - 1)
        pen.rectangle(corners, outline=colour, width=OUTLINE)


def in_colour(picture: Tensor) -> Tensor:
    """Return a picture of three channels, in [0, 1], on the CPU."""
    three = picture if len(picture) == 3 else picture.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return three.float().clamp(0, 1).cpu()


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, lines: Sequence[str], font: Font) -> None:
    for number, line in enumerate(lines):
        pen.text((left, top + number * LINE), line, fill="black", font=font)


def _shortened(line: str, width: float, font: Font) -> str:
    """Cut a line off where it would leave its column."""
    kept = line
    while kept and font.getlength(line if kept == line else f"{kept}…") > width:
        kept = kept[:-1]
    return line if kept == line else f"{kept}…"
