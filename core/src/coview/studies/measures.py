"""What studies measure on a finished run, beside what it logs: functions that quantities name.

Each takes the :class:`coview.training.run.Run` and returns a number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.optim.protocols import FineTuning

if TYPE_CHECKING:
    from torch import Tensor

    from coview.training.run import Run
    from coview.weights.card import WeightCard

STEPS, BATCH = 200, 64
"""Of fine-tuning, with however few labels."""


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
    from coview.data.splits import labelled_subset
    from coview.evaluation.finetune import finetune, starting_network
    from coview.evaluation.knn import labelled_splits
    from coview.weights.exported import load_backbone

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
    from coview.views.augmentation import Augmentation, Normalize

    plain = Normalize((0.0,) * card.channels, (1.0,) * card.channels, active=False)
    chosen = Augmentation(order=("crop",), crop_scale=(0.3, 1.0))
    return chosen.chain(card.size, card.channels, plain)


def rank(run: Run) -> float:
    """Return the effective rank of the test images' projections: about 1 if they collapsed."""
    from coview.training.observers.collapse_measures import effective_rank

    return float(effective_rank(projections(run)))


def spread(run: Run) -> float:
    """Return the spread of the test images' projections: 1 for random directions, 0 if all equal.

    It is the deviation of arXiv:2011.10566, section 4.1, times the square root of the width.
    """
    from coview.training.observers.collapse_measures import deviation

    return float(deviation(projections(run)))


@cache
def projections(run: Run) -> Tensor:
    """Return the online network's projections (N, d) of the test images, in evaluation mode."""
    import torch

    from coview.evaluation.features import features
    from coview.evaluation.knn import labelled_splits
    from coview.weights.exported import export

    encoder: Any = run.method.components["encoder"]
    training = encoder.training
    network = export(run.method, run.card).to(run.device)
    network.backbone = encoder.backbone()
    rows = features(network, labelled_splits(run.data)[1], device=run.device)
    with torch.no_grad():
        found: Tensor = encoder.eval().projector(rows.to(run.device)).float().cpu()
    encoder.train(training)
    return found
