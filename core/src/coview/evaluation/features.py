"""One feature vector an image, in data set order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from coview.data.base import Split
from coview.data.loader import images_in_order
from coview.errors import CoviewError


@torch.no_grad()
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
        CoviewError: a feature is not finite; the sentence says how many.
    """
    module = network if isinstance(network, nn.Module) else None
    was_training = module.training if module else False
    if module:
        module.eval()
    try:
        rows = [
            network(images.float() / 255).float().cpu()
            for images in images_in_order(split, batch_size, device, workers)
        ]
    finally:
        if module:
            module.train(was_training)
    joined = torch.cat(rows)
    bad = int((~joined.isfinite()).any(dim=1).sum())
    if bad:
        raise CoviewError(
            f"{bad} of {len(joined)} images have features that are not finite (NaN or infinite): "
            "the weights are damaged or the training diverged."
        )
    return joined
