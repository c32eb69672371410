"""The projection that a run trained, as features to evaluate: what its loss compared."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from coview.errors import RequestError
from coview.weights.checkpoint import load_encoder
from coview.weights.exported import ExportedBackbone


class Projecting(nn.Module):
    """An exported backbone with the head that it was trained with."""

    def __init__(self, network: ExportedBackbone, projector: nn.Module) -> None:
        super().__init__()
        self.network, self.projector = network, projector
        self.channels_last = network.channels_last

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, d); not scaled to unit length."""
        projected: Tensor = self.projector(self.network(images))
        return projected


def projecting(weights: Path, network: ExportedBackbone) -> Projecting:
    """Return the network with the projector of a run, on the backbone that it was trained on.

    Args:
        weights: the run's directory.
        network: its exported backbone, which is not changed.

    Raises:
        RequestError: it is not a run, or its encoder has no projector of one backbone.
    """
    encoder = load_encoder(weights, network.card)
    if network.views is not None:
        raise RequestError(
            f"The backbone of {network.card.method} has features of several views or patches: its "
            "projections are not one vector for an image. Use --features backbone."
        )
    whole = ExportedBackbone(encoder.backbone(), network.card)
    return Projecting(whole, encoder.projector).eval()
