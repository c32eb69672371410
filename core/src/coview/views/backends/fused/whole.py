"""Crops cut from images of different sizes, resampled as Pillow does.

Pillow resamples along one axis, rounds to 8 bits, then along the other: across first,
or down first where a crop loses more than twice as many rows as columns (Pillow 13; earlier
ones always across, which differs where a kernel overshoots white or black). So does this,
so that crops are those of the papers' data loaders; only their last rounding is left out.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from coview.data.transfer import sent
from coview.views.backends.fused.resample import Aims, weights
from coview.views.operations import Crop

MOST = 2**28
"""Values of padded images that are resampled at a time on a device."""


@attrs.frozen(eq=False)
class Whole:
    """Images at their own sizes.

    Attributes:
        pixels: (P, C) uint8, on any device.
        extents: (n, 3) int64 on the CPU: the first of each image's pixels, its height and width.
    """

    pixels: Tensor
    extents: Tensor

    def __len__(self) -> int:
        return len(self.extents)

    def __getitem__(self, rows: slice) -> Whole:
        return Whole(self.pixels, self.extents[rows])

    def sizes(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return heights and widths, (n,) float each, on the device."""
        heights, widths = sent(self.extents, device)[:, 1:].float().unbind(1)
        return heights, widths

    def at_a_time(self) -> int:
        """Return how many images may be padded to one size at once."""
        side = int(self.extents[:, 1:].max())
        return max(1, MOST // (self.pixels.shape[1] * side**2))


def cut(source: Whole, crop: Crop, aim: Aims) -> Tensor:
    """Return crops (n, C, s, s) float in [0, 1].

    Args:
        source: the images.
        crop: the side and kind of interpolation.
        aim: (n,) each: ``top``, ``left``, ``height``, ``width`` in pixels, and perhaps
            ``flipped``.
    """
    if source.pixels.device.type == "cpu":
        return _one_by_one(source, crop, aim)
    return _together(source, crop, aim)


def _one_by_one(source: Whole, crop: Crop, aim: Aims) -> Tensor:
    """On a CPU, where Python may look at the boxes: torch's own kernel for 8-bit images."""
    pixels, channels = source.pixels, source.pixels.shape[1]
    boxes = torch.stack([aim[name] for name in ("top", "left", "height", "width")], 1)
    flipped = aim["flipped"].tolist() if "flipped" in aim else [False] * len(source)
    out = torch.empty((len(source), channels, crop.size, crop.size))
    rows = zip(source.extents.tolist(), boxes.long().tolist(), flipped, out, strict=True)
    for (start, height, width), (top, left, tall, wide), mirrored, place in rows:
        image = pixels[start : start + height * width].view(height, width, channels)
        part = image[top : top + tall, left : left + wide].permute(2, 0, 1).unsqueeze(0)
        made = _resized(part, crop)[0]
        torch.mul(made.flip(-1) if mirrored else made, 1 / 255, out=place)
    return out.clamp_(0, 1)


def _resized(part: Tensor, crop: Crop) -> Tensor:
    """Return (1, C, s, s) in 0 to 255: the second axis in float, where 8 bits may err by two."""
    height, width = part.shape[-2:]
    down = height > crop.size and height - crop.size > 2 * (width - crop.size)
    part = _interpolated(part, crop, (crop.size, width) if down else (height, crop.size))
    return _interpolated(part.contiguous().float(), crop, (crop.size, crop.size))


def _interpolated(part: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    if part.shape[-2:] == size:
        return part
    return interpolate(
        part, size, mode=crop.interpolation, align_corners=False, antialias=crop.antialias
    )


def _together(source: Whole, crop: Crop, aim: Aims) -> Tensor:
    """On a device: all crops by matrix products, and no number read back.

    Axis a is resampled last and b first: rows and columns, or the other way round in
    crops that Pillow resamples down first; these are transposed while they are gathered.
    """
    device, side = source.pixels.device, int(source.extents[:, 1:].max())
    start, _, width = sent(source.extents, device).unbind(1)
    tall, wide = (aim[name].long() for name in ("height", "width"))
    down = (tall > crop.size) & (tall - crop.size > 2 * (wide - crop.size))
    first = start + aim["top"].long() * width + aim["left"].long()
    ones = torch.ones_like(width)
    far_a, far_b = torch.where(down, wide, tall), torch.where(down, tall, wide)
    step_a, step_b = torch.where(down, ones, width), torch.where(down, width, ones)
    index = torch.arange(side, device=device)
    along_a = torch.minimum(index, far_a[:, None] - 1) * step_a[:, None]
    along_b = torch.minimum(index, far_b[:, None] - 1) * step_b[:, None]
    places = first[:, None, None] + along_a[:, :, None] + along_b[:, None, :]
    padded = source.pixels[places.flatten()].view(*places.shape, -1).permute(0, 3, 1, 2).float()
    x = (padded @ _weights(crop, far_b, side).unsqueeze(1).mT).round_().clamp_(0, 255)
    x = _weights(crop, far_a, side).unsqueeze(1) @ x
    x = torch.where(down[:, None, None, None], x.mT, x)
    if "flipped" in aim:
        x = torch.where(aim["flipped"][:, None, None, None], x.flip(-1), x)
    return x.mul_(1 / 255).clamp_(0, 1)


def _weights(crop: Crop, extent: Tensor, length: int) -> Tensor:
    """Return (n, s, length): the weight of each pixel of a crop in each output pixel."""
    start = torch.zeros(len(extent), device=extent.device)
    return weights(crop, start, extent.to(start.dtype), length, None)
