"""Features of a vision transformer that are more than its output, for probes that use them."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from coview.weights.exported import ExportedBackbone

NARROW = 384
"""The width of a ViT-S."""


class Tokens(nn.Module):
    """What DINO's authors train a linear classifier on (arXiv:2104.14294, appendix F.2).

    For up to 384 features these are the class tokens of the last four blocks, each after the
    last normalisation; for more the last class token and the mean of the last patches.
    """

    def __init__(self, network: ExportedBackbone) -> None:
        super().__init__()
        self.network = network
        few = network.width <= NARROW
        self.blocks, self.mean = (4, False) if few else (1, True)

    @property
    def width(self) -> int:
        """The number of features."""
        return self.network.width * (self.blocks + self.mean)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, D)."""
        (crops,) = self.network.prepared(images)
        made = self.network.backbone.forward_intermediates(  # type: ignore[operator]
            crops,
            indices=self.blocks,
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        tokens = [prefix[:, 0] for _, prefix in made]
        if self.mean:
            tokens.append(made[-1][0].mean(dim=1))
        return torch.cat(tokens, dim=1)


def probed(network: ExportedBackbone, tokens: str) -> ExportedBackbone | Tokens:
    """Return what a probe reads: the network, or more of a vision transformer's tokens."""
    transformer = isinstance(network.backbone, VisionTransformer)
    return Tokens(network) if tokens == "joined" and transformer else network
