"""Exported weights in the libraries that they are for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from small_parts import MEAN, STD, exported
from torch import nn

from coview.errors import CoviewError, RequestError
from coview.weights import convert as shipping
from coview.weights.convert import ship
from coview.weights.exported import ExportedBackbone, load_backbone

HAS_ONNX = importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript")


def images(size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1))


def plainly(network: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """Standardise by hand."""
    shape = (-1, 1, 1)
    with torch.no_grad():
        return network.eval()(
            (pictures - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)
        )


def same(own: ExportedBackbone, features: torch.Tensor, pictures: torch.Tensor) -> None:
    with torch.no_grad():
        expected = own(pictures)
    assert expected.std() > 1e-3
    assert torch.allclose(features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_resnet"])
def test_safetensors_in_plain_timm(tmp_path: Path, name: str) -> None:
    size = 64 if name == "test_vit" else 32
    own, path = exported(name, size), tmp_path / "a.safetensors"
    assert ship(own, path, "safetensors", "timm") <= 1e-5
    options = {"img_size": size} if name == "test_vit" else {}
    network = timm.create_model(name, num_classes=0, **options)
    network.load_state_dict(load_file(path), strict=True)
    same(own, plainly(network, images(size)), images(size))
    again = load_backbone(path)
    same(own, again(images(size)).detach(), images(size))


def test_safetensors_in_plain_torchvision(tmp_path: Path) -> None:
    own, path = exported("resnet18"), tmp_path / "a.safetensors"
    ship(own, path, "safetensors", "torchvision")
    network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    network.load_state_dict(load_file(path), strict=True)
    same(own, plainly(network, images()), images())


def test_a_vision_transformer_in_plain_torchvision(tmp_path: Path) -> None:
    own, path = exported("vit_tiny_patch16_224", 32), tmp_path / "a.safetensors"
    assert ship(own, path, "safetensors", "torchvision") <= 1e-5
    network = torchvision.models.VisionTransformer(32, 16, 12, 3, 192, 768)
    network.heads = nn.Identity()
    network.load_state_dict(load_file(path), strict=True)
    same(own, plainly(network, images()), images())
    with pytest.raises(RequestError, match="was not written by coview"):
        load_backbone(path)


def test_torchvision_has_no_name_for_every_network(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no names for the tensors of a ByobNet"):
        ship(exported("test_byobnet"), tmp_path / "a", "safetensors", "torchvision")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11's own
def test_torch_export_takes_any_number_of_images(tmp_path: Path) -> None:
    own, path = exported("resnet10-quarter", channels=1), tmp_path / "a.pt2"
    assert ship(own, path, "torch-export", "timm") <= 1e-5
    module = torch.export.load(path).module()
    for count in (1, 3):
        pictures = images(channels=1)[:count]
        same(own, module(pictures).detach(), pictures)


@pytest.mark.skipif(not HAS_ONNX, reason="an optional extra")
@pytest.mark.parametrize(
    "name", ["resnet10-quarter", pytest.param("test_vit", marks=pytest.mark.slow)]
)
def test_onnx_under_onnxruntime(tmp_path: Path, name: str) -> None:
    import onnxruntime

    own, path = exported(name), tmp_path / "a.onnx"
    assert ship(own, path, "onnx", "timm") <= 1e-5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pictures = images()
    (features,) = session.run(None, {"images": pictures.numpy()})
    same(own, torch.from_numpy(np.array(features)), pictures)


def test_onnx_without_its_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RequestError, match=r"needs: pip install onnx onnxruntime onnxscript"):
        ship(exported("resnet10-quarter"), tmp_path / "a.onnx", "onnx", "timm")
    assert list(tmp_path.iterdir()) == []


def test_what_reads_differently_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path) -> dict[str, torch.Tensor]:
        tensors = load_file(path)
        tensors["layer4.0.conv2.weight"] *= 1.01
        return tensors

    monkeypatch.setattr(shipping, "load_file", wrong)
    with pytest.raises(CoviewError, match="was not written: when read back, its features differ"):
        ship(exported("resnet10-quarter"), tmp_path / "a", "safetensors", "timm")
    assert list(tmp_path.iterdir()) == []
