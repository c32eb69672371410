"""Computing the pixels of some views of some images from every row's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from coview.nn.constants import constant
from coview.views.backends.fused import colour
from coview.views.backends.fused.blur import blur, box_blur
from coview.views.backends.fused.parameters import STEPS, Prepared
from coview.views.backends.fused.resample import resample
from coview.views.backends.fused.whole import Whole, cut
from coview.views.operations import Blur, Crop, Flip, Grey, Jitter, Solarize, Standardize

Order = tuple[int, ...]
"""Order of a jitter's four steps, without those that change nothing."""


def geometry(
    source: Tensor | Whole, operations: Sequence[Any], chosen: Sequence[Prepared], views: int
) -> Tensor:
    """Crop and flip.

    Args:
        source: (n, C, H, W) float; it is not changed. Or images at their own sizes.
        operations: all operations; one may be a crop and one a flip.
        chosen: the parameters of each operation, (V x n, ...): all images of one view,
            then those of the next.
        views: the number of views V.

    Returns:
        (V x n, C, h, w), contiguous, which may be written to.
    """
    rows = len(source)
    by_kind = {type(op): own for op, own in zip(operations, chosen, strict=True)}
    crop = next((op for op in operations if isinstance(op, Crop)), None)
    if crop is None:
        assert isinstance(source, Tensor)  # views without a crop do not declare a least side
        many = source.repeat(views, 1, 1, 1)
        flipped = by_kind.get(Flip, {}).get("on")
        if flipped is None:
            return many
        return torch.where(flipped[:, None, None, None], many.flip(-1), many)
    aim = by_kind[Crop]
    parts = [
        {name: value[view * rows : (view + 1) * rows] for name, value in aim.items()}
        for view in range(views)
    ]
    if isinstance(source, Whole):
        crops = [cut(source, crop, part) for part in parts]
        return crops[0] if views == 1 else torch.cat(crops)
    made = [resample(source, crop, part) for part in parts]
    x = made[0].contiguous() if views == 1 else torch.cat(made)
    # Bicubic overshoots; the next operations expect [0, 1], as with 8-bit images.
    return x.clamp_(0, 1) if crop.interpolation == "bicubic" else x


def changed(
    x: Tensor,
    operations: Sequence[Any],
    chosen: Sequence[Prepared],
    orders: Mapping[int, Sequence[Order]],
) -> Tensor:
    """Apply all but geometry and standardisation to x (V x n, C, h, w), perhaps in place.

    Args:
        x: images in [0, 1].
        operations: all operations, in order.
        chosen: the parameters of each operation; empty for one that is not applied.
        orders: orders of a jitter's steps, one per view, by the jitter's index among
            the operations.
    """
    for k, (operation, given) in enumerate(zip(operations, chosen, strict=True)):
        if not given:
            continue
        flat = x.flatten(2)
        if isinstance(operation, Blur):
            x = (box_blur if operation.kind == "pillow" else blur)(x, given["taps"])
        elif isinstance(operation, Grey):
            colour.desaturate_(flat, given["keep"], operation.luma)
        elif isinstance(operation, Solarize):
            colour.solarize_(flat, given["threshold"])
        elif isinstance(operation, Jitter) and "position" in given:
            position = given["position"].movedim(-1, 0)[..., None, None]
            factors = [given[name] for name in STEPS]
            colour.jitter_each_(flat, factors, given["hue"], position, operation.luma)
        elif isinstance(operation, Jitter):
            rows = len(x) // len(orders[k])
            for view, order in enumerate(orders[k]):
                part = slice(view * rows, (view + 1) * rows)
                own = {name: value[part] for name, value in given.items()}
                jitter_(flat[part], own, order, operation.luma)
    return x


def jitter_(x: Tensor, given: Prepared, order: Order, luma: Sequence[float]) -> None:
    """Apply brightness, contrast, saturation and hue to x (n, C, P), in one order."""
    coloured = x.shape[1] == 3
    for step in order:
        if step == 0:
            colour.brighten_(x, given["brightness"])
        elif step == 1:
            colour.contrast_(x, given["contrast"], luma)
        elif step == 2 and coloured:
            colour.saturate_(x, given["saturation"], luma)
        elif step == 3 and coloured:
            colour.rotate_hue_(x, given["hue"])


def finish(x: Tensor, last: Any, in_range: bool, out: Tensor) -> None:
    """Write x to ``out``, standardised if that is the last operation.

    Args:
        x: (V x n, C, h, w).
        last: the last operation.
        in_range: whether x is known to be in [0, 1].
        out: (V, n, C, h, w), of any number type.
    """
    x = x.view(out.shape)
    if not isinstance(last, Standardize):
        out.copy_(x)
        return
    if last.clamp and not in_range:
        x = x.clamp_(0, 1)
    if all(m == 0 for m in last.mean) and all(s == 1 for s in last.std):
        out.copy_(x)
        return
    shift = [-mean / std for mean, std in zip(last.mean, last.std, strict=True)]
    scale = [1 / std for std in last.std]
    both = constant([shift, scale], x.device)[:, :, None, None]
    torch.addcmul(both[0], x, both[1], out=out)
