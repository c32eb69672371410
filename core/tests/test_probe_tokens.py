"""What DINO's authors train a classifier on, and rates that fall once an epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from coview.data.base import ImageData, Split
from coview.errors import RequestError
from coview.evaluation.classifier import evaluate_probe
from coview.evaluation.tokens import Tokens, probed
from coview.optim.protocols import Protocol
from coview.weights.exported import ExportedBackbone

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
CARD: dict[str, Any] = {"method": "mine", "image_size": 32, "size": 32, "mean": MEAN, "std": STD}


def exported(name: str = "vit_small_patch16_224", **changes: Any) -> ExportedBackbone:
    torch.manual_seed(0)
    net: Any = timm.create_model(name, **{"num_classes": 0, "img_size": 32, "depth": 6, **changes})
    torch.nn.init.normal_(net.norm.weight)
    return ExportedBackbone(net, {**CARD, "backbone": name}).eval()


def by_hand(network: ExportedBackbone, images: torch.Tensor) -> list[torch.Tensor]:
    """Return every block's tokens after the last normalisation, block by block."""
    net: Any = network.backbone
    x = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    x = net.patch_embed(x)
    x = torch.cat((net.cls_token.expand(len(x), -1, -1), x), dim=1) + net.pos_embed
    made = []
    for block in net.blocks:
        x = block(x)
        made.append(net.norm(x))
    return made


@torch.no_grad()
def test_a_narrow_transformer_gives_four_class_tokens() -> None:
    network, images = exported(), torch.rand(2, 3, 32, 32)
    tokens = probed(network, "joined")
    assert isinstance(tokens, Tokens) and tokens.width == 4 * 384
    wanted = torch.cat([made[:, 0] for made in by_hand(network, images)[-4:]], dim=1)
    torch.testing.assert_close(tokens(images), wanted)
    torch.testing.assert_close(tokens(images)[:, -384:], network(images))


@torch.no_grad()
def test_a_wide_one_gives_the_last_and_the_mean_of_its_patches() -> None:
    network, images = exported("vit_base_patch16_224", depth=2), torch.rand(2, 3, 32, 32)
    tokens = probed(network, "joined")
    last = by_hand(network, images)[-1]
    wanted = torch.cat((last[:, 0], last[:, 1:].mean(dim=1)), dim=1)
    assert isinstance(tokens, Tokens) and tokens.width == 2 * 768
    torch.testing.assert_close(tokens(images), wanted)


def test_other_networks_and_probes_read_the_output() -> None:
    network = exported()
    assert probed(network, "output") is network
    resnet = ExportedBackbone(timm.create_model("test_resnet", num_classes=0), CARD)
    assert probed(resnet, "joined") is resnet


def test_a_probe_reads_them_and_cannot_be_saved(tmp_path: Path) -> None:
    make = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, 3, 32, 32), generator=make, dtype=torch.uint8)
    labels = torch.arange(24) % 3
    train, test = Split(images, labels), Split(images[:6], labels[:6])
    data = ImageData("some", train, train, test, ("a", "b", "c"), 3, 32, MEAN, STD, "x")
    network = exported(depth=4)
    protocol = Protocol("a test", epochs=1, batch_size=8, tokens="joined", per="epoch")
    assert evaluate_probe(network, data, protocol).schedule == "cosine by epochs"
    with pytest.raises(RequestError, match="cannot be saved with the backbone"):
        evaluate_probe(network, data, protocol, save=tmp_path / "head.safetensors")


@pytest.mark.parametrize("epoch", range(5))
def test_rates_that_fall_once_an_epoch(epoch: int) -> None:
    protocol = Protocol(epochs=5, per="epoch")
    wanted = (1 + math.cos(math.pi * epoch / 5)) / 2
    for step in range(7):
        assert protocol.rate((epoch * 7 + step) / 35) == pytest.approx(wanted, abs=1e-12)
    assert Protocol(epochs=5).rate(1 / 35) < 1.0
