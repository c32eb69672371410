"""A network of one's own: its width is measured, and a classifier at its end is noticed."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from coview.errors import RequestError
from coview.nn.own import classifier_note, from_module, width_of

TOLD = "class scores would be trained as features and exported. To leave it out, write"


def built(module: nn.Module) -> nn.Module:
    return from_module(module, 3, 32).build(3, 32)


def without(module: nn.Module, name: str) -> nn.Module:
    setattr(module, name, nn.Identity())
    return module


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (torchvision.models.resnet18, f"in a classifier (fc: 512 to 1000): {TOLD} fc = nn.Identit"),
        (
            torchvision.models.mobilenet_v3_small,
            f"(classifier: 1024 to 1000): {TOLD} classifier[-1] = nn.Identity().",
        ),
        (
            lambda: torchvision.models.VisionTransformer(32, 16, 1, 3, 48, 96),
            f"(heads: 48 to 1000): {TOLD} heads[-1] = nn.Identity().",
        ),
        (
            lambda: timm.create_model("test_resnet", num_classes=10),
            f"in a classifier (10 classes): {TOLD} num_classes=0 in timm.create_model(...).",
        ),
    ],
)
def test_a_classifier_at_the_end(make: Any, said: str) -> None:
    note = classifier_note(built(make()))
    assert note is not None
    assert said in note


@pytest.mark.parametrize(
    "make",
    [
        lambda: without(torchvision.models.resnet18(), "fc"),
        lambda: timm.create_model("test_resnet", num_classes=0),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 16)),
    ],
)
def test_no_classifier_no_note(make: Any) -> None:
    assert classifier_note(built(make())) is None


def test_the_width_is_what_comes_out_whatever_the_network_declares() -> None:
    network = timm.create_model("test_resnet", num_classes=10)
    assert network.num_features != 10
    assert built(network).num_features == 10
    assert network.num_features != 10  # the user's own is left as it was


class Loud(nn.Module):
    """It knows no images of three channels."""

    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("four channels, please")


def test_what_fails_says_on_what() -> None:
    with pytest.raises(RequestError, match="Loud fails on one 3x32x32 image .ValueError: four"):
        width_of(Loud(), 3, 32)
    declared = Loud()
    declared.num_features = 7  # type: ignore[assignment]
    assert width_of(declared, 3, 32) == 7  # of something other than images


@pytest.mark.parametrize("returned", ["(1, 3, 32, 32)", "no tensor"])
def test_no_vector_is_refused(returned: str) -> None:
    class Other(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return images if returned != "no tensor" else [images]

    with pytest.raises(RequestError) as caught:
        width_of(Other(), 3, 32)
    assert f"but it returned {returned} for one 3x32x32 image" in str(caught.value)


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    width_of(network, 3, 8)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
