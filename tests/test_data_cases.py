"""Every kind of image and folder in docs/data.md, and files that hypothesis makes."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
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
from coview.data.sources import open_source
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


def png(red: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (red, 0, 0)).save(content, "PNG")
    return content.getvalue()


def folder(place: Path, **files: str | bytes) -> str:
    """Write files by name, of which ``*N`` makes N images, and return their folder."""
    for name, content in files.items():
        pattern, _, count = name.partition("*")
        for number in range(int(count or 1)):
            path = place / (f"{pattern}/{number}.png" if count else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else content
            path.write_bytes(png(number) if count else data)
    return f"folder:{place}"


def listed(place: Path, *lines: str) -> str:
    folder(place, **{"x*12": ""})
    (place / "list.csv").write_text("\n".join(lines))
    return f"list:{place}/list.csv"


def shard(place: Path, *members: tuple[str, str]) -> str:
    """Write a shard; the red of an image is its place among the images."""
    images = 0
    with tarfile.open(place / "a.tar", "w") as opened:
        for name, text in members:
            content = text.encode() if text else png(images)
            images += not text
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return f"wds:{place}"


def labelled(name: str) -> list[tuple[str, str]]:
    """Return six images and their labels, whose names begin with a number and ``name``."""
    return [
        member
        for n in range(6)
        for member in ((f"{n}{name}.png", ""), (f"{n}{name}.cls", str(n % 2)))
    ]


TWO_DOTS = [m for n in range(3) for d in "56" for m in (
    (f"{n}.0{d}.png", ""), (f"{n}.0{d}.cls", d))]  # fmt: skip
CLASSES = {"cat*6": "", "dog*6": ""}
REPORTS: dict[str, tuple[Callable[[Path], str], int, tuple[str, ...], str]] = {
    "a hidden folder is no class": (
        lambda p: folder(p, **CLASSES, **{".ipynb_checkpoints*3": ""}), 12, ("cat", "dog"), ""),
    "an empty class folder": (
        lambda p: folder(p, **CLASSES, **{"emu/a.txt": ""}), 12, ("cat", "dog"), "images: emu."),
    "a run beside the classes is no class": (
        lambda p: folder(p, **CLASSES, **{
            "runs/a/run.json": "{}", "runs/a/recipe.toml": "", "runs/a/views.png": png(0)}),
        12, ("cat", "dog"), "1 run of coview"),
    "what macOS leaves beside images": (
        lambda p: folder(p, **CLASSES, **{"cat/._0.png": "no image", "cat/.DS_Store": ""}),
        12, ("cat", "dog"), "1 hidden"),
    "numbered classes keep their names": (
        lambda p: folder(p, **{f"{n}*2": "" for n in range(12)}), 24,
        ("0", "1", "10", "11", *map(str, range(2, 10))), ""),
    "paths that were written on Windows": (
        lambda p: listed(p, "image,label", *(f"x\\{n}.png,{'ab'[n % 2]}" for n in range(12))),
        12, ("a", "b"), ""),
    "classes that differ by a zero": (
        lambda p: listed(p, "image,label", *(f"x/{n},{('07', '7')[n % 2]}" for n in range(12))),
        12, ("07", "7"), ""),
    "a class called NA": (
        lambda p: listed(p, "image,label", *(f"x/{n},{('NA', 'nan')[n % 2]}" for n in range(12))),
        12, ("NA", "nan"), ""),
    "a list without a head": (
        lambda p: listed(p, *(f"x/{n}.png,{'ab'[n % 2]}" for n in range(12))), 12, ("a", "b"), ""),
    "dots in the names of a shard": (
        lambda p: shard(p, *labelled(".05 (x)")), 6, ("0", "1"), ""),
    "names of a shard that differ after a dot": (
        lambda p: shard(p, *TWO_DOTS), 6, ("5", "6"), ""),
    "several images of a sample": (
        lambda p: shard(p, *((f"{n}.{s}.png", "") for n in range(6) for s in ("a", "b"))),
        6, (), "as their sample has another: 6 png."),
    "labels apart from their images": (
        lambda p: shard(p, *sorted(labelled(""), key=lambda m: m[1])), 6, (), "no image: 6 cls."),
}  # fmt: skip
"""What people reported of other loaders: makes it, images, classes, and what is said."""


@pytest.mark.parametrize("name", REPORTS)
def test_what_was_reported_of_other_loaders(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "cache"))
    make, images, classes, said = REPORTS[name]
    (tmp_path / "data").mkdir()
    data = open_source(make(tmp_path / "data")).load(DataSettings(on_bad_image="stop"))
    assert len(data.train) + (0 if data.test is None else len(data.test)) == images
    assert data.classes == classes
    assert not said or any(said in note for note in data.notes)
    for split in filter(None, (data.train, data.test)):
        for row, image in enumerate(split.images):
            number = int(image[0, 0, 0])
            if "zero" in name or "Windows" in name or "NA" in name or "head" in name:
                assert split.labels[row] == number % 2
            elif "shard" in name and "differ" in name:
                assert data.classes[split.labels[row]] == "56"[number % 2]
            elif "shard" in name:
                assert split.labels[row] == number % 2


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
