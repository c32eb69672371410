"""Weights by name: timm's, other programs' files, and classifiers of coview's own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from torch import nn
from torchvision.transforms import v2

import coview
from coview.data.base import DataSettings, ImageData
from coview.data.sources.digits import Digits
from coview.errors import CoviewError, RequestError
from coview.evaluation.classifier import evaluate_probe, scores_of
from coview.evaluation.linear import evaluate_linear
from coview.evaluation.svm import evaluate_svm
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.optim.protocols import Protocol, SupportVectors
from coview.testing import same
from coview.weights import open as opening
from coview.weights.classifier import Classifier, load_classifier, save_classifier
from coview.weights.exported import ExportedBackbone, load_backbone, save_backbone
from coview.weights.open import open_weights


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timm_with_its_own_preprocessing(name: str) -> None:
    found = open_weights(f"timm:{name}", seed=3)
    assert found.origin == "random, seed 3"
    assert "RANDOM weights (seed 3): nothing was learned" in found.notes[0]
    torch.manual_seed(3)
    plain = timm.create_model(name, num_classes=0).eval()
    config = resolve_model_data_config(plain)
    meta, size = found.network.meta, config["input_size"][-1]
    assert (meta["size"], meta["channels"]) == (size, 3)
    assert meta["image_size"] == int(size / config["crop_pct"])
    images = torch.rand(2, 3, meta["image_size"], meta["image_size"])
    prepared = v2.Normalize(config["mean"], config["std"])(v2.CenterCrop(size)(images))
    with torch.no_grad():
        assert torch.allclose(found.network(images), plain(prepared), atol=1e-5)


def test_random_weights_are_those_of_the_seed_and_draw_from_no_one_elses_numbers() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first, again, other = (
        coview.load_backbone("timm:test_resnet", seed=seed).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(3), expected)
    assert same(first, again) and not same(first, other)


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="timm has no model called 'resnet5o'. Did you mean 're"):
        open_weights("timm:resnet5o")
    with pytest.raises(RequestError, match=r"timm:test_resnet.none: Invalid pretrained tag"):
        open_weights("timm:test_resnet.none")
    with pytest.raises(RequestError, match="--pretrained is only for timm:NAME; runs/a has its"):
        open_weights("runs/a", pretrained=True)
    with pytest.raises(RequestError, match="timm:test_resnet already names its network: leave out"):
        open_weights("timm:test_resnet", backbone="resnet18")
    save_backbone(open_weights("timm:test_resnet").network, tmp_path / "backbone.safetensors")
    with pytest.raises(RequestError, match="--backbone is only for other programs' files"):
        open_weights(tmp_path, backbone="resnet18")


def test_pretrained_weights_are_fetched_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, loud = [], []
    original = timm.create_model
    downloads = logging.getLogger("huggingface_hub.utils._http")

    def create(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        asked.append(pretrained)
        loud.append(downloads.isEnabledFor(logging.WARNING))
        return original(name, pretrained=False, **options)

    monkeypatch.setattr(opening.timm, "create_model", create)
    assert open_weights("timm:test_resnet").origin == "random, seed 0"
    found = open_weights("timm:test_resnet", pretrained=True)
    assert (found.origin, found.notes, asked) == ("pretrained", (), [False, True])
    # Each of its retries would be two lines before the one sentence that says what is wrong.
    assert loud == [False, False] and downloads.isEnabledFor(logging.WARNING)


def test_without_a_network_pretrained_weights_are_a_clear_sentence(tmp_path: Path) -> None:
    code = """
import sys, coview
try:
    coview.load_backbone("timm:test_resnet", pretrained=True)
except coview.CoviewError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "The pretrained weights of timm:test_resnet are not on this machine and cannot be "
        "downloaded (LocalEntryNotFoundError). If you have them as a file, use: FILE --backbone "
        "test_resnet\n"
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_another_programs_file(tmp_path: Path, name: str) -> None:
    torch.manual_seed(4)
    source = timm.create_model(name, num_classes=0).eval()
    path = tmp_path / "moco.pth"
    keys = {f"module.encoder_q.{key}": value for key, value in source.state_dict().items()}
    torch.save({"state_dict": {**keys, "module.queue": torch.ones(2)}}, path)
    found = open_weights(path, backbone=name)
    assert found.origin == "MoCo" and "1 others were left out (module.queue)" in found.notes[0]
    config = resolve_model_data_config(source)
    images = torch.rand(2, 3, config["input_size"][-1], config["input_size"][-1])
    with torch.no_grad():
        plain = source(v2.Normalize(config["mean"], config["std"])(images))
        assert torch.allclose(coview.load_backbone(path, name)(images), plain, atol=1e-5)
    with pytest.raises(RequestError, match="does not name its network. Add its architecture"):
        open_weights(path)
    with pytest.raises(RequestError, match="no backbone called 'restnet'"):
        open_weights(path, backbone="restnet")


def test_another_programs_file_of_a_registered_backbone(tmp_path: Path) -> None:
    source = find_backbone("resnet10-quarter")[0](3, 224, BackboneSettings())
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    meta = open_weights(tmp_path / "a.safetensors", backbone="resnet10-quarter").network.meta
    assert (meta["size"], meta["image_size"]) == (224, 256)
    assert meta["mean"] == [0.485, 0.456, 0.406]


def network(channels: int = 1) -> ExportedBackbone:
    torch.manual_seed(0)
    settings = {"stem": "3x3"}
    backbone = find_backbone("resnet10-quarter")[0](channels, 32, BackboneSettings(**settings))
    meta = {"backbone": "resnet10-quarter", "settings": settings, "method": "simclr", "size": 32}
    facts = {"image_size": 32, "channels": channels, "mean": [0.3], "std": [0.4], "given": False}
    return ExportedBackbone(backbone, {**meta, **facts}).eval()


def test_the_backbone_within_a_classifier(tmp_path: Path) -> None:
    own = network()
    with torch.no_grad():
        own.backbone.bn1.running_mean.fill_(0.25)
    head = nn.Sequential(nn.Linear(128, 8), nn.ReLU())
    save_classifier(Classifier(own, head, nn.Linear(8, 3)), tmp_path / "c.safetensors")
    loaded = load_backbone(tmp_path / "c.safetensors")
    assert loaded.meta == own.meta
    for key, value in own.backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[key], value), key
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(loaded(images), own(images))
    assert open_weights(tmp_path / "c.safetensors").origin is None


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return Digits().load(DataSettings())


@pytest.mark.parametrize("protocol", ["grid", "probe", "svm"])
def test_what_a_probe_saves_gives_its_accuracy_again(
    tmp_path: Path, digits: ImageData, protocol: str
) -> None:
    """Standardisation is folded into the classifier, which takes the backbone's features."""
    own, path = network().train(), tmp_path / "c.safetensors"
    with torch.no_grad():
        for images in digits.train.images.split(128):
            own(images.float() / 255)  # statistics, without which its features hardly vary
    own.eval()
    if protocol == "grid":
        result: Any = evaluate_linear(own, digits, epochs=3, save=path)
    elif protocol == "probe":
        settings = Protocol("test", 1.0, 3, batch_size=64)
        result = evaluate_probe(own, digits, settings, save=path)
    else:
        result = evaluate_svm(own, digits, SupportVectors("test", 0.01), save=path)
    saved = load_classifier(path)
    scores = scores_of(saved, digits.test, 128, "cpu", 0)
    right = (scores.argmax(1) == digits.test.labels).float().mean()
    assert float(right) == pytest.approx(result.top1, abs=1e-6) and result.top1 > 0.2


def test_what_cannot_be_saved_is_refused_before_it_is_trained(
    tmp_path: Path, digits: ImageData
) -> None:
    own = network()
    own.card = attrs.evolve(own.card, given=True)
    for measure in (
        lambda: evaluate_linear(own, digits, save=tmp_path / "c"),
        lambda: evaluate_probe(own, digits, Protocol(epochs=10**6), save=tmp_path / "c"),
        lambda: evaluate_svm(own, digits, SupportVectors(), save=tmp_path / "c"),
    ):
        with pytest.raises(RequestError, match="This backbone cannot be saved with a classifier"):
            measure()


def test_a_damaged_classifier(tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(CoviewError, match="not a complete safetensors file"):
        load_classifier(tmp_path / "c.safetensors")
    with pytest.raises(CoviewError, match="not a complete safetensors file"):
        open_weights(tmp_path / "c.safetensors")
