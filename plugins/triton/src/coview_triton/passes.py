"""Calling the kernels: a pass reads every pixel of every view, changes it, and writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
import triton
from torch import Tensor

from coview.nn.constants import constant
from coview.views.backends.fused.blur import PASSES
from coview.views.backends.fused.parameters import STEPS, Prepared
from coview.views.backends.fused.render import Order
from coview.views.operations import LUMA, Grey, Jitter, Solarize, Standardize
from coview_triton import kernels
from coview_triton.colour import COLUMNS, NO_STEP
from coview_triton.reading import ACROSS, AS_IT_IS, DOWN

WHOLE_VIEW = 4096
"""Pixels of a view up to which one program holds all of it, and takes their mean itself."""
PART = 1024
"""Pixels that a program paints of a larger view."""

BOX = ("top", "left", "height", "width", "flipped")
"""What a row's crop is, each (V, n) float, in the order of the table's columns."""

Colours = Mapping[type, tuple[Any, Prepared, Sequence[Order] | None]]
"""By type: the operation, its parameters, and each view's order of its steps."""


@attrs.frozen(eq=False)
class Reading:
    """What a pass reads, and how.

    Attributes:
        source: (n, C, H, W), contiguous; row r of the views is read from image r % n.
        box: (V, n) each, see :data:`BOX`.
        how: one of the ways of :mod:`coview_triton.reading`.
        corners: whether a crop's outer pixels are the view's (``align_corners``).
        taps: (V x n, taps), the weights of a blur.
        pillow: whether the blur leaves 8 bits after each pass.
        scales: what such a blur multiplies by before and after it rounds.
    """

    source: Tensor
    box: Mapping[str, Tensor]
    how: int = AS_IT_IS.value
    corners: bool = False
    taps: Tensor | None = None
    pillow: bool = False
    scales: tuple[float, float] = (1.0, 1.0)


def blurred(reading: Reading, taps: Tensor, pillow: bool) -> Reading:
    """Return a reading that blurs down, of what is blurred across already."""
    passes = 2 * PASSES if pillow else 2
    size = (reading.source.shape[-2], reading.source.shape[-1])
    ways = [ACROSS.value] * (passes // 2) + [DOWN.value] * (passes // 2)
    taps = taps.contiguous()
    for number, way in enumerate(ways):
        scales = (255.0 if number == 0 else 1.0, 1 / 255 if number == passes - 1 else 1.0)
        reading = Reading(reading.source, reading.box, way, False, taps, pillow, scales)
        if number < passes - 1:
            reading = painted(reading, {}, size)
    return reading


def painted(
    reading: Reading,
    colours: Colours,
    size: tuple[int, int],
    clamp: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Reading:
    """Return what one pass paints.

    Args:
        reading: what it reads.
        colours: what it does to what it has read.
        size: height and width of a view.
        clamp: whether a standardisation that clamps has to, as values may be out of [0, 1].
        dtype: number type that is written.
    """
    source, shape = reading.source, reading.box["top"].shape
    rows, channels, pixels = math.prod(shape), source.shape[1], size[0] * size[1]
    at_once = pixels <= WHOLE_VIEW
    block = triton.next_power_of_2(pixels) if at_once else PART
    blocks = 1 if at_once else -(-pixels // PART)
    last = colours[Standardize][0] if Standardize in colours else None
    table, fixed = _table(reading.box, colours), _fixed(colours, channels, source.device)
    out = torch.empty((rows, channels, *size), dtype=dtype, device=source.device)
    unit = 1.0 if source.is_floating_point() else 1 / 255
    taps = table if reading.taps is None else reading.taps
    sizes = (len(source), *source.shape[-2:], *size, unit, *reading.scales)
    how = {
        "READ": reading.how,
        "CORNERS": reading.corners,
        "REACH": 0 if reading.taps is None else reading.taps.shape[1] // 2,
        "PILLOW": reading.pillow,
        "CHANNELS": channels,
        "COLUMNS": COLUMNS,
        "BLOCK": block,
        "num_warps": 8 if block > PART else 4,
    }
    sums, measured = table, Jitter in colours and not at_once
    if measured:
        sums = torch.empty((rows, blocks), device=source.device)
        kernels.means[rows, blocks](source, sums, table, taps, fixed, *sizes, **how)
    kernels.paint[rows, blocks](
        source, out, table, taps, fixed, sums, *sizes, **how,
        BLOCKS=blocks if measured else 0,
        JITTER=Jitter in colours,
        GREY=Grey in colours,
        SOLARIZE=Solarize in colours,
        STANDARDIZE=last is not None,
        CLAMP=clamp and last is not None and last.clamp,
    )  # fmt: skip
    return Reading(out, reading.box)


def _fixed(colours: Colours, channels: int, device: torch.device) -> Tensor:
    """Return the numbers that are equal in all rows, as the kernels' ``fixed``."""

    def luma(kind: type) -> tuple[float, ...]:
        own = colours[kind][0].luma if kind in colours else LUMA
        return (1.0, 0.0, 0.0) if channels == 1 else own

    def three(values: Sequence[float]) -> tuple[float, ...]:
        return (*values, *[0.0] * (3 - len(values)))

    last = colours[Standardize][0] if Standardize in colours else Standardize((0.0,), (1.0,))
    scale = three([1 / std for std in last.std])
    shift = three([-mean / std for mean, std in zip(last.mean, last.std, strict=True)])
    return constant((*luma(Jitter), *scale, *shift, *luma(Grey)), device)


def _table(box: Mapping[str, Tensor], colours: Colours) -> Tensor:
    """Return the parameters of every row, (V x n, COLUMNS), as :mod:`coview_triton.colour` says."""
    blank = box["top"].new_zeros(()).expand(*box["top"].shape, 1)
    parts = [box[name].unsqueeze(-1) for name in BOX]
    if Jitter in colours:
        _, own, orders = colours[Jitter]
        factors = [own[name].flatten(2) for name in STEPS]
        parts += [_codes(own, orders, blank), *factors, own["hue"].flatten(2)]
    else:
        parts += [blank] * 7
    for kind, name in ((Grey, "keep"), (Solarize, "threshold")):
        parts.append(colours[kind][1][name].flatten(2) if kind in colours else blank)
    return torch.cat(parts, dim=-1).flatten(0, 1)


def _codes(own: Prepared, orders: Sequence[Order] | None, blank: Tensor) -> Tensor:
    """Return each row's order of steps (V, n, 1): three bits for each, the first lowest."""
    if "position" in own:
        numbers = constant(range(4), blank.device, torch.int64)
        code = (numbers << (3 * own["position"])).sum(dim=-1, keepdim=True)
        return code.to(blank.dtype)
    steps = [(*order, *[NO_STEP] * (4 - len(order))) for order in orders or ()]
    codes = [sum(step << (3 * slot) for slot, step in enumerate(four)) for four in steps]
    return torch.stack([torch.full_like(blank[0], code) for code in codes])
