"""One feature vector per image, in the data set's order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coview.data.base import Split
from coview.data.loader import images_in_order
from coview.errors import CoviewError
from coview.telling import progress
from coview.views import unit_interval

TRAINING, TEST = "training images", "test images"
"""What a split's images are called, where it is told how far the work is."""


def state_hash(module: nn.Module) -> str:
    """Return a hash of all parameters and buffers, batch-norm statistics included."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict(keep_vars=True).items():
        values = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        # Not every dtype has a NumPy equivalent, but bytes always do.
        hasher.update(values.flatten().view(torch.uint8).numpy().data if values.numel() else b"")
    return hasher.hexdigest()


@contextmanager
def unmoved(network: Any) -> Iterator[None]:
    """Raise an error if the code inside changes a network; does nothing for other callables.

    Raises:
        CoviewError: a parameter or a buffer is different afterwards.
    """
    if not isinstance(network, nn.Module):
        yield
        return
    before = state_hash(network)
    yield
    if state_hash(network) != before:
        raise CoviewError(
            "The backbone's parameters or batch-norm statistics changed while its features were "
            "computed, so the result would not be that of the given weights."
        )


def features(
    network: Callable[[Tensor], Tensor],
    split: Split,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    whole: bool = False,
    what: str = "images",
) -> Tensor:
    """Return features (N, D) float32 on the CPU.

    Unreadable images have none; afterwards, ``split.kept(labels)`` are the labels
    of the others.

    Args:
        network: (B, C, H, W) float in [0, 1] -> (B, D); it is in evaluation mode
            while it is used, then as it was.
        split: the images.
        whole: return a row of NaN for an unreadable image.
        what: the images, in words, where it is told how far the work is.

    Raises:
        CoviewError: features are not finite (the message says of how many images),
            or the network's parameters or statistics changed.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "whole": whole}
    return torch.cat(list(feature_batches(network, split, device=device, what=what, **options)))


def feature_batches(
    network: Callable[[Tensor], Tensor],
    split: Split,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 0,
    whole: bool = False,
    what: str = "images",
) -> Iterator[Tensor]:
    """Yield features (up to batch_size, D) float32 on the CPU; see :func:`features`.

    Errors are raised after the last batch, when all problems are known.
    """
    module = network if isinstance(network, nn.Module) else None
    was_training = module.training if module else False
    bad = seen = 0
    with unmoved(network):
        if module:
            module.eval()
        try:
            for images in images_in_order(split, batch_size, device, workers):
                with torch.no_grad():
                    rows = network(unit_interval(images)).float().cpu()
                missing = [row - seen for row in split.bad.faults if 0 <= row - seen < len(rows)]
                seen += len(rows)
                progress(f"{what} embedded", seen, len(split))
                readable = torch.ones(len(rows), dtype=torch.bool)
                readable[missing] = False
                bad += int((~rows[readable].isfinite()).any(dim=1).sum())
                rows[~readable] = torch.nan
                yield rows if whole else rows[readable]
        finally:
            if module:
                module.train(was_training)
    if bad:
        raise CoviewError(
            f"{bad} of {len(split)} images have features that are not finite (NaN or infinite): "
            "the weights are damaged, or training diverged."
        )
