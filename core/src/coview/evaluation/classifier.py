"""Published linear probes: SGD on a frozen network's features of augmented images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.data.base import ImageData, Split
from coview.data.loader import images_in_order
from coview.errors import RequestError
from coview.evaluation.features import unmoved
from coview.evaluation.knn import measured_splits
from coview.evaluation.metrics import Measured, class_count, measures
from coview.evaluation.tokens import probed
from coview.optim.protocols import Protocol
from coview.optim.supervised import (
    Forward,
    Loss,
    by_labels,
    classifier,
    optimizer_of,
    train_classifier,
)
from coview.views.augmentation import Augmentation, Normalize
from coview.weights.card import WeightCard
from coview.weights.classifier import Classifier, refuse_unsavable, save_classifier
from coview.weights.exported import ExportedBackbone

__all__ = [
    "Forward",
    "Loss",
    "Outcome",
    "ProbeResult",
    "augmentation_for",
    "by_labels",
    "classifier",
    "evaluate_probe",
    "optimizer_of",
    "outcome",
    "scores_of",
    "train_classifier",
]


@attrs.frozen(kw_only=True)
class Outcome(Measured):
    """What was measured, with the classifier's training settings and the numbers of images."""

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
    """Return the values of an :class:`Outcome`; ``scores`` (:func:`scores_of`) are for ``test``."""
    assert test.truth is not None
    return {
        **measures(scores, test.kept(test.truth)),
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


def crop_and_flip(card: WeightCard, simple: bool) -> Callable[[Tensor, int], Tensor]:
    """Return the usual augmentation for supervised training: random resized crop, flip.

    Crops cover 8 to 100 % of an image.

    Args:
        card: the exported backbone's card.
        simple: crops have the size that the network sees; otherwise the loader's,
            from which views such as patches are then cut.
    """
    size, channels = card.size if simple else card.image_size, card.channels
    plain = Normalize((0.0,) * channels, (1.0,) * channels, active=False)
    return Augmentation(order=("crop", "flip")).chain(size, channels, plain)


@torch.no_grad()
def scores_of(
    forward: Forward, split: Split, batch_size: int, device: torch.device | str, workers: int
) -> Tensor:
    """Return scores (N, K) on the CPU, in the split's order, without unreadable images.

    ``split.kept(labels)`` are the labels that belong to them.
    """
    batches = images_in_order(split, batch_size, device, workers)
    return split.kept(torch.cat([forward(i.float() / 255).float().cpu() for i in batches]))


def augmentation_for(network: ExportedBackbone) -> Callable[[Tensor, int], Tensor]:
    """Return the augmentation :func:`crop_and_flip` for a backbone."""
    return crop_and_flip(network.card, network.views is None)


@attrs.frozen(kw_only=True)
class ProbeResult(Outcome):
    """An accuracy and the published protocol by which it was measured."""

    classes: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, including the protocol."""
        return {"protocol": "linear, frozen, augmented images", **self.plain()}


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

    The network stays in evaluation mode, and is hashed before and after.

    Raises:
        RequestError: there are no labels or no test split, or the network cannot be saved.
        CoviewError: the loss is not finite, or the network changed.
    """
    read = probed(network, protocol.tokens)
    if save is not None:
        refuse_unsavable(network)
        if read is not network:
            raise RequestError(
                "A classifier on the tokens of several blocks cannot be saved with the backbone: "
                "leave out --save, or use --protocol grid."
            )
    reference, test = measured_splits(data)
    classes = class_count(data, reference.truth, test.truth)
    head = classifier(read.width, classes, protocol.init_std, seed).to(device)
    optimizer = optimizer_of([{"params": list(head.parameters()), "peak": protocol.lr}], protocol)

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad():
            rows = read(images)
        scores: Tensor = head(rows.float())
        return scores

    was_training = network.training
    with unmoved(network):
        network.eval()
        train_classifier(
            by_labels(forward, reference.truth),
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
