"""The kernels: one program for each image of a view and block of its pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from coview_triton.colour import (
    THRESHOLD,
    before_mean,
    grey_of,
    greyed,
    jittered,
    solarized,
    unit,
)
from coview_triton.reading import AS_IT_IS, DOWN, blurred, cropped, keys, rounded


@triton.jit
def _channel(
    image, place, pixels, own, taps, height, width, side_h, side_w, unit_of, before, after,
    READ: tl.constexpr, CORNERS: tl.constexpr, REACH: tl.constexpr, PILLOW: tl.constexpr,
):  # fmt: skip
    """Return pixels of one channel in [0, 1]: ``place`` are their numbers in the view."""
    inside = place < pixels
    row, column = place // side_w, place % side_w
    if READ == AS_IT_IS:
        value = tl.load(image + place, mask=inside, other=0).to(tl.float32) * unit_of
    elif READ >= DOWN:
        value = blurred(
            image, row, column, inside, taps, height, width, before, after, REACH, READ, PILLOW
        )
    else:
        value = cropped(image, row, column, inside, own, width, side_h, side_w, READ, CORNERS)
        value = value * unit_of
        if READ == 4:
            value = unit(value)
    return value


@triton.jit
def _pixels(
    source, image, channel, place, pixels, own, taps, height, width, side_h, side_w, unit_of,
    before, after, READ: tl.constexpr, CORNERS: tl.constexpr, REACH: tl.constexpr,
    PILLOW: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return red, green and blue; of an image of one channel, three times that."""
    base = source + image * CHANNELS * channel
    red = _channel(
        base, place, pixels, own, taps, height, width, side_h, side_w, unit_of, before, after,
        READ, CORNERS, REACH, PILLOW,
    )  # fmt: skip
    green, blue = red, red
    if CHANNELS == 3:
        green = _channel(
            base + channel, place, pixels, own, taps, height, width, side_h, side_w, unit_of,
            before, after, READ, CORNERS, REACH, PILLOW,
        )  # fmt: skip
        blue = _channel(
            base + 2 * channel, place, pixels, own, taps, height, width, side_h, side_w, unit_of,
            before, after, READ, CORNERS, REACH, PILLOW,
        )  # fmt: skip
    return red, green, blue


@triton.jit
def means(
    source, out, table, taps, fixed, images, height, width, side_h, side_w, unit_of, before,
    after, READ: tl.constexpr, CORNERS: tl.constexpr, REACH: tl.constexpr, PILLOW: tl.constexpr,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum the grey values of each block where the contrast's turn comes, out (rows, blocks)."""
    row, block = tl.program_id(0), tl.program_id(1)
    own = table + row * COLUMNS
    place = block * BLOCK + tl.arange(0, BLOCK)
    pixels = side_h * side_w
    red, green, blue = _pixels(
        source, (row % images).to(tl.int64), height * width, place, pixels, own,
        taps + row * (2 * REACH + 1), height, width, side_h, side_w, unit_of, before, after,
        READ, CORNERS, REACH, PILLOW, CHANNELS,
    )  # fmt: skip
    red, green, blue = before_mean(red, green, blue, own, fixed)
    grey = tl.where(place < pixels, grey_of(red, green, blue, fixed), 0.0)
    tl.store(out + row * tl.num_programs(1) + block, tl.sum(grey))


@triton.jit
def paint(
    source, out, table, taps, fixed, sums, images, height, width, side_h, side_w, unit_of, before,
    after, READ: tl.constexpr, CORNERS: tl.constexpr, REACH: tl.constexpr, PILLOW: tl.constexpr,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, JITTER: tl.constexpr,
    BLOCKS: tl.constexpr, GREY: tl.constexpr, SOLARIZE: tl.constexpr, STANDARDIZE: tl.constexpr,
    CLAMP: tl.constexpr,
):  # fmt: skip
    """Read pixels, change their colour, and write them to out (rows, C, h, w).

    Args:
        source: images (n, C, H, W).
        table: (rows, COLUMNS), the parameters of every image of every view.
        taps: (rows, 2 x REACH + 1), the weights of a blur.
        fixed: three grey weights of the jitter, three factors, three summands, and three grey
            weights of the grey-scale.
        sums: (rows, BLOCKS), of :func:`means`; not read where BLOCKS is 0.
        images: n; row r is made of image r % n.
        unit_of: 1/255 for images of 8 bits, else 1.
        before: what Pillow's blur multiplies by before it rounds.
        after: and after.
    """
    row, block = tl.program_id(0), tl.program_id(1)
    own = table + row * COLUMNS
    place = block * BLOCK + tl.arange(0, BLOCK)
    pixels = side_h * side_w
    inside = place < pixels
    red, green, blue = _pixels(
        source, (row % images).to(tl.int64), height * width, place, pixels, own,
        taps + row * (2 * REACH + 1), height, width, side_h, side_w, unit_of, before, after,
        READ, CORNERS, REACH, PILLOW, CHANNELS,
    )  # fmt: skip
    if JITTER:
        mean = 0.0
        for k in range(BLOCKS):
            mean += tl.load(sums + row * BLOCKS + k)
        red, green, blue = jittered(
            red, green, blue, mean / pixels, inside, pixels, own, fixed, BLOCKS > 0
        )
    if GREY:
        red, green, blue = greyed(red, green, blue, own, fixed + 9)
    if SOLARIZE:
        threshold = tl.load(own + THRESHOLD)
        red, green = solarized(red, threshold), solarized(green, threshold)
        blue = solarized(blue, threshold)
    if CLAMP:
        red, green, blue = unit(red), unit(green), unit(blue)
    if STANDARDIZE:
        red = red * tl.load(fixed + 3) + tl.load(fixed + 6)
        green = green * tl.load(fixed + 4) + tl.load(fixed + 7)
        blue = blue * tl.load(fixed + 5) + tl.load(fixed + 8)
    base = out + row.to(tl.int64) * CHANNELS * pixels + place
    tl.store(base, red, mask=inside)
    if CHANNELS == 3:
        tl.store(base + pixels, green, mask=inside)
        tl.store(base + 2 * pixels, blue, mask=inside)


@triton.jit
def resize(
    source, out, ways, channel, side, unit_of, TAPS: tl.constexpr, ROUND: tl.constexpr,
    CLAMP: tl.constexpr, ALONG: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Resample one axis with a filter that widens where the image shrinks.

    A program makes one line of one channel of one row, or (if not ALONG) one output pixel of
    all its lines, whichever lies together in memory.

    Args:
        ways: (rows, 9) int64, for each row: where its first pixel is in the source, how far
            apart its pixels and its lines are; their numbers; where its first pixel goes in
            a channel of ``out``, how far apart lines and pixels are there, and channels.
        channel: how far apart the source's channels are.
        TAPS: pixels read on each side where nothing shrinks: 1 for bilinear, 2 for bicubic.
        ROUND: round to whole numbers from 0 to 255, as Pillow does.
    """
    row, c = tl.program_id(0), tl.program_id(2)
    if ALONG:
        line, index = tl.program_id(1), tl.arange(0, BLOCK)
    else:
        line, index = tl.arange(0, BLOCK), tl.program_id(1)
    way = ways + 9 * row
    start = source + tl.load(way) + c * channel + line * tl.load(way + 2)
    apart, length, lines = tl.load(way + 1), tl.load(way + 3).to(tl.int32), tl.load(way + 4)
    shrunk = length.to(tl.float32) / side
    spread = tl.maximum(shrunk, 1.0)
    centre = (index + 0.5) * shrunk - 0.5
    least = tl.floor(centre - TAPS * spread).to(tl.int32)
    count = tl.ceil(2.0 * TAPS * spread).to(tl.int32) + 2
    own = (index < side) & (line < lines)
    total, weights = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for k in range(count):
        at = least + k
        inside = (at >= 0) & (at < length) & own
        distance = (at - centre) / spread
        if TAPS == 1:
            weight = tl.maximum(1.0 - tl.abs(distance), 0.0)
        else:
            weight = keys(distance, -0.5)
        weight = tl.where(inside, weight, 0.0)
        value = tl.load(start + at.to(tl.int64) * apart, mask=inside, other=0)
        total += weight * value.to(tl.float32)
        weights += weight
    total = tl.where(own, total / tl.where(own, weights, 1.0), 0.0) * unit_of
    if ROUND:
        total = tl.minimum(tl.maximum(rounded(total), 0.0), 255.0)
    if CLAMP:
        total = unit(total)
    plane = out + (row.to(tl.int64) * tl.num_programs(2) + c) * tl.load(way + 8)
    place = tl.load(way + 5) + line * tl.load(way + 6) + index * tl.load(way + 7)
    tl.store(plane + place, total, mask=own)
