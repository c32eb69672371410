"""The published linear probes: a frozen network under augmented images, SGD on its features."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer

from coview.data.base import ImageData, Split
from coview.data.loader import Batches, images_in_order
from coview.errors import CoviewError
from coview.evaluation.features import unmoved
from coview.evaluation.knn import labelled_splits
from coview.evaluation.metrics import accuracies, class_count
from coview.optim.lars import LARS
from coview.recipes.protocols import Protocol
from coview.views.augmentation import Augmentation, Normalize
from coview.weights.classifier import Classifier, refuse_unsavable, save_classifier
from coview.weights.exported import ExportedBackbone

MOMENTUM = 0.9
Forward = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@attrs.frozen(kw_only=True)
class Outcome:
    """An accuracy with the settings that a classifier was trained with, and on what."""

    top1: float
    top5: float
    mean_per_class: float
    source: str
    lr: float
    weight_decay: float
    schedule: str
    epochs: int
    batch_size: int
    seed: int
    train_images: int
    test_images: int


def outcome(
    scores: Tensor, test: Split, train: Split, protocol: Protocol, seed: int
) -> dict[str, Any]:
    """Return the values of an :class:`Outcome`; ``scores`` are :func:`scores_of` the test split."""
    assert test.labels is not None
    return {
        **accuracies(scores, test.kept(test.labels)),
        "source": protocol.source,
        "lr": protocol.lr,
        "weight_decay": protocol.weight_decay,
        "schedule": protocol.schedule,
        "epochs": protocol.epochs,
        "batch_size": min(protocol.batch_size, len(train)),
        "seed": seed,
        "train_images": len(train),
        "test_images": len(scores),
    }


def crop_and_flip(meta: dict[str, Any], simple: bool) -> Callable[[Tensor, int], Tensor]:
    """Return the field's augmentation for labels: random resized crop (8 to 100 %), flip.

    Args:
        meta: of the exported backbone.
        simple: crops have the size that the network sees; else the loader's,
            which the views that cut images into pieces start from.
    """
    size, channels = meta["size"] if simple else meta["image_size"], meta["channels"]
    plain = Normalize((0.0,) * channels, (1.0,) * channels, active=False)
    return Augmentation(order=("crop", "flip")).chain(size, channels, plain)


def classifier(width: int, classes: int, init_std: float, seed: int) -> nn.Linear:
    """Return a linear layer (N, width) -> (N, classes), with weights drawn from ``seed``."""
    layer = nn.Linear(width, classes)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        layer.weight.normal_(0, 1, generator=generator).mul_(init_std)
        layer.bias.zero_()
    return layer


def optimizer_of(groups: Sequence[dict[str, Any]], protocol: Protocol) -> Optimizer:
    """Return the protocol's optimiser; ``groups`` have ``params`` and ``peak``."""
    full = [{"lr": 0.0, "weight_decay": protocol.weight_decay, **group} for group in groups]
    if not protocol.lars:
        return SGD(full, lr=0.0, momentum=MOMENTUM, nesterov=protocol.nesterov)
    split = [
        {
            **group,
            "params": [p for p in group["params"] if (p.ndim > 1) == adapted],
            "adapted": adapted,
        }
        for group in full
        for adapted in (True, False)
    ]
    for group in split:
        # Biases and normalisation layers are neither adapted nor decayed.
        group["weight_decay"] *= group["adapted"]
    return LARS(split, momentum=MOMENTUM)


def by_labels(forward: Forward, labels: Tensor | None) -> Loss:
    """Return the cross-entropy of ``forward``'s scores; ``labels`` (N,) int64 of the split."""
    assert labels is not None

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(forward(images), labels.to(rows.device)[rows])

    return loss


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
    """Train in place; return the number of steps.

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
    total = protocol.epochs * batches.steps_per_epoch
    step, loss = 0, torch.zeros(())
    for epoch in range(protocol.epochs):
        for batch in batches.epoch(epoch):
            share = _rate(protocol, step / total) * protocol.scale(batch_size)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            images = augment(batch.images.float() / 255, _seed(seed, step))
            loss = loss_of(images, batch.indices)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
        if not math.isfinite(float(loss.detach())):
            raise CoviewError(
                f"The classifier's loss is not finite after epoch {epoch + 1}: a smaller --lr "
                "may help."
            )
    return step


def _rate(protocol: Protocol, done: float) -> float:
    if protocol.drops:
        # Shares of whole epochs, met exactly: 60 of 100 must not miss 0.6 by rounding.
        return float(protocol.factor ** sum(done >= drop - 1e-9 for drop in protocol.drops))
    if done < protocol.warmup:
        return done / protocol.warmup
    return 0.5 * (1 + math.cos(math.pi * (done - protocol.warmup) / (1 - protocol.warmup)))


def _seed(seed: int, step: int) -> int:
    text = f"{seed}/{step}/labels".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@torch.no_grad()
def scores_of(
    forward: Forward, split: Split, batch_size: int, device: torch.device | str, workers: int
) -> Tensor:
    """Return scores (N, K) on the CPU, in the split's order; of unreadable images there are none.

    ``split.kept(labels)`` are the labels of the others.
    """
    batches = images_in_order(split, batch_size, device, workers)
    return split.kept(torch.cat([forward(i.float() / 255).float().cpu() for i in batches]))


def augmentation_for(network: ExportedBackbone) -> Callable[[Tensor, int], Tensor]:
    """Return :func:`crop_and_flip` for a backbone."""
    return crop_and_flip(network.meta, network.views is None)


@attrs.frozen(kw_only=True)
class ProbeResult(Outcome):
    """An accuracy with the published protocol that gave it."""

    classes: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, protocol named."""
        return {"protocol": "linear, frozen, augmented images", **attrs.asdict(self)}


def evaluate_probe(
    network: ExportedBackbone,
    data: ImageData,
    protocol: Protocol,
    *,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    save: Path | None = None,
) -> ProbeResult:
    """Train a linear classifier as published; return its accuracy on the test split.

    The network is in evaluation mode throughout, and hashed before and after.

    Raises:
        RequestError: no labels, no test split, or a network that cannot be saved.
        CoviewError: the loss is not finite, or the network moved.
    """
    if save is not None:
        refuse_unsavable(network)
    reference, test = labelled_splits(data)
    classes = class_count(data, reference.labels, test.labels)
    head = classifier(network.width, classes, protocol.init_std, seed).to(device)
    optimizer = optimizer_of([{"params": list(head.parameters()), "peak": protocol.lr}], protocol)

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad():
            rows = network(images)
        scores: Tensor = head(rows.float())
        return scores

    was_training = network.training
    with unmoved(network):
        network.eval()
        train_classifier(
            by_labels(forward, reference.labels),
            optimizer,
            reference,
            protocol,
            augmentation_for(network),
            seed=seed,
            device=device,
            workers=workers,
        )
        scores = scores_of(forward, test, batch_size, device, workers)
        network.train(was_training)
    if save is not None:
        save_classifier(Classifier(network, nn.Identity(), head), save)
    return ProbeResult(**outcome(scores, test, reference, protocol, seed), classes=classes)
