"""Small parts of methods and networks that several tests are about."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from coview.hookspecs import hookimpl
from coview.method.module import Method
from coview.method.neutral import NoNegatives, Shared
from coview.method.relay import BuiltComponent
from coview.nn.backbones import find_backbone
from coview.plan import Layout, Plan
from coview.recipes.tables import BackboneSettings
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.weights.exported import ExportedBackbone

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PAIRS = ((0, 1), (1, 0))


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


class TwoViews(nn.Module):
    """The images, and the images with noise of a size."""

    layout = Layout(((4, 4),) * 2, (1, 1), (0, 1), (0, 1), PAIRS)

    def __init__(self, noise: float = 1.0) -> None:
        super().__init__()
        self._noise = noise

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return both views."""
        images = batch.images.float() / 255
        return Views((images, images + self._noise), (0, 1), (0, 1), PAIRS)


class Distance(nn.Module):
    """Mean squared distance times a factor, which it logs."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self._factor = factor

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Return the mean over pairs."""
        terms = [(encoded.queries[q] - targets.keys[k]).square().mean() for q, k in encoded.pairs]
        return self._factor * torch.stack(terms).mean()


def part(role: str, module: nn.Module, name: str = "", weight: Any = 1.0) -> BuiltComponent:
    """Return a component of package coview-a."""
    return BuiltComponent(name or role, module, (role,), name or f"my-{role}", "coview-a", weight)


def a_method(*extra: BuiltComponent, **replaced: nn.Module) -> Method:
    """Return a method of small parts, some of them added or replaced."""
    torch.manual_seed(0)
    modules = {
        "views": TwoViews(),
        "encoder": Flat(),
        "target": Shared(Shared.Settings(), Plan()),
        "negatives": NoNegatives(NoNegatives.Settings(), Plan()),
        "loss": Distance(),
    }
    taken = {role for component in extra for role in component.roles}
    kept = {role: m for role, m in {**modules, **replaced}.items() if role not in taken}
    return Method([*(part(role, module) for role, module in kept.items()), *extra])


def a_batch() -> Batch:
    """Return four images of 4 x 4 grey pixels."""
    images = torch.arange(4 * 16, dtype=torch.uint8).view(4, 1, 4, 4)
    return Batch(images, torch.arange(4))


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
