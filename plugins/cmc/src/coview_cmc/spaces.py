"""Colour spaces and the like: conversions of an image before its channels are grouped."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import torch
from kornia.color import rgb_to_linear_rgb, rgb_to_ycbcr
from kornia.filters import gaussian_blur2d
from torch import Tensor

from coview.nn.constants import like
from coview.plan import Plan

Range = tuple[tuple[float, ...], tuple[float, ...]]
"""Middle and half-range (or mean and deviation) of each channel."""


TO_XYZ = (
    ((0.412453, 0.357580, 0.180423), 0.95047),
    ((0.212671, 0.715160, 0.072169), 1.0),
    ((0.019334, 0.119193, 0.950227), 1.08883),
)
"""X, Y and Z of linear red, green and blue, and of white (sRGB primaries, D65, 2 degrees)."""


@attrs.frozen
class Space:
    """A representation of an image.

    Attributes:
        convert: images (B, C, H, W) in [0, 1] -> (B, channels, H, W).
        channels: from an image's number of channels to that of the result.
        scale: values that the channels are standardised with.
        limits: from a number of channels to the least and greatest value of each.
        takes: number of channels that an image must have; None: any number.
        groups: default groups of channels, one per view, for an image's number of channels.
    """

    convert: Callable[[Tensor], Tensor]
    channels: Callable[[int], int]
    scale: Callable[[Plan], Range]
    limits: Callable[[int], Range]
    takes: int | None
    groups: Callable[[int], tuple[tuple[int, ...], ...]]


def lab(images: Tensor) -> Tensor:
    """Return CIE Lab: L in [0, 100], a and b about [-108, 98] (sRGB, D65).

    Equal to kornia's ``rgb_to_lab``, which waits for the device because it copies its
    matrices there in every call; here the numbers are arguments of operations.
    """
    red, green, blue = rgb_to_linear_rgb(images.clamp(0, 1)).unbind(1)
    x, y, z = (_root((r * red + g * green + b * blue) / w) for (r, g, b), w in TO_XYZ)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _root(share: Tensor) -> Tensor:
    """Return the cube root of a share of white, or a line for dark colours (CIE 15)."""
    return torch.where(
        share > 0.008856, share.clamp(min=0.008856) ** (1 / 3), 7.787 * share + 4 / 29
    )


def ycbcr(images: Tensor) -> Tensor:
    """Return ITU-R BT.601 with 8 bits: Y in [16, 235], Cb and Cr in [16, 240]."""
    values = rgb_to_ycbcr(images.clamp(0, 1))
    span = like((219.0, 224.0, 224.0), values).view(3, 1, 1)
    return values * span + 16


def frequencies(images: Tensor) -> Tensor:
    """Return the blurred image, then what the blur removed: (B, C, ...) -> (B, 2 C, ...)."""
    height, width = images.shape[-2:]
    sigma = max(min(height, width) / 16, 1.0)
    # Reflection needs an image larger than half the kernel.
    taps = min(2 * round(2 * sigma) + 1, 2 * (min(height, width) - 1) + 1)
    low = gaussian_blur2d(images, (taps, taps), (sigma, sigma))
    return torch.cat([low, images - low], dim=1)


def _of_data(plan: Plan) -> Range:
    return plan.mean, plan.std


def _of_frequencies(plan: Plan) -> Range:
    # A blur keeps the mean; the rest has mean 0. Both deviations are about the image's own.
    return (*plan.mean, *(0.0,) * plan.channels), (*plan.std, *plan.std)


SPACES: Mapping[str, Space] = {
    # Middle and half-range of Lab over the sRGB gamut (released code).
    "lab": Space(
        lab,
        lambda channels: 3,
        lambda plan: ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
        lambda channels: ((0.0, -86.183, -107.857), (100.0, 98.233, 94.478)),
        3,
        lambda channels: ((0,), (1, 2)),
    ),
    # The released code's values for YCbCr.
    "ycbcr": Space(
        ycbcr,
        lambda channels: 3,
        lambda plan: ((116.151, 121.080, 132.342), (109.500, 111.855, 111.964)),
        lambda channels: ((16.0, 16.0, 16.0), (235.0, 240.0, 240.0)),
        3,
        lambda channels: ((0,), (1, 2)),
    ),
    "raw": Space(
        lambda images: images,
        lambda channels: channels,
        _of_data,
        lambda channels: ((0.0,) * channels, (1.0,) * channels),
        None,
        lambda channels: tuple((number,) for number in range(channels)),
    ),
    "frequencies": Space(
        frequencies,
        lambda channels: 2 * channels,
        _of_frequencies,
        # The blurred image, then differences, which may be negative.
        lambda channels: (
            (0.0,) * (channels // 2) + (-1.0,) * (channels // 2),
            (1.0,) * channels,
        ),
        None,
        lambda channels: (tuple(range(channels)), tuple(range(channels, 2 * channels))),
    ),
}
