"""What a vision transformer's class token attends to, as maps of the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from coview.errors import RequestError


@torch.no_grad()
def attention(network: Any, images: Tensor) -> Tensor:
    """Return what the class token of the last block attends to (Caron et al. 2021, figure 1).

    Args:
        network: one of timm's vision transformers.
        images: (B, C, H, W), standardised; H and W multiples of the patch.

    Returns:
        (B, heads, H / patch, W / patch): softmax attention to the patches. Attention
        to the class token itself is left out, so a map sums to at most 1.

    Raises:
        RequestError: the network has no class token that attends to patches.
    """
    layer = _last_attention(network)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        network.forward_features(images)
    finally:
        handle.remove()
    tokens = seen[0]
    rows, count, width = tokens.shape
    heads: int = layer.num_heads
    parts = layer.qkv(tokens).reshape(rows, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    queries, keys = layer.q_norm(parts[0]), layer.k_norm(parts[1])
    weights = (queries[:, :, :1] @ keys.transpose(-2, -1) * layer.scale).softmax(dim=-1)
    patches = weights[:, :, 0, network.num_prefix_tokens :]
    height = images.shape[-2] // patch_of(network)
    maps: Tensor = patches.reshape(rows, heads, height, -1)
    return maps


def patch_of(network: Any) -> int:
    """Return the size in pixels of the network's patch."""
    _last_attention(network)
    size: int = network.patch_embed.patch_size[0]
    return size


def _last_attention(network: Any) -> Any:
    blocks = getattr(network, "blocks", None)
    layer = getattr(blocks[-1], "attn", None) if isinstance(blocks, nn.Sequential) else None
    if not hasattr(layer, "qkv") or not getattr(network, "num_prefix_tokens", 0):
        raise RequestError(
            f"The backbone {type(network).__name__} has no class token that attends to patches. "
            "Attention maps need a vision transformer (--backbone vit_small_patch16_224)."
        )
    return layer
