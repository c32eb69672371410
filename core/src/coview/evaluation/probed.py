"""The published linear probes: a frozen network under augmented images, SGD on its features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.data.base import ImageData
from coview.evaluation.classifiers import Classifier, refuse_unsavable, save_classifier
from coview.evaluation.exported import ExportedBackbone
from coview.evaluation.frozen import unmoved
from coview.evaluation.knn import labelled_splits
from coview.evaluation.metrics import class_count
from coview.evaluation.protocols import Protocol
from coview.evaluation.supervised import (
    Outcome,
    augmentation_for,
    by_labels,
    classifier,
    optimizer_of,
    outcome,
    scores_of,
    train_classifier,
)


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
