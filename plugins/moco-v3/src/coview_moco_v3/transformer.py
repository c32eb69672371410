"""Vision transformers as MoCo v3 trains them.

Chen, Xie & He 2021: fixed two-dimensional sine-cosine positions (section 5), a
random patch projection that is not trained (section 4.2), and Xavier uniform
weights. The small model has 12 heads, where others of its size have 6.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from coview.errors import RequestError
from coview.nn.backbones import BackboneSettings

PATCH = 16
BLOCKS = 12
HEADS = 12


def vit_small(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return ViT-S/16: width 384, 12 blocks of 12 heads; (B, C, H, W) -> (B, 384)."""
    return _build(384, BLOCKS, channels, image_size, settings)


def vit_base(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return ViT-B/16: width 768, 12 blocks of 12 heads; (B, C, H, W) -> (B, 768)."""
    return _build(768, BLOCKS, channels, image_size, settings)


def vit_tiny(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return four blocks of 12 heads and width 192, for small images; not in any paper."""
    return _build(192, 4, channels, image_size, settings)


def vit_tiny_learned(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return moco-v3-vit-tiny with a patch projection that is trained (section 4.2)."""
    network = vit_tiny(channels, image_size, settings)
    network.get_submodule("patch_embed.proj").requires_grad_(True)
    return network


def _build(
    width: int, blocks: int, channels: int, image_size: int, settings: BackboneSettings
) -> nn.Module:
    patch = settings.patch or PATCH
    if image_size % patch:
        raise RequestError(
            f"A vision transformer cuts images into whole patches, but {image_size} pixels are not "
            f"a multiple of its patch size, {patch}: set backbone.patch, or change views.size."
        )
    network = VisionTransformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        embed_dim=width,
        depth=blocks,
        num_heads=HEADS,
        drop_path_rate=settings.drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        dynamic_img_size=True,
    )
    _initialise(network)
    return network


@torch.no_grad()
def _initialise(network: VisionTransformer) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in network.blocks:
        # Query, key and value are three matrices stored as one.
        for part in block.attn.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
    nn.init.normal_(network.cls_token, std=1e-6)
    projection = network.patch_embed.proj
    fan_in = projection.weight[0].numel()
    bound = math.sqrt(6 / (fan_in + network.embed_dim))
    nn.init.uniform_(projection.weight, -bound, bound)
    nn.init.zeros_(projection.bias)
    projection.requires_grad_(False)
    rows, columns = network.patch_embed.grid_size
    network.pos_embed.copy_(positions(rows, columns, network.embed_dim))
    network.pos_embed.requires_grad_(False)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Return fixed positions, (1, 1 + rows x columns, width); the first, [CLS], is zero.

    Sine and cosine of the row, then of the column, take a quarter of the width each,
    at frequencies 10000^(-j / (width / 4)). (This is also what the released code
    computes, given how it names its mesh; on square grids only the order of channels
    depends on it.)

    Raises:
        RequestError: the width is not a multiple of 4.
    """
    if width % 4:
        raise RequestError(f"Sine-cosine positions need a width divisible by 4, not {width}.")
    quarter = width // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float64).repeat(rows)
    u, v = row.outer(frequencies), column.outer(frequencies)
    tokens = torch.cat([u.sin(), u.cos(), v.sin(), v.cos()], dim=1)
    return torch.cat([torch.zeros(1, width), tokens.float()]).unsqueeze(0)
