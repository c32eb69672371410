"""Crop, resize and flip in one resampling, for boxes that differ from image to image.

Equal to cropping each image and resizing the part as torch's ``interpolate``
does: what lies outside the box is never seen. n rows, images H by W, boxes in
pixels, s the side of what comes out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from coview.views.operations import Crop

SMALL = 64
"""Up to this side, bicubic weights as matrices are faster than sixteen reads a pixel."""


def resample(images: Tensor, crop: Crop, box: dict[str, Tensor], flipped: Tensor | None) -> Tensor:
    """Return the boxes of images (n, C, H, W) float, (n, C, s, s).

    Args:
        images: in any range.
        crop: size and kind of interpolation.
        box: ``top``, ``left``, ``height``, ``width``, (n,) each.
        flipped: (n,) bool: which are mirrored afterwards.
    """
    down = (box["top"], box["height"])
    right = (box["left"], box["width"])
    height, width = images.shape[-2:]
    if crop.antialias or (crop.interpolation == "bicubic" and max(height, width) <= SMALL):
        rows, columns = weights(crop, *down, height, None), weights(crop, *right, width, flipped)
        return rows.unsqueeze(1) @ images @ columns.unsqueeze(1).mT
    y, x = places(crop, *down, None), places(crop, *right, flipped)
    if crop.interpolation == "bilinear":
        return _read(images, _within(y, *down), _within(x, *right), "bilinear")
    # Bicubic reads two pixels around; beyond the box those must repeat the box's border.
    own_rows = _within(torch.arange(height, device=y.device).expand(len(y), -1), *down)
    own_columns = _within(torch.arange(width, device=x.device).expand(len(x), -1), *right)
    repeated = _read(images, own_rows, own_columns, "nearest")
    return _read(repeated, y, x, "bicubic")


def places(crop: Crop, start: Tensor, extent: Tensor, flipped: Tensor | None) -> Tensor:
    """Return where each output pixel lies in the image, (n, s) in pixels."""
    index = torch.arange(crop.size, device=start.device, dtype=start.dtype)
    if flipped is not None:
        index = torch.where(flipped.unsqueeze(1), crop.size - 1 - index, index)
    start, extent = start.unsqueeze(1), extent.unsqueeze(1)
    if crop.align_corners:
        return start + index * ((extent - 1) / max(crop.size - 1, 1))
    return start + ((index + 0.5) * (extent / crop.size) - 0.5)


def _within(position: Tensor, start: Tensor, extent: Tensor) -> Tensor:
    start = start.unsqueeze(1)
    return torch.minimum(torch.maximum(position, start), start + extent.unsqueeze(1) - 1)


def _read(images: Tensor, y: Tensor, x: Tensor, mode: str) -> Tensor:
    """Sample images (n, C, H, W) at every pair of y (n, h) and x (n, w)."""
    height, width = images.shape[-2:]
    shape = (len(y), y.shape[1], x.shape[1])
    grid = torch.empty((*shape, 2), dtype=images.dtype, device=images.device)
    grid[..., 0] = ((2 * x + 1) / width - 1).unsqueeze(1)
    grid[..., 1] = ((2 * y + 1) / height - 1).unsqueeze(2)
    return grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def weights(
    crop: Crop, start: Tensor, extent: Tensor, length: int, flipped: Tensor | None
) -> Tensor:
    """Return the weight of each image row (or column) in each output one, (n, s, length)."""
    pixels = torch.arange(length, device=start.device, dtype=start.dtype)
    first, last = start[:, None, None], (start + extent - 1)[:, None, None]
    inside = (pixels >= first) & (pixels <= last)
    if crop.antialias:
        # torch draws the filter over more pixels where it shrinks; a = -1/2 then, else -3/4.
        position = places(crop, start, extent, flipped).unsqueeze(2)
        spread = (extent / crop.size).clamp(min=1)[:, None, None]
        kernel = _triangle if crop.interpolation == "bilinear" else _keys
        raw = torch.where(inside, kernel((pixels - position) / spread), 0)
        return raw / raw.sum(dim=2, keepdim=True)
    position = places(crop, start, extent, flipped).unsqueeze(2)
    own = torch.where(inside, _cubic(pixels - position, -0.75), 0)
    before = _cubic(first - 1 - position, -0.75) + _cubic(first - 2 - position, -0.75)
    after = _cubic(last + 1 - position, -0.75) + _cubic(last + 2 - position, -0.75)
    return own + before * (pixels == first) + after * (pixels == last)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _keys(distance: Tensor) -> Tensor:
    return _cubic(distance, -0.5)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """The cubic convolution kernel (Keys 1981), zero from two pixels on."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0))
