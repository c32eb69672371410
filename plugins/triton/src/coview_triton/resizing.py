"""Crops whose filter widens where they shrink, one axis after the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
from torch import Tensor

from coview.data.transfer import sent
from coview.views.backends.fused.whole import Whole
from coview.views.operations import Crop
from coview_triton import kernels

Box = Mapping[str, Tensor]


def resized(images: Tensor | Whole, crop: Crop, box: Box) -> Tensor:
    """Return the crops (V x n, C, s, s) float in [0, 1], flipped where their row says so.

    Of images at their own sizes, as Pillow does: the axis that loses more than twice as many
    pixels first, otherwise across first, and 8 bits between the two.

    Args:
        images: (n, C, H, W), or images at their own sizes.
        crop: the side and kind of interpolation.
        box: (V, n) float each: ``top``, ``left``, ``height``, ``width``, ``flipped``.
    """
    side, (views, count) = crop.size, box["top"].shape
    top, left, tall, wide = (box[n].long() for n in ("top", "left", "height", "width"))
    if isinstance(images, Whole):
        pixels, channels = images.pixels, images.pixels.shape[1]
        start, _, width = sent(images.extents, pixels.device).unbind(1)
        longest = int(images.extents[:, 1:].max())
        down = (tall > side) & (tall - side > 2 * (wide - side))
        first = (start + top * width + left) * channels
        across, row, channel, rounds = channels, width * channels, 1, True
    else:
        pixels, channels = images.contiguous(), images.shape[1]
        height, columns = images.shape[-2:]
        longest = max(height, columns)
        down = torch.zeros_like(tall, dtype=torch.bool)
        image = torch.arange(count, device=images.device) * (channels * height * columns)
        first = image + top * columns + left
        across, row, channel, rounds = 1, torch.full_like(image, columns), height * columns, False
    row, step = row.expand(views, count), torch.full_like(tall, across)
    plane = longest * side
    unit = 1.0 if rounds or pixels.is_floating_point() else 1 / 255
    between = torch.uint8 if rounds else torch.float32
    middle = torch.empty(
        (views * count, channels, longest, side), dtype=between, device=pixels.device
    )
    ways = _ways(
        first, torch.where(down, row, step), torch.where(down, step, row),
        torch.where(down, tall, wide), torch.where(down, wide, tall), 0, side, 1, plane,
    )  # fmt: skip
    taps = 1 if crop.interpolation == "bilinear" else 2
    block = triton.next_power_of_2(side)
    kernels.resize[views * count, longest, channels](
        pixels, middle, ways, channel, side, unit,
        TAPS=taps, ROUND=rounds, CLAMP=False, ALONG=True, BLOCK=block,
    )  # fmt: skip
    out = torch.empty((views * count, channels, side, side), device=pixels.device)
    # The second axis: rows, or columns where down came first, and these are the ones to mirror.
    mirrored = box["flipped"] > 0
    sign, corner = torch.where(mirrored, -1, 1), torch.where(mirrored, side - 1, 0)
    whole_row = torch.full_like(tall, side)
    row_number = torch.arange(views * count, device=pixels.device).view(views, count)
    ways = _ways(
        row_number * channels * plane, whole_row, torch.ones_like(tall),
        torch.where(down, wide, tall), whole_row, corner,
        torch.where(down, whole_row, sign), torch.where(down, sign, whole_row), side * side,
    )  # fmt: skip
    kernels.resize[views * count, side, channels](
        middle, out, ways, plane, side, 1 / 255 if rounds else 1.0, TAPS=taps, ROUND=False,
        CLAMP=rounds or crop.interpolation == "bicubic", ALONG=False, BLOCK=block,
    )  # fmt: skip
    return out


def _ways(*columns: Tensor | int) -> Tensor:
    """Return the kernel's ``ways``, (rows, 9)."""
    like = next(column for column in columns if isinstance(column, Tensor))
    full = [c if isinstance(c, Tensor) else torch.full_like(like, c) for c in columns]
    return torch.stack([column.flatten() for column in full], dim=1).contiguous()
