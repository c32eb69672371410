"""kNN accuracy before, during and after training, and the export at the end.

The first process evaluates; the others wait for it as long as it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import wraps

import torch
from torch import Tensor

from coview.data.loader import images_in_order
from coview.distributed import active, is_first, largest, meet
from coview.evaluation.baselines import RawPixels, calibrated
from coview.evaluation.knn import evaluate_knn
from coview.training.interrupts import Interrupted
from coview.training.run import Run
from coview.weights.exported import ExportedBackbone, export, save_backbone

CALIBRATION_IMAGES = 2048


def by_first(function: Callable[[Run], None]) -> Callable[[Run], None]:
    """Let only the first process call ``function`` while the others wait.

    A signal stops it at once, and then the run on all processes.
    """

    @wraps(function)
    def call(run: Run) -> None:
        meet()
        if is_first():
            told_to_all = suppress(Interrupted) if active() else nullcontext()
            with told_to_all, run.interrupts.let_through():
                function(run)
        number = largest(run.interrupts.received)
        if number:
            raise Interrupted(number)

    return call


def _exported(run: Run) -> ExportedBackbone:
    return export(run.method, run.card).to(run.device)


@by_first
def measure_baselines(run: Run) -> None:
    """Log the kNN accuracy of raw pixels and of the untrained network, if there are labels."""
    if not run.data.labelled:
        return
    device = run.device
    if run.data.train.resident is not None:
        shape = (-1, 1, 1)
        mean = torch.tensor(run.data.mean, device=device).view(shape)
        std = torch.tensor(run.data.std, device=device).view(shape)
        run.log(
            raw_pixels_knn_top1=evaluate_knn(RawPixels(mean, std), run.data, device=device).top1
        )
    run.log(untrained_knn_top1=evaluate_knn(untrained(run), run.data, device=device).top1)


def untrained(run: Run) -> ExportedBackbone:
    """Return a copy of the network as it is, its batch norms with the images' statistics."""
    return calibrated(_exported(run), _some_images(run))


def _some_images(run: Run) -> Iterator[Tensor]:
    seen = 0
    batch_size = 256
    for images in images_in_order(run.data.train, batch_size, run.device, 0):
        yield images
        seen += len(images)
        if seen >= CALIBRATION_IMAGES:
            return


@by_first
def measure_online(run: Run) -> None:
    """Log the kNN accuracy in the middle of training, if there are labels."""
    if run.data.labelled:
        result = evaluate_knn(_exported(run), run.data, device=run.device)
        run.log(online_knn_top1=result.top1)


@by_first
def finish(run: Run) -> None:
    """Export the backbone and evaluate it."""
    exported = _exported(run)
    save_backbone(exported, run.path / "backbone.safetensors")
    if run.settings.evaluate and run.data.labelled:
        result = evaluate_knn(exported, run.data, device=run.device)
        run.log(knn=result.as_dict(), knn_top1=result.top1, knn_top5=result.top5)
