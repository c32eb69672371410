# ruff: noqa: E501  # a case a line reads best
"""What images and folders look like on people's disks, and what coview makes of each.

Each case makes files, says in words what becomes of them, and gives the pixels or
the splits that it must be. ``tests/test_data_cases.py`` checks them;
``docs/generate.py`` prints the words as the tables in ``docs/data.md``.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

Pixels = np.ndarray
SIDE = 8
RANDOM = np.random.RandomState(0)
RGB = RANDOM.randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
GREY = RGB[..., 0]
DEEP = (RANDOM.randint(0, 4096, (SIDE, SIDE))).astype(np.uint16)
ALPHA = np.where(np.arange(SIDE) < 4, 0, 255).astype(np.uint8) * np.ones((SIDE, 1), np.uint8)
WHITENED = np.where(ALPHA[..., None] == 0, 255, RGB).astype(np.uint8)
"""The colours over white: the left half is transparent."""


@attrs.frozen
class Values:
    """A kind of image.

    Attributes:
        what: the kind, in words.
        does: what coview does with it.
        change: the setting that changes it.
        ending: of the file's name.
        make: writes the file.
        pixels: (SIDE, SIDE, channels), what must be read.
        settings: of the data, for the test.
        within: by how much values may differ.
    """

    what: str
    does: str
    change: str
    ending: str
    make: Callable[[Path], Any]
    pixels: Pixels
    settings: dict[str, Any] = attrs.field(factory=dict)
    within: int = 0


@attrs.frozen
class Layout:
    """A layout of a folder.

    Attributes:
        what, does, change: as in :class:`Values`.
        files: names of images in it (``*3`` at the end: three of them).
        train, test: number of images in the splits; test None: there is no such split.
        labels: number of classes.
    """

    what: str
    does: str
    change: str
    files: tuple[str, ...]
    train: int
    test: int | None
    labels: int


def saved(mode: str = "", **options: Any) -> Callable[[Path], None]:
    """Save the colours, converted to a mode."""

    def make(path: Path) -> None:
        image = Image.fromarray(RGB)
        (image.convert(mode) if mode else image).save(path, **options)

    return make


def array(values: Pixels, **options: Any) -> Callable[[Path], None]:
    """Save an array as an image."""
    return lambda path: Image.fromarray(values).save(path, **options)


def deep_colours(path: Path) -> None:
    """Write a PNG file of 16-bit colours, which Pillow does not write."""
    rows = np.repeat(DEEP[..., None], 3, axis=2).astype(">u2")
    body = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def turned(path: Path) -> None:
    """Save the colours lying on their side, with EXIF data that say so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(RGB))).save(path, exif=exif)


def several(path: Path, shades: tuple[int, ...] = (10, 90, 200), **options: Any) -> None:
    """Save grey frames or pages."""
    frames = [Image.new("L", (SIDE, SIDE), shade) for shade in shades]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def colour_pages(path: Path) -> None:
    pages = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def transparent_palette(path: Path) -> None:
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (4, 0, SIDE, SIDE))
    image.save(path, transparency=0)


def arrays(values: Pixels) -> Callable[[Path], None]:
    return lambda path: np.save(path, values)


def as_bytes(values: Pixels, low: float, high: float) -> Pixels:
    """Return grey values as three equal channels of bytes, LOW black and HIGH white."""
    scaled = ((values.astype(np.float64) - low) * 255 / (high - low)).round().clip(0, 255)
    return np.repeat(scaled[..., None], 3, axis=2).astype(np.uint8)


def decoded(mode: str, kind: str, **options: Any) -> Pixels:
    """Return what Pillow reads of what it writes."""
    file = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(file, kind, **options)
    return np.asarray(Image.open(file).convert("RGB"))


HALF = np.where(ALPHA[..., None] == 0, 255, (0, 0, 200)).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
HOUNSFIELD = (DEEP.astype(np.int32) - 1024).astype(np.int16)
FLOATS = (DEEP / 4095 * 3).astype(np.float32)
WINDOW = {"range": "0,4095"}
VALUES = (
    Values("RGB", "as it is", "", "png", saved(), RGB),
    Values("JPEG", "as Pillow decodes it", "", "jpg", saved(quality=90), decoded("RGB", "JPEG", quality=90)),
    Values("grey", "repeated for each channel", "`data.channels=1`", "png", array(GREY), np.dstack([GREY] * 3)),
    Values("RGB, one channel asked for", "luma, as in ITU-R 601", "`data.channels`", "png", saved(),
           np.asarray(Image.fromarray(RGB).convert("L"))[..., None], {"channels": 1}, 1),
    Values("1 bit", "black and white", "", "png", array(GREY > 100), as_bytes(GREY > 100, 0, 1)),
    Values("palette", "its colours", "", "png", lambda path: Image.fromarray(RGB).quantize(16).save(path),
           np.asarray(Image.fromarray(RGB).quantize(16).convert("RGB"))),
    Values("CMYK", "converted to RGB by Pillow", "", "tif", saved("CMYK"), decoded("CMYK", "TIFF")),
    Values("RGBA (PNG, WebP, TIFF, AVIF)", "laid over white", "`data.background`: a colour, or `drop`", "png", array(RGBA), WHITENED),
    Values("RGBA, `data.background=drop`", "the colours hidden under transparent pixels", "", "png", array(RGBA), RGB, {"background": "drop"}),
    Values("grey with alpha", "laid over white", "`data.background`", "png", array(np.dstack([GREY, ALPHA])),
           np.repeat(np.where(ALPHA == 0, 255, GREY)[..., None], 3, axis=2).astype(np.uint8)),
    Values("palette or colour that is transparent (PNG, GIF)", "laid over white", "`data.background`", "gif", transparent_palette, HALF),
    Values("RGBA, four channels asked for", "alpha is the fourth band, nothing is laid over anything", "`data.channels`", "png", array(RGBA), RGBA, {"channels": 4}),
    Values("16 bits, values up to 65535", "65535 becomes white", "`data.range`", "png", array(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
    Values("16 bits, darker than a quarter (12-bit X-ray, CT, satellite)", "0.1 % and 99.9 % of a sample's values become black and white; a note says which",
           "`data.range=0,4095`", "png", array(DEEP), as_bytes(DEEP, *np.percentile(DEEP, (0.1, 99.9))), {}, 1),
    Values("the same with `data.range=0,4095`", "those two values become black and white", "", "png", array(DEEP), as_bytes(DEEP, 0, 4095), WINDOW),
    Values("colours of 16 bits", "the same; of TIFF with `pip install tifffile`, else its upper 8 bits, and a note", "`data.range`", "png", deep_colours, as_bytes(DEEP, 0, 4095), WINDOW),
    Values("negative values (Hounsfield), 32-bit integers", "measured, as above", "`data.range=-1000,400`", "npy", arrays(HOUNSFIELD), as_bytes(HOUNSFIELD, -1000, 400), {"range": "-1000,400", "channels": 3}),
    Values("floats from 0 to 1", "1 becomes white", "`data.range`", "tif", array((GREY / 255).astype(np.float32)), np.dstack([GREY] * 3)),
    Values("floats beyond 1", "measured, as above", "`data.range=0,3`", "tif", array(FLOATS), as_bytes(FLOATS, 0, 3), {"range": "0,3"}, 1),
    Values("EXIF orientation", "turned", "`data.orientation=ignore` (Pillow turns TIFF always)", "png", turned, RGB),
    Values("animated GIF, WebP, PNG", "its first picture", "", "gif", several, np.full((SIDE, SIDE, 3), 10, np.uint8)),
    Values("TIFF of several grey pages", "a band for each page", "", "tif", several, np.full((SIDE, SIDE, 1), 1, np.uint8) * np.array([10, 90, 200], np.uint8)),
    Values("TIFF of several colour pages", "its first page", "", "tif", colour_pages, RGB),
    Values("NumPy arrays (H, W), (H, W, C), (C, H, W)", "a band for each channel", "", "npy", arrays(np.moveaxis(RGBA, 2, 0)), RGBA, {"channels": 4}),
    Values("one pixel", "made larger", "`data.size`", "png", array(RGB[:1, :1]), np.broadcast_to(RGB[:1, :1], RGB.shape), {"size": SIDE}),
)  # fmt: skip

LAYOUTS = (
    Layout("images in a folder", "no labels; nothing is held out", "`data.holdout`", ("*9",), 9, None, 0),
    Layout("a folder for each class, nested or not", "classes are named after the first level; a fifth is held out", "`data.holdout` (0: nothing)", ("a/*10", "b/deep/er/*10"), 16, 4, 2),
    Layout("images beside the class folders", "trained on without a label", "", ("a/*10", "b/*10", "*3"), 19, 4, 2),
    Layout("one class folder", "no labels", "", ("all/*9",), 9, None, 0),
    Layout("a folder around the class folders", "looked into", "", ("data/a/*10", "data/b/*10"), 16, 4, 2),
    Layout("`train/CLASS` and `test/CLASS` (also val, valid, validation; any case)", "the splits", "", ("Train/a/*3", "Train/b/*3", "valid/a/*2", "valid/b/*2"), 6, 4, 2),
    Layout("`train/CLASS` and a flat `test` (Kaggle)", "a fifth of train is held out; a note counts the images in test", "`data.holdout`", ("train/a/*10", "train/b/*10", "test/*5"), 16, 4, 2),
    Layout("`test` and `val`", "test, or the first that has labels; a note counts the others", "", ("train/a/*3", "train/b/*3", "val/a/*1", "val/b/*1", "test/*5"), 6, 2, 2),
    Layout("other folders beside `train` and `test`", "left out and counted", "", ("train/a/*3", "train/b/*3", "test/a/*1", "test/b/*1", "more/*4"), 6, 2, 2),
    Layout("a `train` beside other folders, without a test", "classes, one of them called train", "", ("train/*10", "car/*10"), 16, 4, 2),
)  # fmt: skip


def tables() -> str:
    """Return the cases as Markdown."""
    lines = []
    for title, cases in (("image", VALUES), ("folder", LAYOUTS)):
        lines += [f"| {title} | what becomes of it | to change it |", "|---|---|---|"]
        lines += [f"| {case.what} | {case.does} | {case.change} |" for case in cases]
        lines.append("")
    return "\n".join(lines)
