"""DICOM files that pydicom writes, and those that come with it, against its own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

import coview
from coview import RequestError
from coview.data.bad_images import BadImageError
from coview.data.base import DataSettings, ImageData
from coview.data.sources import open_source
from coview.data.values import Reading
from coview.errors import CoviewError
from coview_dicom.frames import about, frame
from coview_dicom.source import Dicoms, Frames

RAMP = np.arange(64, dtype=np.int64).reshape(8, 8)
AUTO = Reading(range="auto")


def write(path: Path, pixels: np.ndarray[Any, Any], bits: int = 16, **more: Any) -> Path:
    """Write a file; ``pixels`` are (H, W), (H, W, 3) or (frames, H, W[, 3])."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = more.pop("syntax", ExplicitVRLittleEndian)
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    colour = pixels.shape[-1] == 3
    made.Rows, made.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim == 3 + colour:
        made.NumberOfFrames = len(pixels)
    made.SamplesPerPixel = 3 if colour else 1
    made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        made.PlanarConfiguration = 0
    signed = bool((pixels < 0).any())
    made.BitsAllocated = 8 if bits <= 8 else 16
    made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits - 1, int(signed)
    kind = ("i" if signed else "u") + str(made.BitsAllocated // 8)
    made.PixelData = pixels.astype(f"<{kind}").tobytes()
    for name, value in more.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


def scaled(values: Any, low: float, high: float) -> np.ndarray[Any, Any]:
    part = (np.asarray(values, np.float64) - low) / (high - low) * 255
    return part.round().clip(0, 255).astype(np.uint8)


def read(path: Path, reading: Reading = AUTO, index: int = 0) -> np.ndarray[Any, Any]:
    found = frame(str(path), index, reading).numpy()
    return found[0] if len(found) == 1 else np.moveaxis(found, 0, 2)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_the_bits_without_a_window(tmp_path: Path, bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 64).round().astype(np.int64).reshape(8, 8)
    path = write(tmp_path / "a.dcm", values, bits)
    np.testing.assert_array_equal(read(path), scaled(values, low, low + 2**bits - 1))
    ends = Reading(range=f"{low},{low + 2 ** (bits - 1)}")
    np.testing.assert_array_equal(read(path, ends), scaled(values, low, low + 2 ** (bits - 1)))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), ([-600, 40], [1500, 400])])
def test_hounsfield_units_through_a_window(
    tmp_path: Path, function: str, centre: Any, width: Any
) -> None:
    stored = RAMP * 60
    path = write(
        tmp_path / "ct.dcm", stored, 12, RescaleSlope=1, RescaleIntercept=-1024,
        WindowCenter=centre, WindowWidth=width, VOILUTFunction=function,
    )  # fmt: skip
    file = pydicom.dcmread(path)
    units = apply_modality_lut(file.pixel_array, file)
    shown = apply_voi_lut(units, file)
    np.testing.assert_array_equal(units, stored - 1024)
    # pydicom's window ends where the file's bits end: -1024 to 3071.
    np.testing.assert_allclose(read(path), scaled(shown, -1024, 3071), atol=1)
    chosen = Reading(range="-160,240")
    np.testing.assert_array_equal(read(path, chosen), scaled(stored - 1024, -160, 240))
    whole = Reading(range="dtype")
    np.testing.assert_array_equal(read(path, whole), scaled(stored - 1024, -1024, 3071))


def test_white_is_low_in_monochrome1(tmp_path: Path) -> None:
    more = {"PhotometricInterpretation": "MONOCHROME1"}
    path = write(tmp_path / "a.dcm", RAMP * 4, 8, **more)
    np.testing.assert_array_equal(read(path), 255 - RAMP * 4)
    np.testing.assert_array_equal(
        read(path, Reading(range="0,100")), 255 - scaled(RAMP * 4, 0, 100)
    )


def test_a_width_of_one_is_a_threshold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RAMP, 8, WindowCenter=32, WindowWidth=1)
    np.testing.assert_array_equal(read(path), np.where(RAMP >= 32, 255, 0))


def test_frames_have_their_own_meaning(tmp_path: Path) -> None:
    def group(**values: float) -> Dataset:
        inner, outer = Dataset(), Dataset()
        for name, value in values.items():
            setattr(inner, name, value)
        name = "PixelValueTransformationSequence" if "RescaleSlope" in values else None
        setattr(outer, name or "FrameVOILUTSequence", [inner])
        return outer

    path = write(
        tmp_path / "a.dcm", np.stack([RAMP, RAMP]), 8,
        SharedFunctionalGroupsSequence=[group(WindowCenter=32.5, WindowWidth=64)],
        PerFrameFunctionalGroupsSequence=[
            group(RescaleSlope=1, RescaleIntercept=0), group(RescaleSlope=2, RescaleIntercept=-10)
        ],
    )  # fmt: skip
    np.testing.assert_array_equal(read(path), scaled(RAMP, 0.5, 63.5))
    np.testing.assert_array_equal(read(path, index=1), scaled(RAMP * 2 - 10, 0.5, 63.5))


def test_tables(tmp_path: Path) -> None:
    def table(values: np.ndarray[Any, Any], bits: int) -> list[Dataset]:
        made = Dataset()
        made.LUTDescriptor = [len(values), 0, bits]
        made.add_new("LUTData", "US", values.tolist())
        return [made]

    squares = (np.arange(64) ** 2).astype(np.uint16)
    path = write(tmp_path / "m.dcm", RAMP, 8, ModalityLUTSequence=table(squares, 12))
    np.testing.assert_array_equal(read(path), scaled(RAMP**2, 0, 4095))
    path = write(tmp_path / "v.dcm", RAMP, 8, VOILUTSequence=table(squares, 12))
    np.testing.assert_array_equal(read(path), scaled(RAMP**2, 0, 4095))
    np.testing.assert_array_equal(read(path, Reading(range="0,63")), scaled(RAMP, 0, 63))


def test_colours(tmp_path: Path) -> None:
    colours = np.random.RandomState(0).randint(0, 256, (2, 8, 8, 3))
    path = write(tmp_path / "a.dcm", colours, 8)
    assert about(str(path)).colour
    for index in (0, 1):
        np.testing.assert_array_equal(read(path, index=index), colours[index])
    deep = write(tmp_path / "b.dcm", colours[0] * 16, 12)
    np.testing.assert_array_equal(read(deep), scaled(colours[0] * 16, 0, 4095))
    r, g, b = np.moveaxis(colours[0].astype(np.float64), 2, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    ybr = np.stack([y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128], 2).round().clip(0, 255)
    path = write(tmp_path / "c.dcm", ybr, 8, PhotometricInterpretation="YBR_FULL")
    assert np.abs(read(path).astype(int) - colours[0]).max() <= 2


BUNDLED = {
    "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "SC_rgb_jls_lossy_sample.dcm": "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_jls_lossy_line.dcm": "SC_rgb_dcmtk_+eb+cr.dcm",
    "MR_small_bigendian.dcm": "MR_small.dcm",
    "MR_small_implicit.dcm": "MR_small.dcm",
    "SC_rgb_rle.dcm": "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_ybr_full_422_uncompressed.dcm": "SC_rgb_dcmtk_+eb+cr.dcm",
    "SC_rgb_jpeg_dcmtk.dcm": "SC_rgb_dcmtk_+eb+cr.dcm",
}


@pytest.mark.parametrize("name", BUNDLED)
def test_files_that_come_with_pydicom(name: str) -> None:
    found, same = (
        read(Path(str(get_testdata_file(file, download=False)))).astype(int)
        for file in (name, BUNDLED[name])
    )
    assert np.abs(found - same).mean() < 1, "another way to store the same image"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "'JPEG Lossless, Non-Hierarchical, First-Order Prediction"),
        ("MR_truncated.dcm", "cannot be decoded"),
        ("image_dfl.dcm", "it is deflated, and could unpack to any size"),
    ],
)
def test_what_cannot_be_decoded_is_named(name: str, why: str) -> None:
    path = str(get_testdata_file(name, download=False))
    with pytest.raises(BadImageError, match=why) as raised:
        Frames((path,), 8, 1, reading=AUTO)[0]
    assert name in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "marker", "at"),
    [
        ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", 5),
        ("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0", 5),
        ("MR_small_jp2klossless.dcm", b"\xff\x4f\xff\x51", 10),
    ],
)
def test_a_frame_that_would_unpack_to_another_size(
    tmp_path: Path, name: str, marker: bytes, at: int
) -> None:
    """The decoder takes memory for what the stream says, not for what the header says."""
    stored = bytearray(Path(str(get_testdata_file(name, download=False))).read_bytes())
    start = stored.index(marker) + at
    stored[start : start + 2] = b"\xff\xff"  # of the height, or of the width's upper half
    path = tmp_path / "a.dcm"
    path.write_bytes(stored)
    frames = Frames((str(path),), 8, 1, reading=AUTO)
    with pytest.raises(BadImageError, match=r"is compressed as \d+ x \d+ pixels, and its header"):
        frames[0]


def promising(path: Path, **claims: int) -> Path:
    """Write a file of 8 x 8 pixels whose header promises others."""
    return write(path, RAMP, 8, **claims)


def test_promises_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    large = promising(tmp_path / "large.dcm", Rows=65535, Columns=65535)
    with pytest.raises(BadImageError, match="65535 x 65535 pixels, more than data.max_pixels"):
        Frames((str(large),), 8, 1, reading=AUTO)[0]
    rle = promising(tmp_path / "rle.dcm", syntax=ExplicitVRLittleEndian)
    file = pydicom.dcmread(rle)
    file.compress(RLELossless)
    file.Rows = file.Columns = 65535
    file.save_as(rle)
    with pytest.raises(BadImageError, match="more than data.max_pixels"):
        Frames((str(rle),), 8, 1, reading=AUTO)[0]
    assert frame(str(write(tmp_path / "b.dcm", RAMP, 8)), 0, Reading(max_pixels=64)).numel() == 64
    with pytest.raises(ValueError, match="data.max_pixels = 63"):
        frame(str(tmp_path / "b.dcm"), 0, Reading(max_pixels=63))
    many = promising(tmp_path / "many.dcm", NumberOfFrames=2**31 - 1)
    with pytest.raises(ValueError, match="promises 2147483647 frames, which it cannot hold"):
        about(str(many))
    source = Dicoms(str(tmp_path))
    assert "many.dcm" in source.train.names and len(source.train.names) == 4


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Two classes of 20 frames each, and what else lies in such folders."""
    for number, name in enumerate(("chest", "hand")):
        folder = tmp_path / "ward" / name
        folder.mkdir(parents=True)
        for file in range(10):
            pixels = np.full((2, 8, 8), 1000 * number + 10 * file) + np.arange(2)[:, None, None]
            write(folder / (f"{file}.dcm" if file else "IM0"), pixels, 12)
    write(tmp_path / "ward/chest/report.dcm", RAMP, 8)
    file = pydicom.dcmread(tmp_path / "ward/chest/report.dcm")
    del file.PixelData
    file.save_as(tmp_path / "ward/chest/report.dcm")
    (tmp_path / "ward/chest/LICENSE").write_text("no DICOM")
    (tmp_path / "ward/chest/notes.txt").write_text("neither")
    return tmp_path / "ward"


def loaded(place: Path, **settings: Any) -> ImageData:
    return open_source(f"dicom:{place}").load(DataSettings(**settings))


def test_a_folder_of_frames(ward: Path) -> None:
    data = loaded(ward)
    assert (len(data.train), len(data.test), data.classes) == (32, 8, ("chest", "hand"))
    assert (data.channels, data.size) == (1, 8)
    low, high = map(float, data.reading["range"].split(","))
    assert low <= 5 and 1085 <= high <= 1091, "the set's range, as no file has a window"
    for split in (data.train, data.test):
        for row, name in enumerate(split.names):
            file, _, number = name.partition("#")
            chest, place = name.startswith("chest"), Path(file).stem.replace("IM", "")
            value = 1000 * (not chest) + 10 * int(place) + int(number)
            assert split.images[row].unique().tolist() == scaled([value], low, high).tolist()
            assert data.classes[split.labels[row]] == ("chest" if chest else "hand")
    assert data.summary["left_out"] == {
        "DICOM without pixels": 1,
        "without an ending": 1,
        ".txt": 1,
    }
    assert data.summary["found"] == 40
    assert any("1 DICOM without pixels" in note for note in data.notes)


def test_windows_decide_unless_a_range_is_given(tmp_path: Path) -> None:
    for number in range(12):
        window = {"WindowCenter": 500, "WindowWidth": 1000 if number % 2 else 500}
        write(tmp_path / f"{number}.dcm", RAMP * 60, 12, **window)
    data = loaded(tmp_path)
    assert data.reading["range"] == "auto"
    assert any("12 of 12 sampled files have one" in note for note in data.notes)
    assert not torch.equal(data.train.images[0], data.train.images[1])
    data = loaded(tmp_path, range="measure")
    assert data.reading["range"] != "auto"
    assert torch.equal(data.train.images[0], data.train.images[1])


def test_bad_files_are_counted(ward: Path) -> None:
    (ward / "hand/broken.dcm").write_bytes(b"no DICOM at all")
    data = loaded(ward)
    assert sum(facts["count"] for facts in data.bad_images.values()) == 1
    with pytest.raises(CoviewError, match="broken.dcm"):
        loaded(ward, on_bad_image="stop")
    syntax = ward / "hand/1.dcm"
    file = pydicom.dcmread(syntax)
    file.file_meta.TransferSyntaxUID = JPEGLSLossless
    with pytest.raises(RequestError, match="holds no DICOM images"):
        (ward.parent / "empty").mkdir()
        (ward.parent / "empty/LICENSE").write_text("no DICOM")
        Dicoms(str(ward.parent / "empty"))


def test_a_run_and_its_evaluation(ward: Path, tmp_path: Path) -> None:
    run = coview.train(
        "simclr", f"dicom:{ward}", out=tmp_path / "run", batch_size=8, max_steps=2, device="cpu",
        backbone="resnet10-quarter", progress=False,
    )  # fmt: skip
    assert run.value("knn_top1") is not None
    found = coview.embed(run, f"dicom:{ward}")
    assert len(found["embeddings"]) == 40 and "hand/3.dcm#1" in found["names"]
