"""Open any weights: a run, a file of coview or another program, ``timm:NAME``, ``PLACE:NAME``."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import timm
import torch
from timm.data import resolve_model_data_config  # type: ignore[attr-defined]
from torch import nn

from coview.data.base import IMAGENET_MEAN, IMAGENET_STD
from coview.errors import CoviewError, RequestError, nearest
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.weights.card import WeightCard
from coview.weights.exported import (
    ExportedBackbone,
    Given,
    attention_heads,
    is_foreign,
    load_backbone,
)
from coview.weights.foreign import load_into, match, read_tensors
from coview.weights.places import local

TIMM = "timm:"
CHANNELS = 3


@attrs.frozen(eq=False)
class Weights:
    """A backbone and the origin of its weights.

    Attributes:
        network: the backbone, in evaluation mode.
        origin: for weights that coview did not train: ``"pretrained"``, ``"random,
            seed 0"`` or a file's layout; else None.
        notes: sentences that the user should read.
        imported: those of the notes that say what a run's directory had imported.
    """

    network: ExportedBackbone
    origin: str | None = None
    notes: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()


def open_weights(
    weights: str | Path, *, backbone: Given = None, pretrained: bool = False, seed: int = 0
) -> Weights:
    """Load the backbone that ``weights`` names.

    Args:
        weights: a run's directory, a file that coview or another program wrote,
            ``PLACE:NAME`` for weights that a plugin fetches (:mod:`coview.weights.places`),
            or ``timm:NAME``, which comes with the size, mean and standard deviation
            of timm's data configuration.
        backbone: for another program's file: its architecture, a registered or timm
            name; for a network of the user's own: a module, or what makes one
            (:func:`coview.weights.exported.load_backbone`).
        pretrained: for ``timm:NAME``: load timm's published weights, downloading them
            if need be; otherwise weights are random.
        seed: seed for random weights.

    Raises:
        RequestError: there are no such weights, or an option does not apply to them.
        CoviewError: a file is damaged, or weights cannot be downloaded.
    """
    name = str(weights)
    of_timm = name.startswith(TIMM)
    if pretrained and not of_timm:
        raise RequestError(f"--pretrained is only for timm:NAME; {name} has its own weights.")
    if of_timm:
        if backbone is not None:
            raise RequestError(f"{name} already names its network: leave out --backbone.")
        return _of_timm(name.removeprefix(TIMM), pretrained, seed)
    path = local(weights)
    if is_foreign(path) and not isinstance(backbone, nn.Module):
        return _of_another(path, backbone)
    notes: list[str] = []
    network = load_backbone(path, backbone, notes.append)
    return Weights(network, notes=tuple(notes), imported=tuple(notes))


def _of_timm(name: str, pretrained: bool, seed: int) -> Weights:
    known = timm.list_models()
    if not timm.is_model(name):
        raise RequestError(f"timm has no model called {name!r}.{nearest(name, known)}")
    try:
        with torch.random.fork_rng(devices=()), _quiet_hub():
            torch.manual_seed(seed)
            network = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except RuntimeError as error:  # an unknown tag, or no published weights at all
        raise RequestError(f"timm:{name}: {error}") from error
    except Exception as error:
        if not pretrained:
            raise
        raise CoviewError(
            f"The pretrained weights of timm:{name} are not on this machine and cannot be "
            f"downloaded ({type(error).__name__}). If you have them as a file, use: "
            f"FILE --backbone {name}"
        ) from error
    exported = _exported(network, name)
    if pretrained:
        return Weights(exported, "pretrained")
    note = (
        f"timm:{name} has RANDOM weights (seed {seed}): nothing was learned. To load timm's "
        "published weights, add: --pretrained"
    )
    return Weights(exported, f"random, seed {seed}", (note,))


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the library that downloads from a line on each of its retries."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _of_another(path: Path, backbone: str | None) -> Weights:
    if backbone is None:
        raise RequestError(
            f"{path} was not written by coview and does not name its network. Add its "
            "architecture, for example: --backbone resnet50"
        )
    # Built at the size of its data configuration, which a transformer's positions must fit.
    factory, entry = find_backbone(backbone)
    size = 224
    if entry.from_catalogue:
        size = _size(timm.create_model(backbone, num_classes=0))
    network = factory(CHANNELS, size, BackboneSettings())
    matched = match(read_tensors(path), network, path)
    load_into(network, matched)
    return Weights(_exported(network, backbone), matched.program, (matched.report(path),))


def _size(network: nn.Module) -> int:
    return int(_config(network)["input_size"][-1])


def _config(network: nn.Module) -> dict[str, Any]:
    config: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    return config


def _exported(network: nn.Module, name: str) -> ExportedBackbone:
    """Return a network with the preprocessing of its data configuration."""
    config: dict[str, Any] = {
        "input_size": (CHANNELS, 224, 224),
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "crop_pct": 0.875,
    }
    if hasattr(network, "pretrained_cfg"):
        config = _config(network)
    channels, size = config["input_size"][0], config["input_size"][-1]
    card = WeightCard(
        method=f"{TIMM}{name}",
        backbone=name,
        settings=attrs.asdict(BackboneSettings()),
        channels=channels,
        # The loader delivers this size; the network sees the centre.
        image_size=math.floor(size / config["crop_pct"]),
        size=size,
        mean=config["mean"],
        std=config["std"],
        heads=attention_heads(network),
        published={},
        reading={},
    )
    return ExportedBackbone(network, card).eval()
