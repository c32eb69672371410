"""Attention maps: where a vision transformer looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import center_crop
from torchvision.utils import make_grid, save_image

from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.nn.attention import attention, patch_of
from coview.weights.exported import ExportedBackbone

__all__ = ["attention", "draw_attention", "mask", "patch_of"]

CELL = 224
"""Minimum pixels per side of the picture's cells."""


def mask(maps: Tensor, keep: float) -> Tensor:
    """Select the fewest, strongest tokens that hold a share ``keep`` of each map's mass.

    (..., tokens) -> (..., tokens) bool. As in the released code, a token is selected
    if the mass of it and all weaker ones exceeds 1 - keep.
    """
    order = maps.argsort(dim=-1)
    ascending = maps.gather(-1, order)
    mass = (ascending / ascending.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    return torch.zeros_like(maps, dtype=torch.bool).scatter(-1, order, mass > 1 - keep)


def draw_attention(
    exported: ExportedBackbone, images: Tensor, path: Path, size: int | None, keep: float
) -> dict[str, Any]:
    """Write a PNG with one row per image: the image, each head's map, the mean head's mask.

    Args:
        exported: a backbone with attention; it is put in evaluation mode.
        images: (B, C, S, S) uint8.
        path: path of the PNG.
        size: pixels per side that the network sees, rounded down to whole patches;
            None: the whole image.
        keep: share of the attention inside the mask.

    Returns:
        ``heads``, ``patch``, ``size``, ``entropy`` (mean entropy of the maps over
        patches, in nats) and ``masked`` (mean share of the image inside the mask).
    """
    patch = patch_of(exported.backbone)
    side = min(size or images.shape[-1], images.shape[-1]) // patch * patch
    if side == 0:
        raise RequestError(
            f"The network's patches have {patch} pixels per side, but these images have only "
            f"{images.shape[-1]}: use larger images (--image-size)."
        )
    shown = center_crop(images.float() / 255, [side, side])
    device = exported.mean.device
    standardised = (shown.to(device) - exported.mean) / exported.std
    maps = attention(exported.backbone.eval(), standardised).cpu().float()
    flat = maps.flatten(2)
    kept = mask(flat, keep).view_as(maps)
    shares = flat / flat.sum(dim=-1, keepdim=True)
    _write(path, shown, maps, mask(flat.mean(1), keep).view(len(maps), *maps.shape[2:]))
    return {
        "heads": maps.shape[1],
        "patch": patch,
        "size": side,
        "entropy": -torch.special.xlogy(shares, shares).sum(dim=-1).mean().item(),
        "masked": kept.float().mean().item(),
    }


def _write(path: Path, images: Tensor, maps: Tensor, kept: Tensor) -> None:
    side = max(CELL, images.shape[-1])
    grey = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    colour = images if images.shape[1] == 3 else grey
    highest = maps.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    heads = [_cell(m.unsqueeze(1).expand(-1, 3, -1, -1), side) for m in (maps / highest).unbind(1)]
    lit = interpolate(kept.unsqueeze(1).float(), size=images.shape[-2:], mode="nearest")
    columns = [_cell(colour, side), *heads, _cell(colour * (0.25 + 0.75 * lit), side)]
    cells = torch.stack(columns, dim=1).flatten(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as temporary:
            save_image(
                make_grid(cells, nrow=len(columns), padding=2, pad_value=1), temporary, "png"
            )
    except (OSError, ValueError) as error:
        raise CoviewError(f"{path} could not be written: {error}") from error


def _cell(images: Tensor, side: int) -> Tensor:
    return interpolate(images, size=(side, side), mode="nearest")
