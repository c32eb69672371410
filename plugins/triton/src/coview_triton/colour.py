"""Colour operations on blocks of pixels, one image a program.

Formulas and clamps are torchvision's, as in the fused backend. Red, green and blue are
blocks of their own; an image of one channel passes it three times and has grey weights
of 1, 0, 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Columns of the table of parameters, one row an image of a view.
TOP = tl.constexpr(0)
LEFT = tl.constexpr(1)
TALL = tl.constexpr(2)
WIDE = tl.constexpr(3)
FLIPPED = tl.constexpr(4)
ORDER = tl.constexpr(5)
BRIGHTNESS = tl.constexpr(6)
CONTRAST = tl.constexpr(7)
SATURATION = tl.constexpr(8)
HUE = tl.constexpr(9)  # and the next two
KEEP = tl.constexpr(12)
THRESHOLD = tl.constexpr(13)
COLUMNS = 14

# Steps of a jitter, of which an order has four: three bits each.
NO_STEP = 7
MEAN_STEP = tl.constexpr(1)
TINY = tl.constexpr(1e-20)


@triton.jit
def unit(x):
    """Clamp to [0, 1]."""
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def grey_of(red, green, blue, luma):
    """Return the grey value of each pixel, with three weights."""
    return red * tl.load(luma) + green * tl.load(luma + 1) + blue * tl.load(luma + 2)


@triton.jit
def blended(red, green, blue, other, factor):
    """Blend with another value, and clamp."""
    rest = other * (1.0 - factor)
    return unit(red * factor + rest), unit(green * factor + rest), unit(blue * factor + rest)


@triton.jit
def turned(hue, offset, low, chroma):
    """Return a channel after the hue has been turned by an offset."""
    away = tl.abs(tl.abs(hue + offset) - 3.0)
    return low + chroma * (tl.minimum(tl.maximum(away, 1.0), 2.0) - 1.0)


@triton.jit
def hue_rotated(red, green, blue, own):
    """Rotate the hue; the closed form of ``coview``'s ``rotate_hue_``."""
    high = tl.maximum(tl.maximum(green, blue), red)
    low = tl.minimum(tl.minimum(green, blue), red)
    chroma = high - low
    hue = (green + blue - red - low) / tl.maximum(chroma, TINY) + 1.0
    hue = tl.where(green - blue < 0.0, -tl.abs(hue), tl.abs(hue))
    return (
        turned(hue, tl.load(own + HUE), low, chroma),
        turned(hue, tl.load(own + HUE + 1), low, chroma),
        turned(hue, tl.load(own + HUE + 2), low, chroma),
    )


@triton.jit
def stepped(red, green, blue, step, mean, own, luma):
    """Apply one step of a jitter: brightness, contrast, saturation or hue."""
    if step == 0:
        red, green, blue = blended(red, green, blue, 0.0, tl.load(own + BRIGHTNESS))
    elif step == MEAN_STEP:
        red, green, blue = blended(red, green, blue, mean, tl.load(own + CONTRAST))
    elif step == 2:
        grey = grey_of(red, green, blue, luma)
        red, green, blue = blended(red, green, blue, grey, tl.load(own + SATURATION))
    elif step == 3:
        red, green, blue = hue_rotated(red, green, blue, own)
    return red, green, blue


@triton.jit
def before_mean(red, green, blue, own, luma):
    """Apply the steps that precede the contrast, which needs their mean grey value."""
    order = tl.load(own + ORDER).to(tl.int32)
    reached = 0
    for slot in tl.static_range(4):
        step = (order >> (3 * slot)) & 7
        if step == MEAN_STEP:
            reached = 1
        if reached == 0:
            red, green, blue = stepped(red, green, blue, step, 0.0, own, luma)
    return red, green, blue


@triton.jit
def jittered(red, green, blue, mean, inside, pixels, own, luma, MEASURED: tl.constexpr):
    """Apply all steps of a jitter.

    Args:
        mean: the mean grey value where the contrast's turn comes; if MEASURED.
        inside: which values of the blocks are pixels of the image.
        pixels: how many; if not MEASURED, all of the image's are in the blocks.
    """
    order = tl.load(own + ORDER).to(tl.int32)
    for slot in tl.static_range(4):
        step = (order >> (3 * slot)) & 7
        if step == MEAN_STEP:  # noqa: SIM102 - the one is known when compiled, the other not
            if not MEASURED:
                mean = tl.sum(tl.where(inside, grey_of(red, green, blue, luma), 0.0)) / pixels
        red, green, blue = stepped(red, green, blue, step, mean, own, luma)
    return red, green, blue


@triton.jit
def greyed(red, green, blue, own, luma):
    """Set all channels to the grey value, in images that do not keep their colours."""
    keep = tl.load(own + KEEP)
    grey = grey_of(red, green, blue, luma)
    return (
        tl.where(keep == 1.0, red, grey),
        tl.where(keep == 1.0, green, grey),
        tl.where(keep == 1.0, blue, grey),
    )


@triton.jit
def solarized(x, threshold):
    """Invert the pixels at or above a threshold."""
    return tl.where(x >= threshold, 1.0 - x, x)
