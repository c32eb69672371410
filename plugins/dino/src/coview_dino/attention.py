"""Where a vision transformer looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import center_crop
from torchvision.utils import make_grid, save_image

from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.weights.exported import ExportedBackbone

CELL = 224
"""Least pixels a side of a picture's cells."""


@torch.no_grad()
def attention(network: nn.Module, images: Tensor) -> Tensor:
    """Return what the class token of the last block attends to (Caron et al. 2021, figure 1).

    Args:
        network: one of timm's vision transformers.
        images: (B, C, H, W), standardised; H and W multiples of the patch.

    Returns:
        (B, heads, H / patch, W / patch): softmax attention to the patches; what
        goes to the class token itself is left out, so a map sums to 1 at most.

    Raises:
        RequestError: the network has no class token that attends.
    """
    layer = _last_attention(network)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        network.forward_features(images)  # type: ignore[operator]
    finally:
        handle.remove()
    tokens = seen[0]
    rows, count, width = tokens.shape
    heads: int = layer.num_heads
    parts = layer.qkv(tokens).reshape(rows, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    queries, keys = layer.q_norm(parts[0]), layer.k_norm(parts[1])
    weights = (queries[:, :, :1] @ keys.transpose(-2, -1) * layer.scale).softmax(dim=-1)
    patches = weights[:, :, 0, network.num_prefix_tokens :]  # type: ignore[index]
    height = images.shape[-2] // patch_of(network)
    return patches.reshape(rows, heads, height, -1)


def patch_of(network: nn.Module) -> int:
    """Return pixels a side of the network's patch."""
    _last_attention(network)
    size: int = network.patch_embed.patch_size[0]  # type: ignore[union-attr, index, assignment]
    return size


def mask(maps: Tensor, keep: float) -> Tensor:
    """Return the fewest strongest tokens that hold a share ``keep`` of each map's mass.

    (..., tokens) to the same, bool. As in the released code a token stays where
    the mass of all weaker ones, its own included, exceeds 1 - keep.
    """
    order = maps.argsort(dim=-1)
    ascending = maps.gather(-1, order)
    mass = (ascending / ascending.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    return torch.zeros_like(maps, dtype=torch.bool).scatter(-1, order, mass > 1 - keep)


def draw_attention(
    exported: ExportedBackbone, images: Tensor, path: Path, size: int | None, keep: float
) -> dict[str, Any]:
    """Write a PNG: a row an image, then its map by each head, then the mean head's mask.

    Args:
        exported: a backbone that has attention; put in evaluation mode.
        images: (B, C, S, S) uint8.
        path: where the PNG goes.
        size: pixels a side that the network sees, cut down to whole patches;
            none: all of the image.
        keep: share of the attention that the mask holds.

    Returns:
        heads, patch, size, the mean entropy of the maps (in nats, over patches)
        and the mean share of the image that the mask covers.
    """
    patch = patch_of(exported.backbone)
    side = min(size or images.shape[-1], images.shape[-1]) // patch * patch
    if side == 0:
        raise RequestError(
            f"These images have {images.shape[-1]} pixels a side, and the network's patch has "
            f"{patch}: give larger images (--image-size)."
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


def _last_attention(network: nn.Module) -> Any:
    blocks = getattr(network, "blocks", None)
    layer = getattr(blocks[-1], "attn", None) if isinstance(blocks, nn.Sequential) else None
    if not hasattr(layer, "qkv") or not getattr(network, "num_prefix_tokens", 0):
        raise RequestError(
            f"This backbone, {type(network).__name__}, has no class token that attends to patches: "
            "attention maps need a vision transformer (--backbone vit_small_patch16_224)."
        )
    return layer
