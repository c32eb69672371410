"""JPEG files decoded on the GPU, a batch at a time: ``data.decoder = "gpu"``.

Workers read the bytes; the GPU decodes and resizes them. The CPU decodes what
the GPU's decoder refuses, and files that are not JPEG. Pixels differ from the
CPU's in their last digits, so the setting is part of a run. torchvision does the
decoding; a torchvision without it (its authors mean to drop it in favour of
TorchCodec) leaves everything to the CPU. Not yet run on a GPU.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from coview.data.bad_images import Fault, read
from coview.data.bands import check_pixels
from coview.data.decode import Files, fit, turn_of
from coview.data.pillow import opened
from coview.data.values import Reading
from coview.errors import RequestError

JPEG = b"\xff\xd8\xff"
MOST_BYTES = 1 << 28

Decoder = Callable[[Sequence[Tensor], torch.device], list[Tensor]]


def files_of(images: Any) -> Files | None:
    """Return the files behind a split's images if the GPU is to decode them, else None."""
    while isinstance(images, Subset):
        images = images.dataset
    return images if isinstance(images, Files) and images.decoder == "gpu" else None


@attrs.frozen(eq=False)
class Contents(Dataset[Any]):
    """The undecoded bytes of JPEG files, (n,) uint8 each; None for any other file."""

    images: Any

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor | None:
        images = self.images
        while isinstance(images, Subset):
            row, images = images.indices[row], images.dataset
        try:
            with open(images.paths[row], "rb") as file:  # noqa: PTH123  # names of any bytes
                content = file.read(MOST_BYTES)
        except OSError:
            return None  # the CPU reads it again, and then reports what is wrong
        if not content.startswith(JPEG) or not _plain(content, images.reading):
            return None
        return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))


def _plain(content: bytes, reading: Reading) -> bool:
    """Return whether a JPEG file's header leaves nothing for the CPU to do, or to refuse."""
    try:
        with opened(io.BytesIO(content), ".jpg") as image:
            check_pixels(image.width, image.height, limit=reading.max_pixels)
            return reading.orientation == "ignore" or turn_of(image) is None
    except ValueError:  # too large: the CPU says so
        return False
    except Exception:  # damaged: the decoder finds out
        return True


def torchvisions() -> Decoder | None:
    """Return torchvision's decoder, or None if it has none."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None

    def decode(contents: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: list[Tensor] = decode_jpeg(
                list(contents), mode=ImageReadMode.RGB, device=str(device)
            )
        return found

    return decode


def decoded(
    images: Any,
    files: Files,
    batches: Iterator[tuple[Sequence[int], list[Tensor | None]]],
    device: torch.device,
    decoder: Decoder,
) -> Iterator[tuple[Tensor, list[Fault]]]:
    """Yield batches of images on the device, with the faults met in each.

    Args:
        images: the images of a split.
        files: the files that they come from.
        batches: pairs of rows and their bytes as :class:`Contents` gives them.
        device: the device to decode on.
        decoder: decodes the bytes of a list of JPEG files.
    """
    for rows, contents in batches:
        faults: list[Fault] = []
        made: list[Tensor] = []
        for row, image in zip(rows, _images(contents, files, device, decoder), strict=True):
            if image is None:
                image, found = read(images, row)
                faults += found
            made.append(image.to(device))
        yield torch.stack(made), faults


def _images(
    contents: Sequence[Tensor | None], files: Files, device: torch.device, decoder: Decoder
) -> list[Tensor | None]:
    known = [place for place, content in enumerate(contents) if content is not None]
    whole: list[Tensor | None] = [None] * len(contents)
    for place, image in zip(
        known, _each([c for c in contents if c is not None], device, decoder), strict=True
    ):
        try:
            whole[place] = None if image is None else fit(image, files.size, files.channels)
        except (RequestError, RuntimeError):
            continue
    return whole


def _each(
    contents: Sequence[Tensor], device: torch.device, decoder: Decoder
) -> Sequence[Tensor | None]:
    """Decode all at once or, if that fails, one by one to find the bad ones."""
    if not contents:
        return []
    try:
        return decoder(contents, device)
    except RuntimeError:
        if len(contents) == 1:
            return [None]
    return [image for content in contents for image in _each([content], device, decoder)]
