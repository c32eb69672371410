"""One feature vector an image, in data set order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from coview.data.base import Split
from coview.data.loader import images_in_order
from coview.errors import CoviewError
from coview.evaluation.frozen import unmoved
from coview.views import unit_interval


def features(
    network: Callable[[Tensor], Tensor],
    split: Split,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Tensor:
    """Return features (N, D) float32 on the CPU.

    Args:
        network: (B, C, H, W) float in [0, 1] -> (B, D); put in evaluation mode
            while it is used, then left as it was.
        split: the images.

    Raises:
        CoviewError: a feature is not finite; the sentence says how many. Or the
            network's parameters or statistics moved.
    """
    batches = feature_batches(network, split, batch_size=batch_size, device=device, workers=workers)
    return torch.cat(list(batches))


def feature_batches(
    network: Callable[[Tensor], Tensor],
    split: Split,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Iterator[Tensor]:
    """Yield features (up to batch_size, D) float32 on the CPU; see :func:`features`.

    Problems are raised after the last batch, when all of them are known.
    """
    module = network if isinstance(network, nn.Module) else None
    was_training = module.training if module else False
    bad = 0
    with unmoved(network):
        if module:
            module.eval()
        try:
            for images in images_in_order(split, batch_size, device, workers):
                with torch.no_grad():
                    rows = network(unit_interval(images)).float().cpu()
                bad += int((~rows.isfinite()).any(dim=1).sum())
                yield rows
        finally:
            if module:
                module.train(was_training)
    if bad:
        raise CoviewError(
            f"{bad} of {len(split)} images have features that are not finite (NaN or infinite): "
            "the weights are damaged or the training diverged."
        )
