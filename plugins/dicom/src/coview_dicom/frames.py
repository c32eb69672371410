"""Reading a DICOM file: its header, and one of its frames as 8 bits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.processing import apply_color_lut, apply_rescale
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from torch import Tensor

from coview.data.bands import check_pixels
from coview.data.pillow import QUIET
from coview.data.values import Reading, Values, eight_bits
from coview_dicom.streams import own_size

LONG = 1024
"""Values of more bytes stay in the file until they are needed: the pixels, above all."""
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
PREAMBLE = 128
"""A DICOM file begins with as many bytes of anything, then DICM."""
IGNORED: Any = ("ignore", None, Warning, re.compile(r"pydicom"), 0)
"""What hospitals' files have against the standard is rarely in the pixels."""
MEANING = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelRepresentation"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "BitsStored"),
)
"""What the values of a frame mean; in some files it differs from frame to frame."""
OF_FRAMES = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


class NoPixelsError(ValueError):
    """The file is DICOM, and holds no image."""


@attrs.frozen
class About:
    """What a file's header says.

    Attributes:
        height, width: pixels of a frame.
        kind: how values are meant: ``MONOCHROME2``, ``RGB``.
        samples: values per pixel, 1 or 3.
        frames: number of frames.
        deep: whether grey values are not simply 8 bits.
        windowed: whether the file says which are black and white.
    """

    height: int
    width: int
    kind: str
    samples: int
    frames: int
    deep: bool
    windowed: bool

    @property
    def colour(self) -> bool:
        """Whether frames are in colour; a palette's are."""
        return self.samples > 1 or self.kind.startswith("PALETTE")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings off the terminal."""
    with QUIET:
        if IGNORED not in warnings.filters:
            warnings.filters.insert(0, IGNORED)  # type: ignore[attr-defined]
        yield


def is_dicom(path: str) -> bool:
    """Return whether a file begins as DICOM files do."""
    with open(path, "rb") as file:  # noqa: PTH123  # names of any bytes
        return file.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"


def about(path: str) -> About:
    """Return what a file's header says.

    Raises:
        NoPixelsError: it is DICOM, and holds no image.
        Exception: of nearly any type, if the file is damaged.
    """
    with quiet():
        return _about(_header(path), Path(path).stat().st_size)


def values(path: str, index: int, limit: int) -> Values:
    """Return a frame's grey values (H, W), rescaled: those of CT are Hounsfield units.

    Raises:
        Exception: as :func:`about`; also if the frame is larger than ``limit`` pixels.
    """
    with quiet():
        header = _header(path)
        _check(header, index, path, limit)
        return _rescaled(path, header, index)[0]


def frame(path: str, index: int, reading: Reading) -> Tensor:
    """Return a frame as (1 or 3, H, W) uint8.

    Args:
        path: the file.
        index: of the frame, from 0.
        reading: its range, see the package's README; its limit of pixels.

    Raises:
        Exception: of nearly any type, if the file is damaged, or too large.
    """
    with quiet():
        header = _header(path)
        found = _check(header, index, path, reading.max_pixels)
        if found.colour:
            made = np.moveaxis(_colours(path, header, index), 2, 0)
        else:
            made = _eight_bits(*_rescaled(path, header, index), reading)[None]
            if found.kind == "MONOCHROME1":
                made = 255 - made
    return torch.from_numpy(np.ascontiguousarray(made))


def _header(path: str) -> Dataset:
    """Return a file's data set, its pixels still in the file."""
    whole = is_dicom(path)
    if whole:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax == DeflatedExplicitVRLittleEndian:
            raise ValueError("it is deflated, and could unpack to any size: unpack it first")
    dataset = dcmread(path, force=True, defer_size=LONG)
    if not any(name in dataset for name in PIXELS):
        if whole or "SOPClassUID" in dataset:
            raise NoPixelsError("it holds no image")
        raise ValueError("it is no DICOM file")
    if "TransferSyntaxUID" not in dataset.file_meta:
        if not dataset.original_encoding[0]:
            raise ValueError("it does not say how its pixels are stored (TransferSyntaxUID)")
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def _about(header: Dataset, size: int) -> About:
    own = _of_frame(header, 0)
    height, width = int(header.Rows), int(header.Columns)
    samples, bits = int(header.get("SamplesPerPixel", 1)), int(header.get("BitsAllocated", 8))
    frames = int(header.get("NumberOfFrames") or 1)
    packed = header.file_meta.TransferSyntaxUID.is_compressed
    # A packed frame has a head of 8 bytes at least.
    each = 64 if packed else height * width * samples * bits
    if frames < 1 or (frames > 1 and frames * each > 8 * size):
        raise ValueError(f"it promises {frames} frames, which it cannot hold")
    plain = not {"RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"} & _names(own)
    windowed = _window(own) is not None or "VOILUTSequence" in own
    kind = str(header.PhotometricInterpretation)
    return About(height, width, kind, samples, frames, not plain or bits > 8, windowed)


def _check(header: Dataset, index: int, path: str, limit: int) -> About:
    found = _about(header, Path(path).stat().st_size)
    check_pixels(found.width, found.height, limit=limit)
    if index >= found.frames:
        raise ValueError(f"it has {found.frames} frames")
    return found


def _names(dataset: Dataset) -> set[str]:
    return {element.keyword for element in dataset}


def _of_frame(header: Dataset, index: int) -> Dataset:
    """Return what the values of a frame mean: for the file, for all frames, or for this one."""
    own = Dataset()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    each = header.get("PerFrameFunctionalGroupsSequence") or ()
    groups = [*shared[:1], *each[index : index + 1]]
    inner = [group[name][0] for group in groups for name in OF_FRAMES if name in group]
    for place in (header, *inner):
        for name in MEANING:
            if name in place:
                own[name] = place[name]
    return own


def _stored(path: str, header: Dataset, index: int) -> Values:
    """Return a frame's values as they are stored; of a file without a head, all are read."""
    if header.file_meta.TransferSyntaxUID.is_compressed:
        _check_stream(header, index)
    source = path if is_dicom(path) else header
    found: Values = pixel_array(source, index=index)
    return found


def _check_stream(header: Dataset, index: int) -> None:
    """Refuse a frame that would unpack to another size than the file's header says."""
    frames = int(header.get("NumberOfFrames") or 1)
    size = own_size(get_frame(header.PixelData, index, number_of_frames=frames))
    told = (int(header.Columns), int(header.Rows))
    if size is not None and size != told:
        raise ValueError(
            f"its frame is compressed as {size[0]} x {size[1]} pixels, and its header says "
            f"{told[0]} x {told[1]}"
        )


def _rescaled(path: str, header: Dataset, index: int) -> tuple[Values, Dataset]:
    stored, own = _stored(path, header, index), _of_frame(header, index)
    if "ModalityLUTSequence" in own:
        return _looked_up(stored, own.ModalityLUTSequence[0]), own
    made: Values = apply_rescale(stored, own)
    return made, own


def _looked_up(found: Values, table: Dataset) -> Values:
    """Return what a table has for values; pydicom's own takes tables of 8 and 16 bits alone."""
    count, first, _ = (int(value) for value in table.LUTDescriptor)
    data = table.LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    # A count of 0 stands for 65536; the first value may be negative, and is written unsigned.
    start = first - 65536 if first > 32767 and found.dtype.kind == "i" else first
    places = found.astype(np.int64) - start
    made: Values = entries.astype(np.uint16)[places.clip(0, (count or 65536) - 1)]
    return made


def _colours(path: str, header: Dataset, index: int) -> Values:
    """Return a frame (H, W, 3) uint8 in red, green and blue."""
    stored, bits = _stored(path, header, index), int(header.BitsStored)
    if str(header.PhotometricInterpretation).startswith("PALETTE"):
        stored = apply_color_lut(stored, header)
        bits = 8 * stored.dtype.itemsize
    if stored.dtype == np.uint8:
        return stored
    return eight_bits(stored, Reading(range=f"0,{2**bits - 1}"))


def _eight_bits(found: Values, own: Dataset, reading: Reading) -> Values:
    """Return grey values as uint8, by the set's range, the file's window, or its bits."""
    if reading.window is not None:
        # Values of 8 bits have a range too, if one is given.
        return eight_bits(found.astype(np.int32) if found.dtype == np.uint8 else found, reading)
    window = _window(own) if reading.range == "auto" else None
    if window is not None:
        return _windowed(found, *window, str(own.get("VOILUTFunction", "LINEAR")))
    if reading.range == "auto" and "VOILUTSequence" in own:
        table = own.VOILUTSequence[0]
        return _between(_looked_up(found, table), 0, 2 ** int(table.LUTDescriptor[2]) - 1)
    if "ModalityLUTSequence" in own:
        return _between(found, 0, 2 ** int(own.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    if "BitsStored" not in own:
        return eight_bits(found, reading)  # floats
    return _between(found, *_ends(own))


def _ends(own: Dataset) -> tuple[float, float]:
    """Return the least and the largest value that a file's bits can have, rescaled."""
    bits, signed = int(own.BitsStored), bool(own.get("PixelRepresentation", 0))
    stored = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, less = float(own.get("RescaleSlope", 1)), float(own.get("RescaleIntercept", 0))
    low, high = sorted(value * slope + less for value in stored)
    return low, high


def _window(own: Dataset) -> tuple[float, float] | None:
    """Return centre and width of a file's first window; None: it has none."""
    found = [own.get(name) for name in ("WindowCenter", "WindowWidth")]
    if any(value is None or value == "" for value in found):
        return None
    centre, width = (float(v if isinstance(v, (int, float, str)) else v[0]) for v in found)
    return (centre, width) if width > 0 else None


def _windowed(found: Values, centre: float, width: float, function: str) -> Values:
    """Apply a window by one of the three functions of PS3.3, C.11.2.1."""
    if function == "SIGMOID":
        part = 255 / (1 + np.exp(-4 * (found.astype(np.float64) - centre) / width))
        return part.round().astype(np.uint8)
    if function == "LINEAR_EXACT":
        return _between(found, centre - width / 2, centre + width / 2)
    half = max(width - 1, 1e-3) / 2  # a width of 1 is a threshold
    return _between(found, centre - 0.5 - half, centre - 0.5 + half)


def _between(found: Values, low: float, high: float) -> Values:
    wide = found.astype(np.int32) if found.dtype == np.uint8 else found
    return eight_bits(wide, Reading(range=f"{low!r},{high!r}"))
