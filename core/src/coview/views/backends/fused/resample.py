"""Crop, resize and flip in one resampling, with a different box for each image.

Equal to cropping each image and resizing the crop as torch's ``interpolate``
does: pixels outside the box have no influence. There are n rows of images H by W,
boxes are in pixels, and s is the output's side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from coview.nn.compile import compilable, compiling
from coview.views.operations import Crop

Aims = dict[str, Tensor]

SMALL = 64
"""Up to this side, bicubic weights as matrices are faster than sixteen reads per pixel."""


def aims(crop: Crop, box: Aims, flipped: Tensor | None, size: tuple[int, int]) -> Aims:
    """Return what :func:`resample` needs for every row, computed before any pixel.

    Args:
        crop: the side and kind of interpolation.
        box: ``top``, ``left``, ``height``, ``width``, (V, B) each.
        flipped: (V, B) bool: which images are mirrored afterwards.
        size: height and width of the images.

    Returns:
        (V, B, ...) each, for :func:`resample`.
    """
    if by_matrices(crop, size):
        return box if flipped is None else {**box, "flipped": flipped}
    down, right = (box["top"], box["height"]), (box["left"], box["width"])
    y, x = places(crop, *down, None), places(crop, *right, flipped)
    if crop.interpolation == "bilinear":
        return {"y": _across(_within(y, *down), size[0]), "x": _across(_within(x, *right), size[1])}
    # Bicubic reads two pixels on each side; outside the box they must repeat its border.
    own_y = torch.arange(size[0], device=y.device).expand(*y.shape[:-1], -1)
    own_x = torch.arange(size[1], device=x.device).expand(*x.shape[:-1], -1)
    return {
        "own_y": _across(_within(own_y, *down), size[0]),
        "own_x": _across(_within(own_x, *right), size[1]),
        "y": _across(y, size[0]),
        "x": _across(x, size[1]),
    }


def resample(images: Tensor, crop: Crop, aim: Aims) -> Tensor:
    """Return the crops (n, C, s, s) of images (n, C, H, W) float, as ``aim`` says for each row."""
    size = (images.shape[-2], images.shape[-1])
    if by_matrices(crop, size):
        rows, columns = matrices(crop, aim, size)
        return rows.unsqueeze(1) @ images @ columns.unsqueeze(1).mT
    if crop.interpolation == "bicubic":
        images = _read(images, aim["own_y"], aim["own_x"], "nearest")
    return _read(images, aim["y"], aim["x"], crop.interpolation)


def by_matrices(crop: Crop, size: tuple[int, int]) -> bool:
    """Return whether to mix rows and columns by matrices of weights, not read single pixels."""
    return crop.antialias or (crop.interpolation == "bicubic" and max(size) <= SMALL)


def places(crop: Crop, start: Tensor, extent: Tensor, flipped: Tensor | None) -> Tensor:
    """Return where each output pixel lies in the image, (..., s) in pixels."""
    index = torch.arange(crop.size, device=start.device, dtype=start.dtype)
    if flipped is not None:
        index = torch.where(flipped.unsqueeze(-1), crop.size - 1 - index, index)
    start, extent = start.unsqueeze(-1), extent.unsqueeze(-1)
    if crop.align_corners:
        return start + index * ((extent - 1) / max(crop.size - 1, 1))
    return start + ((index + 0.5) * (extent / crop.size) - 0.5)


def _within(position: Tensor, start: Tensor, extent: Tensor) -> Tensor:
    start = start.unsqueeze(-1)
    return torch.minimum(torch.maximum(position, start), start + extent.unsqueeze(-1) - 1)


def _across(position: Tensor, length: int) -> Tensor:
    """Convert pixels to the scale of ``grid_sample``: -1 and 1 are the image's outer edges."""
    return (2 * position + 1) / length - 1


def _read(images: Tensor, y: Tensor, x: Tensor, mode: str) -> Tensor:
    """Sample images (n, C, H, W) at every pair of y (n, h) and x (n, w)."""
    shape = (len(y), y.shape[1], x.shape[1])
    grid = torch.empty((*shape, 2), dtype=images.dtype, device=images.device)
    grid[..., 0] = x.unsqueeze(1)
    grid[..., 1] = y.unsqueeze(2)
    return grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


@compilable()
def matrices(crop: Crop, aim: Aims, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the weights of rows (n, s, H) and of columns (n, s, W) in a crop."""
    rows = weights(crop, aim["top"], aim["height"], size[0], None)
    return rows, weights(crop, aim["left"], aim["width"], size[1], aim.get("flipped"))


def weights(
    crop: Crop, start: Tensor, extent: Tensor, length: int, flipped: Tensor | None
) -> Tensor:
    """Return the weight of each image row (or column) in each output row, (n, s, length)."""
    pixels = torch.arange(length, device=start.device, dtype=start.dtype)
    first, last = start[:, None, None], (start + extent - 1)[:, None, None]
    inside = (pixels >= first) & (pixels <= last)
    if crop.antialias or crop.interpolation == "bilinear":
        # torch widens the filter when it shrinks an image, and then uses a = -1/2, not -3/4.
        position = places(crop, start, extent, flipped).unsqueeze(2)
        widest = extent / crop.size if crop.antialias else torch.ones_like(extent)
        spread = widest.clamp(min=1)[:, None, None]
        kernel = _triangle if crop.interpolation == "bilinear" else _keys
        raw = torch.where(inside, kernel((pixels - position) / spread), 0)
        return raw / raw.sum(dim=2, keepdim=True)
    if start.device.type == "cpu" and not compiling():
        return _of_four(crop, start, extent, length, flipped)
    position = places(crop, start, extent, flipped).unsqueeze(2)
    own = torch.where(inside, _cubic(pixels - position, -0.75), 0)
    before = _cubic(first - 1 - position, -0.75) + _cubic(first - 2 - position, -0.75)
    after = _cubic(last + 1 - position, -0.75) + _cubic(last + 2 - position, -0.75)
    return own + before * (pixels == first) + after * (pixels == last)


def _of_four(
    crop: Crop, start: Tensor, extent: Tensor, length: int, flipped: Tensor | None
) -> Tensor:
    """Return what :func:`weights` does, from the four pixels that bicubic reads alone.

    An eighth of the numbers at a side of 32. On a GPU, or compiled, the order in which two
    weights of one pixel are added would not be fixed.
    """
    position = places(crop, start, extent, flipped).unsqueeze(2)
    read = position.floor() + torch.arange(-1, 3, dtype=position.dtype)
    first, last = start[:, None, None], (start + extent - 1)[:, None, None]
    found = torch.minimum(torch.maximum(read, first), last).long()
    blank = torch.zeros((*position.shape[:2], length), dtype=position.dtype)
    return blank.scatter_add_(2, found, _cubic(read - position, -0.75))


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
