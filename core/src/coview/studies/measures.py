"""What studies measure on a finished run, beside what it logs: functions that quantities name.

Each takes the :class:`coview.training.run.Run` and returns a number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from coview.data.splits import labelled_subset
from coview.evaluation.features import features
from coview.evaluation.finetune import finetune, starting_network
from coview.evaluation.knn import evaluate_knn, labelled_splits
from coview.evaluation.linear import evaluate_linear
from coview.nn.encoder import Encoder
from coview.optim.protocols import FineTuning
from coview.training.observers.collapse_measures import deviation, effective_rank
from coview.training.run import Run
from coview.views.augmentation import Augmentation, Normalize
from coview.weights.card import WeightCard
from coview.weights.exported import ExportedBackbone, export, load_backbone

LINEAR_EPOCHS = 50
"""Passes over the features of a small set; the grid's best head no longer gains from more."""
STEPS, BATCH = 200, 64
"""Of fine-tuning, with however few labels."""


def projection_knn(run: Run) -> float:
    """Return the kNN accuracy of the projection: the layer after the head, instead of before it."""
    return evaluate_knn(projection(run), run.data, device=run.device).top1


def linear_probe(run: Run) -> float:
    """Return the accuracy of a linear classifier on the features."""
    network = exported(run)
    return evaluate_linear(network, run.data, epochs=LINEAR_EPOCHS, device=run.device).top1


def exported(run: Run) -> ExportedBackbone:
    """Return the network that the run exported: images in [0, 1] -> features."""
    return export(run.method, run.card).to(run.device)


@cache
def finetuned(run: Run, labels: str, start: str = "head.0", save: Path | None = None) -> float:
    """Fine-tune the whole network on some of the labels; return its accuracy on the test split.

    Papers' own settings are for thousands of labelled images and large batches. Here every
    share of the labels gets the same number of steps (:func:`few_labels`), with crops that
    show most of an image (:func:`crops`).

    Args:
        run: a finished run. Its files are read; it is not changed.
        labels: a share, such as ``"1%"``.
        start: ``"head.N"``: the classifier is put on the projection head's first N layers.
        save: where to write the classifier.
    """
    network = load_backbone(run.path)
    head, width = starting_network(run.path, network, start)
    seed, reference = run.settings.seed, labelled_splits(run.data)[0]
    return finetune(
        network,
        head,
        width,
        run.data,
        few_labels(len(labelled_subset(reference.labels, labels, seed))),
        labels=labels,
        start=start,
        seed=seed,
        device=run.device,
        save=save,
        augment=crops(network.card),
    ).top1


def few_labels(count: int) -> FineTuning:
    """Return how studies fine-tune on ``count`` images: with about 200 steps, however few."""
    return FineTuning(
        "coview's own, for studies",
        lr=0.2,
        epochs=max(1, round(STEPS / max(1, count // BATCH))),
        batch_size=BATCH,
        nesterov=True,
        init_std=0.0,
    )


def crops(card: WeightCard) -> Callable[[Tensor, int], Tensor]:
    """Return crops of 30 to 100 % without flips: a digit cut to pieces, or mirrored, is none."""
    plain = Normalize((0.0,) * card.channels, (1.0,) * card.channels, active=False)
    chosen = Augmentation(order=("crop",), crop_scale=(0.3, 1.0))
    return chosen.chain(card.size, card.channels, plain)


def rank(run: Run) -> float:
    """Return the effective rank of the test images' projections: about 1 if they collapsed."""
    return float(effective_rank(projections(run)))


def spread(run: Run) -> float:
    """Return the spread of the test images' projections: 1 for random directions, 0 if all equal.

    It is the deviation of arXiv:2011.10566, section 4.1, times the square root of the width.
    """
    return float(deviation(projections(run)))


@cache
def projections(run: Run) -> Tensor:
    """Return the online network's projections (N, d) of the test images, in evaluation mode."""
    return features(projection(run), labelled_splits(run.data)[1], device=run.device)


def projection(run: Run) -> nn.Module:
    """Return the online network and its head: images in [0, 1] -> projections."""
    return Projection(run.method.encoder, run.method.components["views"]).to(run.device)


class Projection(nn.Module):
    """Images in [0, 1] to the online network's projections; those of several views side by side.

    Args:
        encoder: (B, C, h, w) by view -> (B, d) by view.
        views: their ``evaluation_views`` make the encoder's input.
    """

    def __init__(self, encoder: Encoder, views: nn.Module) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, V x d)."""
        views = self.views.evaluation_views(images)  # type: ignore[operator]
        _, projections = self.encoder.project(views, views.queries)
        return torch.cat(list(projections.values()), dim=1)
