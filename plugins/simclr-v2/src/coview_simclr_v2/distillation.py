"""SimCLR v2's third stage: a student learns a teacher's predictions (section 2, eq. 2 and 3).

Teacher and student see the same random crop. The student is a plain network with a
linear classifier; the teacher includes the layers that it kept of its projection
head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softmax

from coview.data.base import ImageData, Split
from coview.data.splits import labelled_subset
from coview.evaluation.classifier import (
    Loss,
    Outcome,
    augmentation_for,
    optimizer_of,
    outcome,
    scores_of,
    train_classifier,
)
from coview.evaluation.features import unmoved
from coview.evaluation.knn import labelled_splits
from coview.optim.protocols import Protocol
from coview.weights.classifier import Classifier

# As in the first stage: LARS, 0.1 x the square root of the batch size, 5 % warm-up.
PAPER = Protocol(
    "arXiv:2006.10029, appendix B",
    lr=0.1,
    lr_rule="sqrt",
    epochs=400,
    batch_size=4096,
    weight_decay=1e-4,
    lars=True,
    warmup=0.05,
)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean over rows of -sum_y P_T(y) log P_S(y), P = softmax(logits / temperature).

    Args:
        student: (B, K) logits; gradient flows into them.
        teacher: (B, K) logits; no gradient flows into them.
        temperature: temperature of both.
    """
    opinion = softmax(teacher.detach() / temperature, dim=1)
    return -(opinion * log_softmax(student / temperature, dim=1)).sum(dim=1).mean()


@attrs.frozen(kw_only=True)
class DistillationResult(Outcome):
    """The student's and the teacher's accuracy, with the protocol.

    Attributes:
        distill_weight: alpha; 1: labels are not used.
        labels: which share or number of the training labels is used; None: none.
    """

    teacher_top1: float
    student: str
    temperature: float
    distill_weight: float
    labels: str | None
    labelled_images: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, with the protocol's name."""
        return {"protocol": "distilled", **attrs.asdict(self)}


def distill(
    teacher: Classifier,
    student: Classifier,
    data: ImageData,
    protocol: Protocol = PAPER,
    *,
    temperature: float,
    distill_weight: float = 1.0,
    labels: str | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    augment: Callable[[Tensor, int], Tensor] | None = None,
) -> DistillationResult:
    """Train ``student`` in place on the training images and the teacher's logits.

    With labels (eq. 3) the loss is alpha x distillation over the batch + (1 -
    alpha) x cross-entropy over its labelled images; for a batch without labelled
    images it is the first part only. ``augment`` makes the pictures that both see from
    images and a seed; None: random crops of 8 to 100 %, and flips.

    Raises:
        RequestError: there is no labelled test split to measure on.
        CoviewError: the loss is not finite, or the teacher's weights changed.
    """
    reference, test = labelled_splits(data)
    # Without labels, all training images are used, labelled or not.
    train = reference if labels is not None else data.train
    kept = torch.arange(0) if labels is None else labelled_subset(reference.labels, labels, seed)
    teacher, student = teacher.to(device).eval(), student.to(device).train()
    with unmoved(teacher):
        train_classifier(
            _loss(teacher, student, train, kept, temperature, distill_weight, device),
            optimizer_of([{"params": list(student.parameters()), "peak": protocol.lr}], protocol),
            train,
            protocol,
            augment or augmentation_for(student.network),
            seed=seed,
            device=device,
            workers=workers,
        )
        known = scores_of(teacher, test, 256, device, workers)
    scores = scores_of(student.eval(), test, 256, device, workers)
    return DistillationResult(
        **outcome(scores, test, train, protocol, seed),
        teacher_top1=outcome(known, test, train, protocol, seed)["top1"],
        student=student.network.card.backbone,
        temperature=temperature,
        distill_weight=distill_weight,
        labels=labels,
        labelled_images=len(kept),
    )


def _loss(
    teacher: Classifier,
    student: Classifier,
    train: Split,
    kept: Tensor,
    temperature: float,
    weight: float,
    device: torch.device | str,
) -> Loss:
    labelled = torch.zeros(len(train), dtype=torch.bool)
    labelled[kept] = True
    labelled = labelled.to(device)
    labels = None if train.labels is None else train.labels.to(device)

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            opinion = teacher(images)
        scores = student(images)
        total = weight * distillation_loss(scores, opinion, temperature)
        own = labelled[rows]
        if labels is not None and own.any():
            total = total + (1 - weight) * cross_entropy(scores[own], labels[rows][own])
        return total

    return loss
