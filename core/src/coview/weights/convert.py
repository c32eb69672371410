"""Weights for other programs: with timm's or torchvision's names, as ONNX or torch.export.

Every file is read back and compared before it counts as written.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.weights.exported import ExportedBackbone

FORMATS = ("safetensors", "onnx", "torch-export")
KEYS = ("timm", "torchvision")
TOLERANCE = 1e-5

_VIT = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.encoder_layer_\1.ln_\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (r"^blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
    (r"^blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
)


def renamed(backbone: nn.Module, keys: str) -> dict[str, Tensor]:
    """Return a backbone's tensors under timm's or torchvision's names.

    Raises:
        RequestError: torchvision has no names for such a network.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}
    # timm's ResNets carry torchvision's names.
    if keys == "timm" or isinstance(backbone, ResNet):
        return tensors
    if not isinstance(backbone, VisionTransformer):
        raise RequestError(
            f"torchvision has no names for the tensors of a {type(backbone).__name__}. "
            "Use --keys timm."
        )
    named = {}
    for key, tensor in tensors.items():
        for pattern, name in _VIT:
            key, found = re.subn(pattern, name, key)
            if found:
                break
        else:
            raise RequestError(
                f"torchvision's vision transformers have no tensor for {key}. Use --keys timm."
            )
        named[key] = tensor
    return named


def ship(exported: ExportedBackbone, path: Path, format: str, keys: str) -> float:
    """Write a backbone; return the largest difference of its features when read back.

    This network and the file are compared on random images: the tensors for
    safetensors, else the whole program, which takes images in [0, 1] and
    standardises them itself.

    Raises:
        RequestError: the format or the names do not suit the network, or a library is missing.
        CoviewError: the file gives different features.
    """
    writers: dict[str, Callable[[ExportedBackbone, Path, Tensor], Tensor]] = {
        "safetensors": lambda e, p, images: _safetensors(e, p, images, keys),
        "onnx": _onnx,
        "torch-export": _torch_export,
    }
    exported = exported.cpu().eval()
    size, channels = exported.card.size, exported.card.channels
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = exported(images)
    with replacing(path) as temporary:
        got = writers[format](exported, temporary, images)
        difference = float((got - expected).abs().max() / expected.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:
            raise CoviewError(
                f"{path} was not written: when read back, its features differ by {difference:.1e}, "
                f"more than {TOLERANCE:.0e}."
            )
    return difference


def _safetensors(exported: ExportedBackbone, path: Path, images: Tensor, keys: str) -> Tensor:
    tensors = renamed(exported.backbone, keys)
    same = set(tensors) == set(exported.backbone.state_dict())
    about = {"coview" if same else "coview-export": json.dumps(exported.meta)}
    save_file(tensors, path, metadata={**about, "format": "pt"})
    return _plainly(exported, load_file(path), keys, same)(images)


def _plainly(
    exported: ExportedBackbone, tensors: dict[str, Tensor], keys: str, same: bool
) -> Callable[[Tensor], Tensor]:
    """Return the named library's network with these tensors, loaded strictly."""
    import copy

    fresh = copy.deepcopy(exported)
    if same:
        for tensor in fresh.backbone.state_dict().values():
            tensor.zero_()  # so that the original is not compared with itself
        fresh.backbone.load_state_dict(tensors)
        return _without_gradient(fresh)
    fresh.backbone = _torchvision_vit(exported.backbone)
    fresh.backbone.load_state_dict(tensors)
    return _without_gradient(fresh.eval())


def _torchvision_vit(backbone: nn.Module) -> nn.Module:
    assert isinstance(backbone, VisionTransformer)
    block: Any = backbone.blocks[0]
    patch: Any = backbone.patch_embed
    network: Any = torchvision.models.VisionTransformer(
        image_size=patch.img_size[0],
        patch_size=patch.patch_size[0],
        num_layers=len(backbone.blocks),
        num_heads=block.attn.num_heads,
        hidden_dim=backbone.embed_dim,
        mlp_dim=block.mlp.fc1.out_features,
    )
    network.heads = nn.Identity()
    if patch.proj.in_channels != 3:
        network.conv_proj = nn.Conv2d(
            patch.proj.in_channels, backbone.embed_dim, patch.patch_size, patch.patch_size
        )
    made: nn.Module = network
    return made


def _without_gradient(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(images: Tensor) -> Tensor:
        with torch.no_grad():
            return network(images)

    return call


def _torch_export(exported: ExportedBackbone, path: Path, images: Tensor) -> Tensor:
    program = _program(exported, images)
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    features: Tensor = module(images)
    return features.detach()


def _program(exported: ExportedBackbone, images: Tensor) -> Any:
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        return torch.export.export(exported, (images,), dynamic_shapes={"images": {0: batch}})


def _onnx(exported: ExportedBackbone, path: Path, images: Tensor) -> Tensor:
    try:
        import onnxruntime  # type: ignore[import-not-found, import-untyped, unused-ignore]
        import onnxscript  # noqa: F401
    except ImportError as error:
        needed = "pip install onnx onnxruntime onnxscript"
        raise RequestError(f"--format onnx needs: {needed}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            exported,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # Not the number of images it was traced with: the batch size must not be fixed.
    parts = [session.run(None, {"images": part.numpy()})[0] for part in images.split(1)]
    return torch.from_numpy(np.concatenate(parts))
