"""Training with labels: one loop for linear probes, fine-tuning and distillation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim import SGD, Optimizer

from coview.data.base import Split
from coview.data.loader import Batches
from coview.errors import CoviewError
from coview.optim.lars import LARC, LARS
from coview.optim.protocols import Protocol
from coview.seeds import derived_seed
from coview.telling import progress

MOMENTUM = 0.9
Forward = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def descend(
    loss: Tensor,
    optimizer: Optimizer,
    share: float,
    average: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Take one step.

    Args:
        loss: a scalar with gradient.
        optimizer: its groups have a ``peak`` learning rate.
        share: of the peak that is used now.
        average: what is done to each gradient first: the mean over processes, say.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
        if average is not None:
            for parameter in group["params"]:
                parameter.grad = average(parameter.grad)
    optimizer.step()


def train(
    loss_of: Callable[[Any, int], Tensor],
    optimizer: Optimizer,
    batches: Callable[[int], Iterable[Any]],
    rate: Callable[[float], float],
    *,
    epochs: int,
    steps_per_epoch: int,
    may_diverge: bool = False,
) -> int:
    """Train in place; return the number of steps.

    Args:
        loss_of: a batch and the step's number -> a scalar with gradient.
        optimizer: its groups have a ``peak`` learning rate.
        batches: the batches of an epoch, from its number.
        rate: the share of the peak learning rate after a share of the training.
        epochs: passes over the batches.
        steps_per_epoch: batches in a pass.
        may_diverge: a loss that is not finite is the caller's business.

    Raises:
        CoviewError: the loss is not finite after an epoch.
    """
    total, step = epochs * steps_per_epoch, 0
    for epoch in range(epochs):
        loss = torch.zeros(())
        for batch in batches(epoch):
            loss = loss_of(batch, step)
            descend(loss, optimizer, rate(step / total))
            step += 1
            progress("steps of the classifier's training", step, total)
        if not may_diverge and not math.isfinite(float(loss.detach())):
            raise CoviewError(
                f"The classifier's loss is not finite after epoch {epoch + 1}: a smaller --lr "
                "may help."
            )
    return step


def train_classifier(
    loss_of: Loss,
    optimizer: Optimizer,
    split: Split,
    protocol: Protocol,
    augment: Callable[[Tensor, int], Tensor],
    *,
    seed: int,
    device: torch.device | str,
    workers: int = 0,
) -> int:
    """Train on augmented images, in place; return the number of steps.

    Args:
        loss_of: augmented images (B, C, H, W) float in [0, 1] and their places in
            the split, (B,) int64 -> a scalar with gradient.
        optimizer: its groups have a ``peak`` learning rate at a batch of 256.
        split: images.
        protocol: epochs, batch size and schedule.
        augment: images and a seed -> images.
        seed: of the order and the augmentation.
        device: where ``loss_of`` computes.
        workers: processes that decode.

    Raises:
        CoviewError: the loss is not finite any more.
    """
    batch_size = min(protocol.batch_size, len(split))
    batches = Batches(split, batch_size, seed, device, workers, same_class=True)
    scale = protocol.scale(batch_size)

    def loss(batch: Any, step: int) -> Tensor:
        images = augment(batch.images.float() / 255, derived_seed(seed, step, "labels"))
        return loss_of(images, batch.indices)

    return train(
        loss,
        optimizer,
        batches.epoch,
        lambda done: protocol.rate(done) * scale,
        epochs=protocol.epochs,
        steps_per_epoch=batches.steps_per_epoch,
    )


def classifier(width: int, classes: int, init_std: float, seed: int) -> nn.Linear:
    """Return a linear layer (N, width) -> (N, classes), with weights drawn from ``seed``."""
    layer = nn.Linear(width, classes)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        layer.weight.normal_(0, 1, generator=generator).mul_(init_std)
        layer.bias.zero_()
    return layer


def optimizer_of(groups: Sequence[dict[str, Any]], protocol: Protocol) -> Optimizer:
    """Return the protocol's optimiser.

    Args:
        groups: have ``params`` and ``peak``; layer-wise adaptation leaves one out whose
            ``adapted`` is False, and does not decay it.
        protocol: says which optimiser.
    """
    usual = {"lr": 0.0, "weight_decay": protocol.weight_decay, "adapted": True}
    full = [{**usual, **group} for group in groups]
    if protocol.larc:
        return LARC(full, momentum=MOMENTUM)
    if not protocol.lars:
        return SGD(full, lr=0.0, momentum=MOMENTUM, nesterov=protocol.nesterov)
    split = [
        {
            **group,
            "params": [p for p in group["params"] if (p.ndim > 1 and group["adapted"]) == adapted],
            "adapted": adapted,
        }
        for group in full
        for adapted in (True, False)
    ]
    for group in split:
        # Biases and normalisation layers are neither adapted nor decayed.
        group["weight_decay"] *= group["adapted"]
    return LARS(split, momentum=MOMENTUM)


def cost(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the loss of scores (B, K): a scalar, the mean over images.

    Args:
        scores: logits.
        truth: (B,) int64: cross-entropy; (B, K) bool: binary cross-entropy, summed over
            the classes, so that a class learns as fast whatever their number.
    """
    if truth.ndim == 1:
        return cross_entropy(scores, truth)
    total = binary_cross_entropy_with_logits(scores, truth.to(scores.dtype), reduction="sum")
    return total / len(scores)


def by_labels(forward: Forward, labels: Tensor | None) -> Loss:
    """Return the :func:`cost` of ``forward``'s scores; ``labels`` (N,) or (N, K) of the split."""
    assert labels is not None

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        return cost(forward(images), labels.to(rows.device)[rows])

    return loss
