"""Vision transformers as MAE trains them: fixed positions, Xavier uniform weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from coview.errors import RequestError
from coview.nn.backbones import BackboneSettings

NORM = partial(nn.LayerNorm, eps=1e-6)


def vit_tiny(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return 4 blocks of 3 heads and width 192, with patches of 4 pixels; not in any paper."""
    return _build((192, 4, 3), 4, channels, image_size, settings)


def vit_small(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return ViT-S/16: width 384, 12 blocks of 6 heads; (B, C, H, W) -> (B, 384)."""
    return _build((384, 12, 6), 16, channels, image_size, settings)


def vit_base(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return ViT-B/16: width 768, 12 blocks of 12 heads; (B, C, H, W) -> (B, 768)."""
    return _build((768, 12, 12), 16, channels, image_size, settings)


def vit_large(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return ViT-L/16: width 1024, 24 blocks of 16 heads; (B, C, H, W) -> (B, 1024)."""
    return _build((1024, 24, 16), 16, channels, image_size, settings)


def vit_huge(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return ViT-H/14: width 1280, 32 blocks of 16 heads; (B, C, H, W) -> (B, 1280)."""
    return _build((1280, 32, 16), 14, channels, image_size, settings)


def _build(
    shape: tuple[int, int, int],
    patch: int,
    channels: int,
    image_size: int,
    settings: BackboneSettings,
) -> nn.Module:
    (width, blocks, heads), patch = shape, settings.patch or patch
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
        num_heads=heads,
        drop_path_rate=settings.drop_path,
        norm_layer=NORM,
        dynamic_img_size=True,
    )
    initialise(network)
    projection: Any = network.patch_embed.proj
    with torch.no_grad():
        # As a linear layer, which a convolution with stride equal to its kernel is.
        nn.init.xavier_uniform_(projection.weight.view(width, -1))
        network.pos_embed[:, 1:] = positions(*network.patch_embed.grid_size, width)
        network.pos_embed[:, :1] = 0
    network.pos_embed.requires_grad_(False)
    nn.init.normal_(network.cls_token, std=0.02)
    return network


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Return fixed sine-cosine positions of patches, (1, rows x columns, width)."""
    return build_sincos2d_pos_embed([rows, columns], width).unsqueeze(0)


def initialise(network: nn.Module) -> None:
    """Give linear layers Xavier uniform weights (query, key and value as one matrix), no bias."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def taken(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Return some tokens of each row: (B, L, D) and (B, n) int64 -> (B, n, D)."""
    return tokens.gather(1, numbers.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def visible_only(network: Any, crop: Tensor, visible: Tensor) -> Tensor:
    """Run a transformer on some of an image's patches.

    Args:
        network: one of timm's vision transformers.
        crop: (B, C, H, W).
        visible: (B, n) int64, the patches that it sees, by their places in reading order.

    Returns:
        Its normalised tokens, (B, prefix + n, D): class token, then patches.
    """
    tokens = network._pos_embed(network.patch_embed(crop))
    prefix = network.num_prefix_tokens
    tokens = torch.cat([tokens[:, :prefix], taken(tokens[:, prefix:], visible)], dim=1)
    made: Tensor = network.norm(network.blocks(network.norm_pre(tokens)))
    return made


class Decoder(nn.Module):
    """A small transformer that predicts hidden patches from visible ones (section 3).

    Args:
        inputs: width of the encoder's tokens.
        outputs: numbers in a patch.
        grid: rows and columns of patches.
        width, blocks, heads: of its transformer blocks.
    """

    positions: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        grid: tuple[int, int],
        width: int,
        blocks: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=NORM) for _ in range(blocks))
        )
        self.norm = NORM(width)
        self.predict = nn.Linear(width, outputs)
        # Positions follow from the settings, so checkpoints need not keep them.
        self.register_buffer("positions", positions(*grid, width), persistent=False)
        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Return predictions (B, m, outputs) of the masked patches.

        Args:
            tokens: (B, prefix + n, inputs), the encoder's.
            visible: (B, n) int64, the patches that these are of.
            masked: (B, m) int64, the others.
        """
        seen = self.embed(tokens)
        prefix = seen.shape[1] - visible.shape[1]
        hidden = self.mask_token.to(seen.dtype).expand(*masked.shape, -1)
        # The order of tokens does not matter to a transformer: visible ones come first.
        patches = torch.cat([seen[:, prefix:], hidden], dim=1)
        places = torch.cat([visible, masked], dim=1)
        patches = patches + taken(self.positions.expand(len(patches), -1, -1), places)
        decoded = self.norm(self.blocks(torch.cat([seen[:, :prefix], patches], dim=1)))
        predicted: Tensor = self.predict(decoded[:, -masked.shape[1] :])
        return predicted
