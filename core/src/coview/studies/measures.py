"""Quantities of a finished run that several plugins' studies measure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coview.evaluation.knn import evaluate_knn
from coview.evaluation.linear import evaluate_linear
from coview.nn.encoder import Encoder
from coview.training.run import Run
from coview.weights.exported import ExportedBackbone, export

LINEAR_EPOCHS = 50
"""Passes over the features of a small set; the grid's best head no longer gains from more."""


def projection_knn(run: Run) -> float:
    """Return the kNN accuracy of the projection: the layer after the head, instead of before it."""
    network = Projection(run.method.encoder, run.method.components["views"])
    return evaluate_knn(network.to(run.device), run.data, device=run.device).top1


def linear_probe(run: Run) -> float:
    """Return the accuracy of a linear classifier on the features."""
    network = exported(run)
    return evaluate_linear(network, run.data, epochs=LINEAR_EPOCHS, device=run.device).top1


def exported(run: Run) -> ExportedBackbone:
    """Return the network that the run exported: images in [0, 1] -> features."""
    return export(run.method, run.card).to(run.device)


class Projection(nn.Module):
    """Images in [0, 1] to the online network's projections; those of several views side by side.

    Args:
        encoder: (B, C, h, w) by view -> (B, d) by view.
        views: their ``evaluation_views`` make the encoder's input.
    """

    def __init__(self, encoder: Encoder, views: nn.Module) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, V x d)."""
        views = self.views.evaluation_views(images)  # type: ignore[operator]
        _, projections = self.encoder.project(views, views.queries)
        return torch.cat(list(projections.values()), dim=1)
