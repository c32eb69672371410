"""Colour operations in place on images (n, C, P) in [0, 1] with P pixels.

Formulas and clamps are torchvision's. Factors are (n, 1, 1). A neutral factor
leaves an image unchanged, to the bit or to one rounding of float32; it is used
for images that the operation skips.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coview.nn.compile import compilable

TINY = 1e-20


def grey_of(x: Tensor, luma: Sequence[float]) -> Tensor:
    """Return the grey value of each pixel, (n, P)."""
    if x.shape[1] == 1:
        return x[:, 0]
    grey = x[:, 0] * luma[0]
    for channel in range(1, x.shape[1]):
        grey.add_(x[:, channel], alpha=luma[channel])
    return grey


def mean_grey(x: Tensor, luma: Sequence[float]) -> Tensor:
    """Return the mean grey value of each image, (n, 1, 1)."""
    means = x.mean(dim=2)
    if x.shape[1] == 1:
        return means.unsqueeze(2)
    return grey_of(means.unsqueeze(2), luma).unsqueeze(2)


@compilable(dynamic=True)
def brighten_(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor."""
    return x.mul_(factor).clamp_(0, 1)


@compilable(dynamic=True)
def contrast_(x: Tensor, factor: Tensor, luma: Sequence[float]) -> Tensor:
    """Blend with the mean grey value."""
    rest = (1 - factor) * mean_grey(x, luma)
    return torch.addcmul(rest, x, factor, out=x).clamp_(0, 1)


@compilable(dynamic=True)
def saturate_(x: Tensor, factor: Tensor, luma: Sequence[float]) -> Tensor:
    """Blend with the grey image."""
    return desaturate_(x, factor, luma).clamp_(0, 1)


@compilable(dynamic=True)
def desaturate_(x: Tensor, factor: Tensor, luma: Sequence[float]) -> Tensor:
    """Blend with the grey image by a factor of 0 to 1, which cannot overshoot."""
    return torch.lerp(grey_of(x, luma).unsqueeze(1), x, factor, out=x)


def hue_offsets(turns: Tensor) -> Tensor:
    """Return 6 t - 2 n for t turns (...) and channel n, in [-3, 3]: (..., 3, 1)."""
    channels = torch.arange(3, device=turns.device, dtype=turns.dtype)
    sixths = 6 * turns.unsqueeze(-1) - 2 * channels
    return (sixths - 6 * (sixths / 6).round()).unsqueeze(-1)


@compilable(dynamic=True)
def rotate_hue_(x: Tensor, offsets: Tensor) -> Tensor:
    """Rotate the hue of RGB images by t turns of the colour circle, as HSV defines it.

    With M and m the greatest and the least of R, G, B, and c = M - m, the hue h
    in sixths of a turn is +-(1 + (G + B - R - m) / c), with the sign of G - B: a
    closed form without cases. Rotated by t, channel n = 0, 1, 2 is
    m + c clamp(||h + 6 t - 2 n| - 3| - 1, 0, 1), with the argument in [-6, 6].

    Args:
        x: (n, 3, P).
        offsets: (n, 3, 1), from :func:`hue_offsets`.
    """
    red, green, blue = x.unbind(1)
    high, low = torch.maximum(green, blue), torch.minimum(green, blue)
    hue, side = green + blue, green - blue
    torch.maximum(high, red, out=high)
    torch.minimum(low, red, out=low)
    chroma = high.sub_(low)
    hue.sub_(red).sub_(low).div_(chroma.clamp(min=TINY)).add_(1)
    torch.copysign(hue, side, out=hue)
    torch.add(hue.unsqueeze(1), offsets, out=x)
    x.abs_().sub_(3).abs_().clamp_(1, 2)
    return torch.addcmul(low.sub_(chroma).unsqueeze(1), x, chroma.unsqueeze(1), out=x)


@compilable(dynamic=True)
def solarize_(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels at or above a threshold (n, 1, 1)."""
    return x.copy_(torch.where(x >= threshold, 1 - x, x))


@compilable(dynamic=True)
def jitter_each_(
    x: Tensor, factors: Sequence[Tensor], offsets: Tensor, position: Tensor, luma: Sequence[float]
) -> Tensor:
    """Apply brightness, contrast, saturation and hue, to each image in its own order.

    The first three are blends (with black, with the mean grey, with the grey
    image), so one formula computes any of them. It runs three times before the
    hue and three times after it, and each image uses three of the six.

    Args:
        x: images (n, C, P).
        factors: brightness, contrast and saturation, (n, 1, 1) each.
        offsets: hue, (n, 3, 1).
        position: (4, n, 1, 1), the position of each of the four in the order.
        luma: weights of the channels.
    """
    stacked = torch.stack(list(factors))
    hue_at = position[3]
    slot_of = position[:3] - (position[:3] > hue_at).to(position.dtype)
    for late in (False, True):
        for slot in range(3):
            active = (hue_at <= slot) == late
            chosen = (slot_of == slot) & active
            factor = torch.where(chosen, stacked, 0).sum(dim=0) + (~active).to(x.dtype)
            other = mean_grey(x, luma) * chosen[1].to(x.dtype)
            grey = grey_of(x, luma).unsqueeze(1) * chosen[2].to(x.dtype)
            rest = (other + grey) * (1 - factor)
            torch.addcmul(rest, x, factor, out=x).clamp_(0, 1)
        if not late and x.shape[1] == 3:
            rotate_hue_(x, offsets)
    return x
