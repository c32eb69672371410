"""Positions of a vision transformer for images of another size, as DINO's authors compute them."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate


def between(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return positions (1, H x W, D) for a grid of another size.

    Bicubic, without a filter where the grid shrinks, and with a tenth of a patch added to the
    new size before the scale is computed, as in the code released with arXiv:2104.14294; timm
    filters, and its scale is exact.

    Args:
        positions: (1, h x w, D).
        old: h and w.
        new: H and W.
    """
    grid = positions.unflatten(1, old).permute(0, 3, 1, 2)
    scale = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
    made = interpolate(grid, scale_factor=scale, mode="bicubic")
    return made.flatten(2).transpose(1, 2)


class ReleasedPositions(VisionTransformer):
    """timm's transformer with positions from :func:`between`; its weights are the same."""

    def _pos_embed(self, x: Tensor) -> Tensor:
        grid = tuple(self.patch_embed.grid_size)
        token, positions = self.cls_token, self.pos_embed
        other = self.no_embed_class or self.reg_token is not None
        if (
            other
            or token is None
            or positions is None
            or not self.dynamic_img_size
            or tuple(x.shape[1:3]) == grid
        ):
            made: Tensor = super()._pos_embed(x)
            return made
        height, width = x.shape[1:3]
        patches = x.flatten(1, 2) + between(positions[:, 1:], grid, (height, width))
        first = (token + positions[:, :1]).expand(len(x), -1, -1)
        positioned: Tensor = self.pos_drop(torch.cat((first, patches), dim=1))
        return positioned


def as_released(trunk: nn.Module) -> None:
    """Let a plain transformer of timm compute positions in that way, in place.

    The class is exchanged, not a method, so that a copy of the network is a whole one.
    """
    if type(trunk) is VisionTransformer:
        trunk.__class__ = ReleasedPositions
