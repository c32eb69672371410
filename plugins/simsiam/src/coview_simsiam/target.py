"""A target that is the network itself, without gradient."""

from __future__ import annotations

from torch import Tensor

from coview.method.neutral import OnlineTarget


class StopGradient(OnlineTarget):
    """Keys are the online projections, without gradient (Chen & He 2021, section 3).

    Both views' projections are constants when used as keys; the encoder learns
    through the predictions of the same views. The target has no state.
    """

    name = "stop-gradient"

    def key(self, projection: Tensor) -> Tensor:
        """Return the projection (N, d), detached from the graph."""
        return projection.detach()
