"""Every kind of image and folder in docs/data.md, and files that hypothesis makes."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import data_cases
import numpy as np
import pytest
import torch
from data_cases import LAYOUTS, SIDE, VALUES, Layout, Values
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from coview.data.base import DataSettings
from coview.data.decode import decode, decode_file
from coview.data.sources.folder import Folder
from coview.data.sources.pack import Packed
from coview.data.sources.packing import pack
from coview.data.values import Reading


@pytest.mark.parametrize("case", VALUES, ids=lambda case: case.what)
def test_values(tmp_path: Path, case: Values) -> None:
    for number in range(3):
        case.make(tmp_path / f"{number}.{case.ending}")
    chosen = DataSettings(**{"on_bad_image": "stop", **case.settings})
    data = Folder(str(tmp_path)).load(chosen)
    expected = torch.from_numpy(np.moveaxis(case.pixels, 2, 0).copy()).int()
    assert len(data.train) == 3
    for image in data.train.resident:
        assert (image.int() - expected).abs().max() <= case.within
    # Packed, on demand, and from an open file: the same pixels.
    pack(Folder(str(tmp_path)).load(chosen), tmp_path.parent / f"{tmp_path.name}.pack")
    packed = Packed(str(tmp_path.parent / f"{tmp_path.name}.pack")).load(DataSettings())
    assert torch.equal(packed.train.resident, data.train.resident)
    assert packed.reading == data.reading
    name = f".{case.ending}"
    content = io.BytesIO((tmp_path / f"1{name}").read_bytes())
    reading = Reading(**data.reading)
    again = decode_file(content, name, data.size, data.channels, reading)
    assert torch.equal(again, data.train.resident[1])


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda case: case.what)
def test_layouts(tmp_path: Path, case: Layout) -> None:
    made = 0
    for pattern in case.files:
        folder, _, count = pattern.rpartition("*")
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(int(count)):
            Image.new("RGB", (SIDE, SIDE), (made, 0, 0)).save(tmp_path / folder / f"{made:03}.png")
            made += 1
    data = Folder(str(tmp_path)).load(DataSettings())
    assert (len(data.train), None if data.test is None else len(data.test)) == (
        case.train,
        case.test,
    )
    assert len(data.classes) == case.labels and data.labelled == (case.labels > 0)
    # Nothing is lost without a word: every image is used, or counted.
    used = case.train + (case.test or 0)
    left = sum(data.summary["left_out"].values())
    assert data.summary["found"] == made == used + left


def test_the_tables_name_every_case() -> None:
    text = data_cases.tables()
    assert all(f"| {case.what} |" in text for case in (*VALUES, *LAYOUTS))


MODES = {"1": 1, "L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1, "F": 1}
HOLDS = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "tga": ("L", "LA", "P", "RGB", "RGBA"),
    "ppm": ("1", "L", "RGB"),
    "gif": ("L", "P"),
}
KINDS = [(ending, mode) for ending, modes in HOLDS.items() for mode in modes]


def image_of(mode: str, width: int, height: int, seed: int) -> Image.Image:
    random = np.random.RandomState(seed)
    if mode == "I;16":
        return Image.fromarray(random.randint(0, 65536, (height, width)).astype(np.uint16))
    if mode == "F":
        return Image.fromarray(random.rand(height, width).astype(np.float32))
    if mode in ("LA", "RGBA"):
        shape = (height, width, MODES[mode])
        return Image.fromarray(random.randint(0, 256, shape).astype(np.uint8))
    return Image.fromarray(random.randint(0, 256, (height, width, 3)).astype(np.uint8)).convert(
        mode
    )


def by_pillow(content: bytes, ground: str) -> np.ndarray:
    """Return what Pillow itself makes of a file: turned, laid over a background, (H, W, 3)."""
    with Image.open(io.BytesIO(content)) as image:
        whole = image if image.format == "TIFF" else ImageOps.exif_transpose(image)
        whole.load()
        if whole.mode in ("I;16", "F"):
            top = 65535 if whole.mode == "I;16" else 1
            grey = (np.asarray(whole).astype(np.float64) * 255 / top).round().astype(np.uint8)
            return np.dstack([grey] * 3)
        if whole.has_transparency_data:
            under = Image.new("RGBA", whole.size, ground)
            whole = Image.alpha_composite(under, whole.convert("RGBA"))
        return np.asarray(whole.convert("RGB"))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 8),
    st.sampled_from(["white", "black", "#336699"]),
    st.integers(0, 2**16),
)
def test_any_file_is_what_pillow_reads(
    kind: tuple[str, str], width: int, height: int, orientation: int, ground: str, seed: int
) -> None:
    (ending, mode), options = kind, {}
    if ending in ("png", "webp", "tif"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if ending == "webp":
        options["lossless"] = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        image_of(mode, width, height, seed).save(path, **options)
        expected = by_pillow(path.read_bytes(), ground)
        square = min(expected.shape[:2])
        top, left = ((side - square) / 2 for side in expected.shape[:2])
        # Where the middle is not between pixels, nothing is resampled: equal, bit for bit.
        if max(expected.shape[:2]) <= 8 * square and top % 1 == left % 1 == 0:
            seen = decode(str(path), square, 3, Reading(background=ground))
            middle = expected[int(top) :, int(left) :][:square, :square]
            assert np.array_equal(np.moveaxis(seen.numpy(), 0, 2), middle)
        small = decode(str(path), 5, 1, Reading(background=ground))
        assert small.shape == (1, 5, 5)


LETTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(
    lambda name: not name.startswith(".") and name.strip()
)
ENDINGS = st.sampled_from(["png", "bmp", "txt", ""])
PLACES = st.lists(st.tuples(st.lists(NAMES, max_size=3), ENDINGS), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(PLACES)
@example([([], "txt"), (["only", "within"], "png")])
@example([([], "txt"), (["train", "a"], "png"), (["test", "a"], "txt"), (["test"], "png")])
@example([(["train"], "png"), (["extra"], "txt"), (["test"], "png")])
def test_every_file_of_any_folder_is_used_or_counted(places: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = images = 0
        for parts, ending in places:
            try:
                place = Path(folder, *parts)
                place.mkdir(parents=True, exist_ok=True)
                path = place / (f"{made:03}.{ending}" if ending else f"{made:03}")
                if ending in ("png", "bmp", ""):
                    Image.new("RGB", (SIDE, SIDE)).save(path, "PNG" if not ending else None)
                else:
                    path.write_text("no image")
            except OSError:  # the name is too long, or there is a file of that name
                continue
            made += 1
            images += ending != "txt"
        if not images:
            return
        data = Folder(folder).load(DataSettings(on_bad_image="stop"))
        used = len(data.train) + (0 if data.test is None else len(data.test))
        summary = data.summary
        assert used + sum(summary["left_out"].values()) == made
        assert summary["found"] == images
        assert (data.train.labels is None) or len(data.train.labels) == len(data.train)
