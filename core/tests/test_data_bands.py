from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coview.data import bands
from coview.data.base import DataSettings
from coview.data.decode import decode, fit
from coview.data.sources.folder import Folder
from coview.data.values import Reading, eight_bits
from coview.errors import CoviewError, RequestError

RANDOM = np.random.RandomState(0)
FIVE = RANDOM.randint(0, 256, (5, 8, 6), dtype=np.uint8)


PLAIN = Reading()


def shape_of(path: Path) -> tuple[int | None, int, int]:
    seen = bands.header(str(path), path.suffix)
    return seen.channels, seen.height, seen.width


def stored(path: Path) -> torch.Tensor:
    return bands.read(str(path), path.suffix, PLAIN)


def folder_of(path: Path, count: int = 10) -> Folder:
    for number in range(count):
        folder = path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{number}.npy", RANDOM.randint(0, 256, (5, 16, 16), dtype=np.uint8))
    return Folder(str(path))


@pytest.mark.parametrize("moved", [FIVE, np.moveaxis(FIVE, 0, 2)])
def test_arrays_with_channels_first_or_last(tmp_path: Path, moved: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", moved)
    assert shape_of(tmp_path / "a.npy") == (5, 8, 6)
    assert torch.equal(stored(tmp_path / "a.npy"), torch.from_numpy(FIVE))


def test_npz_joins_the_channels_of_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rgb=np.moveaxis(FIVE[:3], 0, 2), depth=FIVE[3] / 255.0)
    seen = stored(tmp_path / "a.npz")
    assert shape_of(tmp_path / "a.npz") == (4, 8, 6)
    assert torch.equal(seen, torch.from_numpy(FIVE[:4]))


def test_grey_pages_of_a_tiff_are_channels(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in FIVE]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert shape_of(tmp_path / "a.tif") == (5, 8, 6)
    assert torch.equal(stored(tmp_path / "a.tif"), torch.from_numpy(FIVE))


def test_a_tiff_of_colour_pages_is_its_first_page(tmp_path: Path) -> None:
    colour = np.moveaxis(FIVE[:3], 0, 2)
    pages = [Image.fromarray(np.ascontiguousarray(c)) for c in (colour, 255 - colour)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert shape_of(tmp_path / "a.tif") == (None, 8, 6)
    square = decode(str(tmp_path / "a.tif"), 6, 3)
    assert torch.equal(square, torch.from_numpy(FIVE[:3, 1:7]))


def test_a_tiff_of_many_samples_a_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, np.moveaxis(FIVE, 0, 2), photometric="minisblack", planarconfig="contig")
    assert torch.equal(stored(path), torch.from_numpy(FIVE))
    assert torch.equal(decode(str(path), 6, 5), torch.from_numpy(FIVE[:, 1:7]))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(CoviewError, match=r"pip install tifffile"):
        decode(str(path), 6, 5)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 65535]], np.uint16), [0, 255]),
        (np.array([[0.0, 0.5]], np.float32), [0, 128]),
        (np.array([[False, True]]), [0, 255]),
    ],
)
def test_values_of_other_types(values: np.ndarray, expected: list[int]) -> None:
    assert eight_bits(values)[0].tolist() == expected


@pytest.mark.parametrize(
    "values, message",
    [
        (np.array([[np.nan, 0.0]]), "run from nan"),
        (np.array([[-1, 0]], np.int16), "from -1 to 0, not within 0 to 65535"),
        (np.array([["a"]]), "not numbers that a pixel can have"),
    ],
)
def test_values_that_are_no_pixels(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eight_bits(values)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"a": np.zeros((2, 2, 2, 2))}, r"its shape is \(2, 2, 2, 2\)"),
        ({"a": np.zeros((3, 4)), "b": np.zeros((4, 4))}, "its arrays differ in size"),
        ({}, "it holds no array"),
    ],
)
def test_files_that_are_no_image(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(CoviewError, match=message):
        decode(str(tmp_path / "a.npz"), 4, 1)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CoviewError, match="cannot be decoded"):
        decode(str(tmp_path / "a.npy"), 4, 1)


def test_channels_are_repeated_weighed_or_refused() -> None:
    grey, five = torch.full((1, 4, 4), 7, dtype=torch.uint8), torch.zeros(5, 4, 4)
    assert torch.equal(fit(grey, 4, 6), grey.expand(6, 4, 4))
    with pytest.raises(RequestError, match="5 channels, which cannot become data.channels = 3"):
        fit(five, 4, 3)


def test_a_folder_of_arrays_has_its_own_channels_and_statistics(tmp_path: Path) -> None:
    data = folder_of(tmp_path).load(DataSettings())
    assert (data.channels, data.size, data.classes) == (5, 16, ("a", "b"))
    assert data.train.images.shape[1:] == (5, 16, 16)
    values = data.train.images.double().div(255).transpose(0, 1).flatten(1)
    assert data.mean == pytest.approx(values.mean(1).tolist())
    assert data.std == pytest.approx(values.std(1, unbiased=False).tolist())


def test_a_folder_of_arrays_cannot_be_made_rgb(tmp_path: Path) -> None:
    with pytest.raises(CoviewError, match=r"a/0\.npy cannot be decoded: it has 5 channels"):
        folder_of(tmp_path).load(DataSettings(channels=3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_and_infrared(tmp_path: Path, dtype: type) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RANDOM.randint(0, 256, (8, 8, 4)).astype(dtype) * (1 if dtype == np.uint8 else 257)
    for number in range(3):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, values, photometric="rgb", extrasamples=["unspecified"])
    expected = torch.from_numpy(np.moveaxis(values // (1 if dtype == np.uint8 else 257), 2, 0))
    three = Folder(str(tmp_path)).load(DataSettings())
    assert torch.equal(three.train.resident[0], expected[:3].to(torch.uint8))
    (note,) = [note for note in three.notes if "bands" in note]
    assert "have 4 bands, of which 3 are used. For all: --set data.channels=4" in note
    four = Folder(str(tmp_path)).load(DataSettings(channels=4))
    assert torch.equal(four.train.resident[0], expected.to(torch.uint8))
    assert not [note for note in four.notes if "bands" in note]


def test_without_tifffile_what_is_lost_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = RANDOM.randint(0, 65536, (8, 8, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    monkeypatch.setattr(bands, "reads_tiff", lambda: False)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    data = Folder(str(tmp_path)).load(DataSettings(range="dtype"))
    assert torch.equal(
        data.train.resident[0], torch.from_numpy(np.moveaxis((values >> 8).astype(np.uint8), 2, 0))
    )
    assert any("cut to their upper 8 bits. To use all: pip install" in n for n in data.notes)
    with pytest.raises(CoviewError, match="pip install tifffile"):
        Folder(str(tmp_path)).load(DataSettings(range="0,4095"))


def test_one_pixel_beyond_the_range_darkens_nothing(tmp_path: Path) -> None:
    for number in range(4):
        floats = (RANDOM.rand(32, 32) * 0.6).astype(np.float32)
        floats[0, 0] = 1.04 if number == 2 else 0.3
        Image.fromarray(floats).save(tmp_path / f"{number}.tif")
    data = Folder(str(tmp_path)).load(DataSettings())
    medians = data.train.resident.float().flatten(1).median(dim=1).values
    assert medians.min() > 100 and medians.max() - medians.min() < 20
    assert "run from" in " ".join(data.notes)


def test_a_dark_file_among_others_is_named_and_not_stretched(tmp_path: Path) -> None:
    for number in range(80):
        Image.fromarray(FIVE[0]).save(tmp_path / f"{number:02}.png")
    twelve = Image.fromarray(RANDOM.randint(0, 4096, (8, 6)).astype(np.uint16))
    twelve.save(tmp_path / "01.png")  # not in the sample
    data = Folder(str(tmp_path)).load(DataSettings())
    (fault,) = data.train.bad.faults.values()
    assert "01.png" in fault and "--set data.range=" in fault and "measure or dtype" in fault
    data = Folder(str(tmp_path)).load(DataSettings(range="0,4095"))
    assert len(data.train.bad) == 0
