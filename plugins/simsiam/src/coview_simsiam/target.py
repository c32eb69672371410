"""The network itself, as a constant."""

from __future__ import annotations

from torch import Tensor

from coview.method.neutral import OnlineTarget


class StopGradient(OnlineTarget):
    """Keys are the online projections, without gradient (Chen & He 2021, section 3).

    Both views' projections are constants where they are keys; the encoder
    learns through the predictions of the same views. It has no state.
    """

    name = "stop-gradient"

    def key(self, projection: Tensor) -> Tensor:
        """Return the projection (N, d) cut from the graph."""
        return projection.detach()
