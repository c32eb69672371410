"""Fine-tuning with few labels, from the backbone or from inside the projection head."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import Tensor, nn

from coview.data.base import ImageData
from coview.data.splits import labelled_subset, part, strata
from coview.errors import RequestError
from coview.evaluation.classifier import (
    Outcome,
    augmentation_for,
    by_labels,
    classifier,
    optimizer_of,
    outcome,
    scores_of,
    train_classifier,
)
from coview.evaluation.knn import measured_splits
from coview.evaluation.metrics import class_count
from coview.optim.protocols import FineTuning
from coview.weights.checkpoint import cut, load_encoder
from coview.weights.classifier import Classifier, refuse_unsavable, save_classifier
from coview.weights.exported import ExportedBackbone


@attrs.frozen(kw_only=True)
class FinetuneResult(Outcome):
    """An accuracy, with the protocol and the images that were used.

    Attributes:
        start: where the classifier is attached: ``head.0``: to the backbone;
            ``head.1``: after the projection head's first layer.
        images: positions in the reference split of the images whose labels were used.
        names: their file names, if they have any.
    """

    labels: str
    start: str
    head_lr: float
    layer_decay: float
    classes: int
    images: tuple[int, ...]
    names: tuple[str, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, including the protocol."""
        values = self.plain()
        return {"protocol": f"fine-tuned, {self.labels} of the labels", **values}


def starting_network(weights: Path, network: ExportedBackbone, start: str) -> tuple[nn.Module, int]:
    """Return the head layers to start from, and their output width.

    For ``head.N`` with N > 0, ``network`` also gets the checkpoint's online
    backbone, on which the head was trained.

    Raises:
        RequestError: ``start`` is not ``head.N``, or there is no such layer.
    """
    found = re.fullmatch(r"head\.(\d+)", start)
    if found is None:
        raise RequestError(f"--from must be head.0 (the backbone), head.1, ..., not {start!r}.")
    if int(found[1]) == 0:
        return nn.Identity(), network.width
    encoder = load_encoder(weights, network.card)
    layers, width = cut(encoder, int(found[1]))
    network.backbone.load_state_dict(encoder.backbone().state_dict())
    return layers, width


def finetune(
    network: ExportedBackbone,
    head: nn.Module,
    width: int,
    data: ImageData,
    protocol: FineTuning,
    *,
    labels: str,
    start: str = "head.0",
    layer_decay: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    save: Path | None = None,
    augment: Callable[[Tensor, int], Tensor] | None = None,
) -> FinetuneResult:
    """Train the whole network on some of the labels; return its accuracy on the test split.

    Where images have several classes it is the mean average precision, and the loss the binary
    cross-entropy (:func:`coview.optim.supervised.cost`).

    Args:
        network: trained in place, batch norms included.
        head: layers between backbone and classifier, from :func:`starting_network`.
        width: their output width.
        data: images with labels.
        protocol: see :mod:`coview.optim.protocols`.
        labels: see :func:`coview.data.splits.labelled_subset`.
        start: recorded in the result.
        layer_decay: each layer's learning rate is this times the next layer's; 1: all equal.
        seed: seed of the subset, the classifier, the order and the augmentation.
        batch_size: batch size in evaluation.
        device: where to compute.
        workers: processes that decode images.
        save: where to write the classifier, a teacher for distillation.
        augment: images and a seed -> images; None: random crops of 8 to 100 %, and flips.

    Raises:
        RequestError: there are no labels or no test split, or timm cannot order the layers.
        CoviewError: the loss is not finite.
    """
    if save is not None:
        refuse_unsavable(network)
    reference, test = measured_splits(data)
    known, truth = reference.truth, test.truth
    kept = labelled_subset(strata(known), labels, seed)
    few = part(reference, kept)
    classes = class_count(data, known, truth)
    model = Classifier(network, head, classifier(width, classes, protocol.init_std, seed))
    model.to(device).requires_grad_(True).train()
    head_lr = protocol.lr if protocol.head_lr is None else protocol.head_lr
    groups = _backbone_groups(network.backbone, protocol, layer_decay)
    groups.append({"params": list(model.head.parameters()), "peak": protocol.lr})
    # As in SimCLR v2's released code: its rate would be far too low with layer-wise adaptation.
    groups.append({"params": list(model.last.parameters()), "peak": head_lr, "adapted": False})
    train_classifier(
        by_labels(model, few.truth),
        optimizer_of([group for group in groups if group["params"]], protocol),
        few,
        protocol,
        augment or augmentation_for(network),
        seed=seed,
        device=device,
        workers=workers,
    )
    if save is not None:
        save_classifier(model, save)
    scores = scores_of(model.eval(), test, batch_size, device, workers)
    return FinetuneResult(
        **outcome(scores, test, few, protocol, seed),
        labels=labels,
        start=start,
        head_lr=head_lr,
        layer_decay=layer_decay,
        classes=classes,
        images=tuple(kept.tolist()),
        names=few.names,
    )


def _backbone_groups(
    backbone: nn.Module, protocol: FineTuning, layer_decay: float
) -> list[dict[str, Any]]:
    if layer_decay == 1:
        return [{"params": list(backbone.parameters()), "peak": protocol.lr}]
    if not hasattr(backbone, "group_matcher"):
        raise RequestError(
            f"--layer-decay needs a backbone whose layers timm can order, which it cannot for "
            f"{type(backbone).__name__}."
        )
    groups = param_groups_layer_decay(
        backbone, weight_decay=protocol.weight_decay, layer_decay=layer_decay
    )
    # timm gives the backbone's last layer the full rate; here the classifier is above it.
    return [
        {
            "params": group["params"],
            "peak": protocol.lr * layer_decay * group["lr_scale"],
            "weight_decay": group["weight_decay"],
        }
        for group in groups
    ]
