"""How much of a picture's colours a representation keeps: a quantity for studies."""

from __future__ import annotations

import torch
from torch import Tensor

from coview.evaluation.features import features
from coview.studies.measures import exported
from coview.training.run import Run

RIDGE = 1e-3
"""Share of the identity that is added to the features' correlations, so that they can be solved."""


def colour_left(run: Run) -> float:
    """Return the share of the variance of mean colours that features explain on the test split."""
    network, train, test = exported(run), run.data.reference, run.data.test
    rows = [features(network, split, device=run.device) for split in (train, test)]
    colours = [features(mean_colour, split) for split in (train, test)]
    return explained(rows[0], colours[0], rows[1], colours[1])


def mean_colour(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return images.mean(dim=(2, 3))


def explained(rows: Tensor, values: Tensor, others: Tensor, truth: Tensor) -> float:
    """Return the share of variance of ``truth`` that a linear map explains; at most 1.

    Args:
        rows: (N, D) features that the map is fitted on, by least squares.
        values: (N, k) what it is fitted to.
        others: (M, D) features that it is measured on.
        truth: (M, k) what it should give.
    """
    deviation, mean = torch.std_mean(rows.double(), dim=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    inputs, tested = ((x.double() - mean) / deviation for x in (rows, others))
    middle = values.double().mean(dim=0)
    gram = inputs.T @ inputs / len(inputs) + RIDGE * torch.eye(inputs.shape[1]).double()
    weights = torch.linalg.solve(gram, inputs.T @ (values.double() - middle) / len(inputs))
    missed = (tested @ weights + middle - truth.double()).square().mean()
    return float(1 - missed / (truth.double() - truth.double().mean(dim=0)).square().mean())
