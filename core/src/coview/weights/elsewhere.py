"""The lines of Python that load an exported file: in timm, in torchvision, or else in coview."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import timm
import torchvision
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from coview.nn.backbones import find_backbone
from coview.weights.card import WeightCard
from coview.weights.exported import ExportedBackbone


@attrs.frozen
class Loading:
    """How to load a file.

    Attributes:
        note: a sentence to read first: the file does not load where one would expect; or None.
        lines: Python that leaves the network, in evaluation mode, in a variable ``net``.
    """

    note: str | None
    lines: tuple[str, ...]


def loading(exported: ExportedBackbone, path: Path, format: str, keys: str) -> Loading:
    """Return how to load what :func:`coview.weights.convert.ship` wrote.

    Args:
        exported: the backbone that was written.
        path: the file.
        format, keys: as they were given to ``ship``.
    """
    file, card = repr(str(path)), exported.card
    if format == "torch-export":
        return Loading(None, ("import torch", f"net = torch.export.load({file}).module()"))
    if format == "onnx":
        return Loading(None, ("import onnxruntime", f"net = onnxruntime.InferenceSession({file})"))
    if not in_stock(card):
        return _in_coview(card, file)
    note = _about_the_stem(exported)
    made = _in_torchvision(exported) if keys == "torchvision" else _in_timm(exported)
    if made is None:
        made = _in_timm(exported)
        missing = f"torchvision has no network called {card.backbone}; timm has, and loads this."
        note = f"{note} {missing}" if note else missing
    return Loading(note, (*made, f"net.load_state_dict(load_file({file}))", "net.eval()"))


def in_stock(card: WeightCard) -> bool:
    """Whether timm or torchvision has a backbone's network."""
    if card.given or card.parts is not None:
        return False
    return timm.is_model(card.backbone) and find_backbone(card.backbone)[1].from_catalogue


def _in_coview(card: WeightCard, file: str) -> Loading:
    if not card.given:
        note = (
            f"{card.backbone} is not a network of timm or torchvision: coview loads it. For "
            "weights that load there, train with --backbone resnet18, for example."
        )
        if card.parts is not None:
            note = f"This network needs the views of {card.method}: coview loads it."
        return Loading(note, ("import coview", f"net = coview.load_backbone({file})"))
    given = repr(card.code) if card.code else f"{card.backbone}()"
    what = f"made by {card.code}" if card.code else f"a {card.backbone}"
    note = f"This network is your own ({what}): pass one like it."
    lines = ("import coview", f"net = coview.load_backbone({file}, backbone={given})")
    return Loading(note, lines)


def _small_stem(exported: ExportedBackbone) -> bool:
    return exported.card.settings.get("stem") == "3x3" and isinstance(exported.backbone, ResNet)


def _about_the_stem(exported: ExportedBackbone) -> str | None:
    if not _small_stem(exported):
        return None
    return (
        f"These weights do not load into a stock {exported.card.backbone}: their first layer is "
        "the one for small images (3x3, stride 1, no pooling). This loads them:"
    )


def _call(function: str, *arguments: str, **options: Any) -> str:
    given = [*arguments, *(f"{name}={value!r}" for name, value in options.items())]
    return f"net = {function}({', '.join(given)})"


def _imports(*modules: str) -> tuple[str, ...]:
    return (f"import {', '.join(modules)}", "from safetensors.torch import load_file")


def _in_timm(exported: ExportedBackbone) -> Sequence[str]:
    card, network = exported.card, exported.backbone
    options: dict[str, Any] = {"num_classes": 0}
    if card.channels != 3:
        options["in_chans"] = card.channels
    if isinstance(network, VisionTransformer):
        patch: Any = network.patch_embed
        options |= {"img_size": patch.img_size[0], "patch_size": patch.patch_size[0]}
    small = _small_stem(exported)
    made = _call("timm.create_model", repr(card.backbone), **options)
    return [*_imports("timm", *(["torch"] if small else [])), made, *_stem(exported)]


def _in_torchvision(exported: ExportedBackbone) -> Sequence[str] | None:
    """Return the lines that make torchvision's network; None: it has none of that name."""
    card, network = exported.card, exported.backbone
    imports = _imports("torch", "torchvision")
    if isinstance(network, VisionTransformer):
        block: Any = network.blocks[0]
        patch: Any = network.patch_embed
        made = _call(
            "torchvision.models.VisionTransformer",
            image_size=patch.img_size[0],
            patch_size=patch.patch_size[0],
            num_layers=len(network.blocks),
            num_heads=block.attn.num_heads,
            hidden_dim=network.embed_dim,
            mlp_dim=block.mlp.fc1.out_features,
        )
        other = [] if card.channels == 3 else [f"net.conv_proj = {_convolution(patch.proj)}"]
        return [*imports, made, *other, "net.heads = torch.nn.Identity()"]
    if card.backbone not in torchvision.models.list_models(torchvision.models):
        return None
    made = _call(f"torchvision.models.{card.backbone}")
    first: Any = network.conv1
    other = [f"net.conv1 = {_convolution(first)}"] if card.channels != 3 else []
    stem = _stem(exported) or other
    return [*imports, made, "net.fc = torch.nn.Identity()", *stem]


def _stem(exported: ExportedBackbone) -> list[str]:
    if not _small_stem(exported):
        return []
    first: Any = exported.backbone.conv1
    return [f"net.conv1, net.maxpool = {_convolution(first)}, torch.nn.Identity()"]


def _convolution(layer: nn.Conv2d) -> str:
    values = (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0])
    bias = "" if layer.bias is not None else ", bias=False"
    padding = f", {layer.padding[0]}" if layer.padding[0] else ""
    return f"torch.nn.Conv2d({', '.join(map(str, values))}{padding}{bias})"
