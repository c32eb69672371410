"""Where a vision transformer looks: rows of an image, the mean of all heads, and some heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import center_crop

from coview.api.subjects import subject
from coview.data.loader import read_batches
from coview.data.picking import evenly
from coview.errors import CoviewError, RequestError
from coview.nn.attention import attention, patch_of
from coview_report.images import of_pixels

ROWS, HEADS = 6, 6
"""Images, and heads that are shown one by one."""
SIDE = 112
"""Pixels per side of a picture."""
DARK = 0.15
"""Brightness of what is not attended to at all."""


@attrs.frozen(eq=False)
class Attention:
    """An image, where all heads look on average, and where some of them do: data URIs."""

    image: str
    mean: str
    heads: tuple[str, ...]
    label: str | None


def attended(run: Any, options: dict[str, Any]) -> tuple[Attention, ...]:
    """Return the attention of the last block for a few images; none without a class token.

    Args:
        run: a run in memory or its directory.
        options: ``device`` and ``workers``, as for :func:`coview.evaluate`.

    Raises:
        CoviewError: an image is smaller than a patch.
    """
    looked_at = subject(run, None, **options)
    exported = looked_at.network
    backbone = getattr(exported, "backbone", None)
    try:
        patch = patch_of(backbone)
    except RequestError:
        return ()
    data = looked_at.data
    split = data.train if data.test is None else data.test
    rows = evenly(split, ROWS)
    images = next(read_batches(split, [rows])).float() / 255
    side = min(images.shape[-2:]) // patch * patch
    if side == 0:
        raise CoviewError(f"a patch has {patch} pixels per side, and the images have fewer.")
    shown = center_crop(images, [side, side])
    was_training = backbone.training
    standardised = (shown.to(exported.mean.device) - exported.mean) / exported.std
    try:
        maps = attention(backbone.eval(), standardised).float().cpu()
    finally:
        backbone.train(was_training)
    labels = [None if split.labels is None else int(split.labels[row]) for row in rows.tolist()]
    return tuple(
        _row(image, heads, None if label is None else _named(data.classes, label))
        for image, heads, label in zip(shown, maps, labels, strict=True)
    )


def _named(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else str(label)


def _row(image: Tensor, heads: Tensor, label: str | None) -> Attention:
    lit = [_lit(image, each) for each in (heads.mean(dim=0), *heads[:HEADS])]
    return Attention(of_pixels(_large(image), SIDE), lit[0], tuple(lit[1:]), label)


def _lit(image: Tensor, heat: Tensor) -> str:
    """Return the image, bright where the map (h, w) is high."""
    share = (heat / heat.max().clamp_min(1e-12))[None, None]
    light = interpolate(share, size=image.shape[-2:], mode="nearest")[0]
    return of_pixels(_large(image * (DARK + (1 - DARK) * light)), SIDE)


def _large(image: Tensor) -> Tensor:
    factor = max(1, -(-SIDE // image.shape[-1]))
    return torch.repeat_interleave(image.repeat_interleave(factor, -1), factor, -2)
