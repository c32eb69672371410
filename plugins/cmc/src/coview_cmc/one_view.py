"""What one view's network has learned, apart from the others': a quantity for studies."""

from __future__ import annotations

from torch import Tensor, nn

from coview.evaluation.knn import evaluate_knn
from coview.training.run import Run
from coview_cmc.encoder import PerViewEncoder


def first_view_knn(run: Run) -> float:
    """Return the kNN accuracy of the features of the first view's network."""
    network = FirstView(run.method.encoder, run.method.components["views"])  # type: ignore[arg-type]
    return evaluate_knn(network.to(run.device), run.data, device=run.device).top1


class FirstView(nn.Module):
    """Images in [0, 1] to the features of their first view."""

    def __init__(self, encoder: PerViewEncoder, views: nn.Module) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, D)."""
        views = self.views.evaluation_views(images)  # type: ignore[operator]
        first = views.queries[0]
        features, _ = self.encoder.project(views, (first,))
        return features[first]
