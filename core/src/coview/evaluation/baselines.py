"""Baselines for a trained network: the network before training, and raw pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import attrs
import torch
from torch import Tensor, nn

from coview.nn.sync_norm import localise
from coview.views import unit_interval
from coview.weights.exported import ExportedBackbone


@torch.no_grad()
def calibrated(exported: ExportedBackbone, batches: Iterable[Tensor]) -> ExportedBackbone:
    """Return a copy whose batch norms have the statistics of these images.

    Before training, a network has only initial ones (mean 0, variance 1), which
    would make it too weak a baseline. Images are (B, C, H, W) uint8.
    """
    network = copy.deepcopy(exported).eval()
    localise(network)  # one process may evaluate while the others wait
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    for images in batches:
        network(unit_interval(images))
    return network.eval()


@attrs.frozen
class RawPixels:
    """The baseline without a network: the pixels themselves, flattened."""

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, C x H x W), each channel standardised."""
        return ((images - self.mean) / self.std).flatten(1)
