"""The published linear probes: a frozen network under augmented images, SGD on its features."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from coview.data.base import ImageData
from coview.evaluation.exported import ExportedBackbone
from coview.evaluation.frozen import unmoved
from coview.evaluation.knn import labelled_splits
from coview.evaluation.metrics import accuracies, class_count
from coview.evaluation.protocols import Protocol
from coview.evaluation.supervised import (
    augmentation_for,
    by_labels,
    classifier,
    optimizer_of,
    scores_of,
    train_classifier,
)


@attrs.frozen
class ProbeResult:
    """An accuracy with the published protocol that gave it."""

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
) -> ProbeResult:
    """Train a linear classifier as published; return its accuracy on the test split.

    The network is in evaluation mode throughout, and hashed before and after.

    Raises:
        RequestError: no labels, or no test split.
        CoviewError: the loss is not finite, or the network moved.
    """
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
    return ProbeResult(
        **accuracies(scores, test.labels),
        source=protocol.source,
        lr=protocol.lr,
        weight_decay=protocol.weight_decay,
        schedule=protocol.schedule,
        epochs=protocol.epochs,
        batch_size=min(protocol.batch_size, len(reference)),
        seed=seed,
        train_images=len(reference),
        test_images=len(test),
        classes=classes,
    )
