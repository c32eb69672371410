"""A backbone with the preprocessing it was trained with: what is exported and evaluated."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from coview.backbones import BackboneSettings, find_backbone, is_convolutional
from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.settings import structure

if TYPE_CHECKING:
    from coview.method import Method


class ExportedBackbone(nn.Module):
    """Images in [0, 1] to features, preprocessing included.

    Attributes:
        backbone: (B, C, size, size) normalised -> (B, D).
        meta: what is needed to build it again: backbone and its settings,
            channels, image_size, size, mean, std, method.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, meta: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.meta = meta
        self.register_buffer("mean", torch.tensor(meta["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(meta["std"]).view(-1, 1, 1), persistent=False)
        self.channels_last = is_convolutional(backbone)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, D); the centre of larger images is taken."""
        size = self.meta["size"]
        if images.shape[-2:] != (size, size):
            images = center_crop(images, [size, size])
        images = (images - self.mean) / self.std
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(images)
        return features

    @property
    def width(self) -> int:
        """D, the number of features."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]


def export(method: Method, meta: dict[str, Any]) -> ExportedBackbone:
    """Return the method's backbone (shared, not copied) with its preprocessing.

    Args:
        method: a built method.
        meta: backbone, settings, channels and image_size of the run.
    """
    views = method.components["views"]
    mean, std = getattr(
        views, "normalization", ((0.0,) * meta["channels"], (1.0,) * meta["channels"])
    )
    size = max(max(size) for size in views.layout.sizes)  # type: ignore[union-attr]
    return ExportedBackbone(
        method.backbone(), {**meta, "mean": list(mean), "std": list(std), "size": size}
    )


def save_backbone(exported: ExportedBackbone, path: Path) -> None:
    """Write weights and meta as safetensors, atomically."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in exported.backbone.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"coview": json.dumps(exported.meta)})


def load_backbone(path: str | Path, backbone: nn.Module | None = None) -> ExportedBackbone:
    """Load the exported backbone of a run, or a file of one.

    Args:
        path: a run's directory or a ``.safetensors`` file that coview wrote.
        backbone: the module to load into, when the run was given one that no
            name stands for.

    Returns:
        A module in evaluation mode: (B, C, H, W) float in [0, 1] -> (B, D).

    Raises:
        RequestError: there is no such file, or it is not one of coview's.
    """
    file = Path(path)
    file = file / "backbone.safetensors" if file.is_dir() else file
    if not file.is_file():
        raise RequestError(f"There is no exported backbone at {file}.")
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get("coview")
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CoviewError(f"{file} is not a whole safetensors file: {error}") from error
    if text is None:
        raise RequestError(f"{file} holds weights, but not from coview: it names no backbone.")
    meta = json.loads(text)
    module = copy.deepcopy(backbone) if backbone is not None else _build(meta)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CoviewError(f"{file} does not fit backbone {meta['backbone']!r}: {error}") from error
    return ExportedBackbone(module, meta).eval()


def _build(meta: dict[str, Any]) -> nn.Module:
    if meta.get("given"):
        raise RequestError(
            f"This run's backbone was a Python object ({meta['backbone']}); pass one like it: "
            "load_backbone(path, backbone=...)."
        )
    settings, problems = structure(BackboneSettings, meta["settings"], "backbone")
    if problems:
        raise CoviewError("; ".join(problems))
    factory, _ = find_backbone(meta["backbone"])
    return factory(meta["channels"], meta["size"], settings)


@torch.no_grad()
def calibrated(exported: ExportedBackbone, batches: Iterable[Tensor]) -> ExportedBackbone:
    """Return a copy whose batch norms have the statistics of these images.

    A network before training has none (mean 0, variance 1), which would make
    it a worse baseline than it is. Images are (B, C, H, W) uint8.
    """
    network = copy.deepcopy(exported).eval()
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    for images in batches:
        network(images.float() / 255)
    return network.eval()


@attrs.frozen
class RawPixels:
    """The baseline without a network: the pixels themselves, flattened."""

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, C x H x W), each channel standardised."""
        return ((images - self.mean) / self.std).flatten(1)
