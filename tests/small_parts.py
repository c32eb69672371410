"""Small networks that several tests are about: an encoder of one layer, and exported backbones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coview.hookspecs import hookimpl
from coview.nn.backbones import find_backbone
from coview.recipes.tables import BackboneSettings
from coview.records import Batch, Encoded, Views
from coview.weights.exported import ExportedBackbone

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Flat(nn.Module):
    """An encoder of one linear layer, for images of 4 x 4 grey pixels."""

    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Return the layer's output, by view."""
        z = {v: self.layer(views.crops[v].flatten(1)) for v in views.queries}
        return Encoded(z, z, dict.fromkeys(z, batch.indices), views.pairs, z)

    def project(self) -> None:
        """Encoders have one."""


def exported(name: str, size: int = 32, channels: int = 3, **settings: Any) -> ExportedBackbone:
    """Return a backbone with random weights and statistics, as a run exports it."""
    torch.manual_seed(0)
    chosen = BackboneSettings(**settings)
    network = find_backbone(name)[0](channels, size, chosen)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    card = {
        "backbone": name,
        "method": "simclr",
        "settings": {"stem": chosen.stem, "patch": chosen.patch},
        "image_size": size,
        "size": size,
        "channels": channels,
        "mean": MEAN[:channels],
        "std": STD[:channels],
    }
    return ExportedBackbone(network, card).eval()
