"""Offline linear evaluation: a linear classifier on cached features of a frozen network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.optim import SGD

from coview.data.base import ImageData
from coview.data.splits import hold_out, strata
from coview.errors import RequestError
from coview.evaluation.features import TEST, TRAINING, features
from coview.evaluation.knn import measured_splits
from coview.evaluation.metrics import Measured, average_precisions, class_count, measures
from coview.optim.supervised import MOMENTUM, cost, train
from coview.schedules import half_cosine, rate_scale
from coview.weights.classifier import Classifier, refuse_unsavable, save_classifier
from coview.weights.exported import ExportedBackbone


@attrs.frozen
class Setting:
    """Training settings of one head in a grid.

    Attributes:
        lr: learning rate at a batch size of 256.
        weight_decay: lambda of the penalty lambda / 2 |W|^2 that is added to the
            mean cross-entropy (binary, where images have several classes); biases are not
            penalised.
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
    """Mean and standard deviation of training features, used to standardise all features."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Standard:
        """Measure rows (N, D); a feature that never varies keeps its scale."""
        deviation, mean = torch.std_mean(rows, dim=0, correction=0)
        return cls(mean, torch.where(deviation > 1e-6, deviation, 1.0))

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return (rows - self.mean) / self.deviation


class _Grid(nn.Module):
    """G linear classifiers in one: a step is two matrix products, however large the grid.

    Each head's own learning rate and weight decay are applied to its gradient. Momentum
    is linear, so this equals a separate optimiser for each head.
    """

    def __init__(self, rows: Tensor, classes: int, settings: Sequence[Setting]) -> None:
        super().__init__()
        count, width = len(settings), rows.shape[1]
        self.weights = nn.Parameter(rows.new_zeros(width, count, classes))
        self.biases = nn.Parameter(rows.new_zeros(count, classes))
        rates = rows.new_tensor([s.lr for s in settings])[:, None]
        decays = rows.new_tensor([s.weight_decay for s in settings])[:, None]

        def decayed(weights: Tensor) -> None:
            assert weights.grad is not None
            weights.grad.add_(decays * weights.detach()).mul_(rates)

        def scaled(biases: Tensor) -> None:
            assert biases.grad is not None
            biases.grad.mul_(rates)

        self.weights.register_post_accumulate_grad_hook(decayed)
        self.biases.register_post_accumulate_grad_hook(scaled)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) -> (B, G, K)."""
        scores = rows @ self.weights.flatten(1)
        return scores.view(len(rows), *self.biases.shape) + self.biases


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
    """Train one head per setting, by SGD with Nesterov momentum and a cosine schedule.

    Weights start at zero, so the order of the images is the only randomness.

    Args:
        rows: (N, D) features, standardised.
        labels: (N,) int64, or (N, K) bool.
        classes: K, the number of classes.
        settings: the settings of the G heads.
        epochs: passes over the features.
        batch_size: rows per step, at most N.
        seed: seed of the order.
    """
    batch_size = min(batch_size, len(rows))
    grid = _Grid(rows, classes, settings)
    # By the linear rule, a learning rate means the same if the set is smaller than a batch.
    groups = [{"params": list(grid.parameters()), "peak": rate_scale("linear", batch_size)}]
    optimizer = SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)
    generator = torch.Generator().manual_seed(seed)
    steps = len(rows) // batch_size

    def batches(epoch: int) -> Iterable[Tensor]:
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        parts: tuple[Tensor, ...] = order[: steps * batch_size].split(batch_size)
        return parts

    def loss(own: Tensor, step: int) -> Tensor:
        scores = grid(rows[own]).flatten(0, 1)
        truth = labels[own].repeat_interleave(len(settings), dim=0)
        return cost(scores, truth) * len(settings)

    train(
        loss,
        optimizer,
        batches,
        half_cosine,
        epochs=epochs,
        steps_per_epoch=steps,
        may_diverge=True,  # a head of the grid may diverge; it cannot win
    )
    weights = grid.weights.detach().movedim(1, 0).contiguous()
    return Heads(weights, grid.biases.detach())


def best_head(heads: Heads, rows: Tensor, labels: Tensor) -> tuple[int, list[float], list[float]]:
    """Return the index of the most accurate head, all accuracies and all losses.

    Of equal accuracies, the lower cross-entropy wins. A head that diverged
    cannot win. With ``labels`` (N, K) bool an accuracy is a mean average precision.
    """
    scores = heads.scores(rows)
    losses = [float(cost(each, labels)) for each in scores]
    finite = [math.isfinite(loss) for loss in losses]
    accuracy = [
        _right(each, labels) if fine else 0.0 for each, fine in zip(scores, finite, strict=True)
    ]
    order = [
        (a, -loss if fine else -math.inf)
        for a, loss, fine in zip(accuracy, losses, finite, strict=True)
    ]
    return max(range(len(order)), key=order.__getitem__), accuracy, losses


def _right(scores: Tensor, labels: Tensor) -> float:
    if labels.ndim == 1:
        return float((scores.argmax(dim=-1) == labels).double().mean())
    return float(average_precisions(scores.cpu(), labels.cpu()).nanmean())


LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
VALIDATION_SHARE = 0.1
MOST_VALIDATION_IMAGES = 10_000


@attrs.frozen(kw_only=True)
class LinearResult(Measured):
    """What was measured, and the protocol by which it was measured.

    Attributes:
        lr, weight_decay: chosen on the validation images.
        validation_top1: accuracy of the chosen head, before it was trained on all images.
        validation_mean_average_precision: the same of images that have several classes.
        grid: every setting with its validation accuracy.
    """

    lr: float
    weight_decay: float
    epochs: int
    batch_size: int
    seed: int
    validation_top1: float | None = None
    validation_mean_average_precision: float | None = None
    train_images: int
    validation_images: int
    test_images: int
    classes: int
    grid: tuple[dict[str, float | None], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, including the protocol."""
        return {"protocol": "linear, offline, frozen features", **self.plain()}


def evaluate_linear(
    network: ExportedBackbone,
    data: ImageData,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    epochs: int = 100,
    head_batch_size: int = 256,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    save: Path | None = None,
) -> LinearResult:
    """Return the accuracy of a linear classifier on the data's test split.

    Where images have several classes it is the mean average precision.

    Features are computed once and standardised with the reference images'
    statistics. A grid of learning rates and weight decays is trained at once;
    the best on a stratified share of the reference split is trained again on
    all of it. The test split is used once, at the end.

    Raises:
        RequestError: there are no labels, no test split, or too few images to choose by.
        CoviewError: features are not finite, or the network changed.
    """
    if save is not None:
        refuse_unsavable(network)
    reference, test = measured_splits(data)
    settings = [Setting(lr, wd) for lr, wd in product(learning_rates, weight_decays)]

    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "workers": workers}

    def of(split: Any, what: str) -> Tensor:
        return features(network, split, what=what, **options).to(device)

    rows = of(reference, TRAINING)
    labels = reference.kept(reference.truth)
    chosen_by = "validation_" + ("top1" if labels.ndim == 1 else "mean_average_precision")
    fitting, validation = _split(strata(labels), choose=len(settings) > 1)
    labels = labels.to(device)
    standard = Standard.of(rows)
    rows = standard(rows)
    classes = class_count(data, reference.truth, test.truth)

    def train(which: Tensor, settings: Sequence[Setting]) -> Any:
        which = which.to(device)
        return train_heads(
            rows[which],
            labels[which],
            classes,
            settings,
            epochs=epochs,
            batch_size=head_batch_size,
            seed=seed,
        )

    chosen, shares, grid = 0, [0.0], []
    if len(settings) > 1:
        held = validation.to(device)
        heads = train(fitting, settings)
        chosen, shares, losses = best_head(heads, rows[held], labels[held])
        grid = [
            {
                **attrs.asdict(s),
                chosen_by: share,
                "validation_loss": loss if math.isfinite(loss) else None,
            }
            for s, share, loss in zip(settings, shares, losses, strict=True)
        ]
    validated: dict[str, Any] = {chosen_by: shares[chosen] if grid else None}
    final = train(torch.arange(len(rows)), [settings[chosen]])
    if save is not None:
        save_linear(network, final, standard, save)
    scores = final.scores(standard(of(test, TEST)))[0].cpu()
    truth = test.kept(test.truth)
    return LinearResult(
        **measures(scores, truth),
        **attrs.asdict(settings[chosen]),
        epochs=epochs,
        batch_size=min(head_batch_size, len(rows)),
        seed=seed,
        **validated,
        train_images=len(rows),
        validation_images=len(validation),
        test_images=len(truth),
        classes=classes,
        grid=tuple(grid),
    )


def save_linear(network: ExportedBackbone, heads: Heads, standard: Standard, path: Path) -> None:
    """Write a backbone with the first head on its standardised features, as one classifier.

    Raises:
        RequestError: as :func:`save_classifier`.
    """
    weights = heads.weights[0] / standard.deviation[:, None]
    last = nn.Linear(*weights.shape)
    with torch.no_grad():
        last.weight.copy_(weights.T)
        last.bias.copy_(heads.biases[0] - standard.mean @ weights)
    save_classifier(Classifier(network, nn.Identity(), last), path)


def _split(labels: Tensor, choose: bool) -> tuple[Tensor, Tensor]:
    """Return indices for fitting and for choosing, both in the reference split."""
    everything, none = torch.arange(len(labels)), torch.arange(0)
    if not choose:
        return everything, none
    share = min(VALIDATION_SHARE, MOST_VALIDATION_IMAGES / len(labels))
    fitting, validation = hold_out(len(labels), labels, share) if len(labels) > 1 else (None, none)
    if fitting is None or not len(validation):
        raise RequestError(
            "There are too few images to choose a learning rate and weight decay: no class has "
            "two training images. Give one value for each: --lr, --weight-decay."
        )
    return fitting, validation
