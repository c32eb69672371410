"""Measures of whether the embeddings of a batch still tell images apart.

All take rows (N, d) and return 0-dim tensors on their device, without gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coview.losses.assignments import entropy
from coview.losses.similarity import unit


@torch.no_grad()
def deviation(rows: Tensor) -> Tensor:
    """Return the spread of unit vectors: 1 for random directions, 0 if all are equal.

    It is the standard deviation over rows of each coordinate of the unit vectors,
    averaged over coordinates, times sqrt(d) (Chen & He 2021, section 4.1: isotropic
    rows have 1 / sqrt(d)).
    """
    spread: Tensor = unit(rows).std(dim=0, correction=0).mean() * math.sqrt(rows.shape[1])
    return spread


@torch.no_grad()
def effective_rank(rows: Tensor) -> Tensor:
    """Return RankMe (Garrido et al. 2023, equation 1), between 1 and min(N, d).

    It is the exponential of the entropy of the singular values divided by their sum.
    They are computed from the smaller Gram matrix in float64, whose error is below
    that of rows in float32. Non-finite values count as zero; other checks report
    them. On a GPU this waits for the device.
    """
    precise = rows.nan_to_num(0.0, 0.0, 0.0).double()
    tall = len(rows) > rows.shape[1]
    gram = precise.T @ precise if tall else precise @ precise.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return entropy(shares).exp()


@torch.no_grad()
def alignment(rows: Tensor, others: Tensor) -> Tensor:
    """Return the mean squared distance of positives as unit vectors, 0 to 4.

    Wang & Isola 2020, section 4.1, with exponent 2; (N, d) and (N, d).
    """
    return (unit(rows) - unit(others)).square().sum(dim=-1).mean()


@torch.no_grad()
def uniformity(rows: Tensor) -> Tensor:
    """Return the logarithm of the mean Gaussian potential of pairs of unit vectors, at most 0.

    Wang & Isola 2020, section 4.1, with t = 2, over the pairs of different rows:
    0 if all are equal, about -4 if they are spread evenly in many dimensions. Rows of zeros
    have no direction, and count as equal to one another.
    """
    directions = unit(rows)
    norms = directions.square().sum(dim=1)  # 1, or 0
    squared = (norms[:, None] + norms - 2 * (directions @ directions.T)).clamp_min(0)
    # Set to 0, not subtracted from the sum: the rest may be smaller than its rounding error.
    potentials = (-2 * squared).exp().fill_diagonal_(0)
    count = len(rows)
    return (potentials.sum() / (count * (count - 1))).log()
