"""Linear classifiers on fixed features, many at once.

All heads of a grid see the same batches: their weights are the columns of one
matrix (D, G x K), so that a step is two matrix products whatever the grid's
size. The gradient of softmax cross-entropy is written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

MOMENTUM = 0.9


@attrs.frozen
class Setting:
    """What one head of a grid is trained with.

    Attributes:
        lr: learning rate at a batch of 256.
        weight_decay: lambda of the penalty lambda / 2 |W|^2 that is added to the
            mean cross-entropy; biases are not penalised.
    """

    lr: float
    weight_decay: float


@attrs.frozen(eq=False)
class Heads:
    """G trained linear heads: weights (G, D, K) and biases (G, K)."""

    weights: Tensor
    biases: Tensor

    def scores(self, rows: Tensor) -> Tensor:
        """(N, D) -> (G, N, K)."""
        return torch.einsum("nd,gdk->gnk", rows, self.weights) + self.biases[:, None]


@attrs.frozen(eq=False)
class Standard:
    """Mean and deviation of training features, which all features are standardised with."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Standard:
        """Measure (N, D); a feature that never varies keeps its scale."""
        deviation, mean = torch.std_mean(rows, dim=0, correction=0)
        return cls(mean, torch.where(deviation > 1e-6, deviation, 1.0))

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return (rows - self.mean) / self.deviation


def train_heads(
    rows: Tensor,
    labels: Tensor,
    classes: int,
    settings: Sequence[Setting],
    *,
    epochs: int,
    batch_size: int = 256,
    seed: int = 0,
) -> Heads:
    """Train one head a setting, by SGD with Nesterov's momentum and a cosine schedule.

    Weights start at zero, so the order of the images is the only randomness.

    Args:
        rows: (N, D) features, standardised.
        labels: (N,) int64.
        classes: K.
        settings: G of them.
        epochs: passes over the features.
        batch_size: rows a step, at most N.
        seed: of the order.
    """
    count, (size, width) = len(settings), rows.shape
    batch_size = min(batch_size, size)
    steps = size // batch_size
    weights = rows.new_zeros(width, count, classes)
    biases = rows.new_zeros(count, classes)
    velocity, drift = torch.zeros_like(weights), torch.zeros_like(biases)
    # The linear rule keeps a learning rate's meaning where sets are smaller than a batch.
    rates = rows.new_tensor([s.lr for s in settings])[:, None] * (batch_size / 256)
    decays = rows.new_tensor([s.weight_decay for s in settings])[:, None]
    targets = one_hot(labels, classes).to(rows.dtype)
    generator = torch.Generator().manual_seed(seed)
    for step in range(epochs * steps):
        if step % steps == 0:
            order = torch.randperm(size, generator=generator).to(rows.device)
        own = order[step % steps * batch_size :][:batch_size]
        rate = rates * (0.5 * (1 + math.cos(math.pi * step / (epochs * steps))))
        batch = rows[own]
        errors = _errors(batch, weights, biases, targets[own])
        slope = (batch.T @ errors.flatten(1)).view_as(weights) + decays * weights
        _nesterov(weights, velocity, slope, rate)
        _nesterov(biases, drift, errors.sum(dim=0), rate)
    return Heads(weights.movedim(1, 0).contiguous(), biases)


def _errors(batch: Tensor, weights: Tensor, biases: Tensor, targets: Tensor) -> Tensor:
    """Return d loss / d scores, (B, G, K)."""
    scores = (batch @ weights.flatten(1)).view(len(batch), *biases.shape) + biases
    return (scores.softmax(dim=-1) - targets[:, None]) / len(batch)


def _nesterov(weights: Tensor, velocity: Tensor, slope: Tensor, rate: Tensor) -> None:
    velocity.mul_(MOMENTUM).add_(slope)
    weights.sub_(rate * (slope + MOMENTUM * velocity))


def best_head(heads: Heads, rows: Tensor, labels: Tensor) -> tuple[int, list[float], list[float]]:
    """Return the head of highest accuracy, all accuracies and all losses.

    Equal accuracies are told apart by cross-entropy. A head that diverged
    cannot win.
    """
    scores = heads.scores(rows)
    losses = [float(cross_entropy(each, labels)) for each in scores]
    finite = [math.isfinite(loss) for loss in losses]
    right = (scores.argmax(dim=-1) == labels).double().mean(dim=1).tolist()
    accuracy = [value if fine else 0.0 for value, fine in zip(right, finite, strict=True)]
    order = [
        (a, -loss if fine else -math.inf)
        for a, loss, fine in zip(accuracy, losses, finite, strict=True)
    ]
    return max(range(len(order)), key=order.__getitem__), accuracy, losses
