"""Ways to read one channel of a view's pixels: as they are, cropped, or blurred along an axis."""

from __future__ import annotations

import triton
import triton.language as tl

from coview_triton.colour import FLIPPED, LEFT, TALL, TOP, WIDE

AS_IT_IS = tl.constexpr(0)
CROPPED = tl.constexpr(2)
CROPPED_BICUBIC = tl.constexpr(4)
DOWN = tl.constexpr(10)
ACROSS = tl.constexpr(11)

# 1.5 * 2^23: a float32 that is added and subtracted leaves the nearest integer, halves to even.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def rounded(x):
    """Round to whole numbers, halves to even ones."""
    return (x + ROUNDING) - ROUNDING


@triton.jit
def keys(distance, a):
    """The cubic convolution kernel (Keys 1981), zero from two pixels on."""
    d = tl.abs(distance)
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return tl.where(d <= 1.0, near, tl.where(d < 2.0, far, 0.0))


@triton.jit
def place(index, start, extent, side, CORNERS: tl.constexpr):
    """Return where output pixels lie in the image."""
    if CORNERS:
        return start + index * ((extent - 1.0) / tl.maximum(side - 1, 1))
    return start + ((index + 0.5) * (extent / side) - 0.5)


@triton.jit
def cropped(
    image, row, column, inside, own, width, side_h, side_w, TAPS: tl.constexpr,
    CORNERS: tl.constexpr,
):  # fmt: skip
    """Read a crop of one channel, bilinear (two taps an axis) or bicubic (four)."""
    top, left = tl.load(own + TOP), tl.load(own + LEFT)
    tall, wide = tl.load(own + TALL), tl.load(own + WIDE)
    column = tl.where(tl.load(own + FLIPPED) == 1.0, side_w - 1 - column, column)
    y, x = place(row, top, tall, side_h, CORNERS), place(column, left, wide, side_w, CORNERS)
    if TAPS == 2:
        y = tl.minimum(tl.maximum(y, top), top + tall - 1.0)
        x = tl.minimum(tl.maximum(x, left), left + wide - 1.0)
    first_y, first_x = tl.floor(y), tl.floor(x)
    total = tl.zeros_like(y)
    for i in tl.static_range(TAPS):
        at_y = first_y + (i + 1 - TAPS // 2)
        weight_y = 1.0 - tl.abs(y - at_y) if TAPS == 2 else keys(y - at_y, -0.75)
        near_y = tl.minimum(tl.maximum(at_y, top), top + tall - 1.0).to(tl.int32)
        for j in tl.static_range(TAPS):
            at_x = first_x + (j + 1 - TAPS // 2)
            weight_x = 1.0 - tl.abs(x - at_x) if TAPS == 2 else keys(x - at_x, -0.75)
            near_x = tl.minimum(tl.maximum(at_x, left), left + wide - 1.0).to(tl.int32)
            value = tl.load(image + near_y * width + near_x, mask=inside, other=0).to(tl.float32)
            total += weight_y * weight_x * value
    return total


@triton.jit
def blurred(
    image, row, column, inside, weights, height, width, before, after, REACH: tl.constexpr,
    AXIS: tl.constexpr, PILLOW: tl.constexpr,
):  # fmt: skip
    """Read one channel blurred along an axis: reflected at the border, or repeated as Pillow does.

    Pillow leaves 8 bits after each of six passes: the first multiplies by 255 before it rounds,
    the last divides by it after. An image that is not blurred stays as it is.
    """
    along = row if AXIS == DOWN else column
    last = (height if AXIS == DOWN else width) - 1
    total = tl.zeros_like(along).to(tl.float32)
    for k in range(2 * REACH + 1):
        at = along + (k - REACH)
        if PILLOW:
            at = tl.minimum(tl.maximum(at, 0), last)
        else:
            at = last - tl.abs(last - tl.abs(at))
        offset = at * width + column if AXIS == DOWN else row * width + at
        total += tl.load(weights + k) * tl.load(image + offset, mask=inside, other=0.0)
    if PILLOW:
        still = tl.load(weights + REACH) == 1.0
        total = tl.where(still, total, rounded(total * before) * after)
    return total
