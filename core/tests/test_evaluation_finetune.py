"""Fine-tuning: which images have labels, which layers move at which rate."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from coview.data.base import ImageData, Split
from coview.data.splits import labelled_subset
from coview.errors import RequestError
from coview.evaluation.features import state_hash
from coview.evaluation.finetune import finetune
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.optim.protocols import FineTuning
from coview.weights.checkpoint import cut
from coview.weights.exported import ExportedBackbone


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=5),
    share=st.floats(0.01, 100),
    seed=st.integers(0, 99),
)
def test_every_class_keeps_its_share(counts: list[int], share: float, seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    kept = labelled_subset(labels, f"{share:.4f}%", seed)
    assert kept.tolist() == sorted(set(kept.tolist()))
    got = np.bincount(labels[kept], minlength=len(counts)).tolist()
    assert got == [max(1, round(float(f"{share:.4f}") / 100 * count)) for count in counts]


def test_subsets_are_fixed_by_the_seed_and_nested() -> None:
    labels = torch.arange(1000) % 7
    small, again, other = (labelled_subset(labels, "1%", seed).tolist() for seed in (0, 0, 1))
    assert small == again != other
    assert set(small) < set(labelled_subset(labels, "10%", 0).tolist())
    assert labelled_subset(labels, "100%", 3).tolist() == list(range(1000))
    few = labelled_subset(labels, "3-per-class", 0)
    assert torch.bincount(labels[few]).tolist() == [3] * 7
    assert len(labelled_subset(torch.tensor([0, 0, 1]), "2-per-class", 0)) == 3


@pytest.mark.parametrize("wanted", ["", "1", "0%", "101%", "0-per-class", "ten", "-1%", "1%%"])
def test_other_requests_are_refused(wanted: str) -> None:
    with pytest.raises(RequestError, match="--labels must be a share above 0 %"):
        labelled_subset(torch.tensor([0, 1]), wanted, 0)


def test_one_per_cent_may_have_rates_of_its_own() -> None:
    whole = FineTuning("x", 0.01, 20, head_lr=0.2, few_lr=0.02, few_head_lr=5.0, few_epochs=40)
    assert whole.for_labels("10%") is whole
    few = whole.for_labels("1%")
    assert (few.lr, few.head_lr, few.epochs) == (0.02, 5.0, 40)
    assert FineTuning("x", 0.01, 20).for_labels("1%").epochs == 20


def network() -> ExportedBackbone:
    torch.manual_seed(0)
    backbone = find_backbone("resnet10-quarter")[0](1, 16, BackboneSettings(stem="3x3"))
    meta = {"mean": [0.5], "std": [0.25], "size": 16, "image_size": 16, "channels": 1}
    return ExportedBackbone(backbone, {**meta, "method": "simclr"})


def data(count: int = 60) -> ImageData:
    """Bright squares at one of three heights; flips do not change the class."""
    images = torch.zeros(count, 1, 16, 16, dtype=torch.uint8)
    for row in range(count):
        images[row, :, row % 3 * 5 : row % 3 * 5 + 5] = 200 + row % 7
    labels, names = torch.arange(count) % 3, tuple(f"{row}.png" for row in range(count))
    train, test = Split(images, labels, names), Split(images[:9], labels[:9])
    return ImageData("bars", train, test, train, tuple("abc"), 1, 16, (0.5,), (0.25,), "x")


def test_the_whole_network_learns_from_the_listed_images() -> None:
    own = network()
    before = state_hash(own)
    protocol = FineTuning("test", 1.0, 12, batch_size=30)
    result = finetune(own, nn.Identity(), 128, data(), protocol, labels="50%", seed=3)
    assert state_hash(own) != before
    assert result.images == tuple(labelled_subset(data().reference.labels, "50%", 3).tolist())
    assert result.names == tuple(f"{row}.png" for row in result.images)
    assert (result.train_images, result.test_images, result.classes) == (30, 9, 3)
    assert result.top1 > 0.6
    again = finetune(network(), nn.Identity(), 128, data(), protocol, labels="50%", seed=3)
    assert again == result
    assert result.as_dict()["protocol"] == "fine-tuned, 50% of the labels"


def test_batch_norms_learn_too() -> None:
    own = network()
    before = own.backbone.bn1.running_mean.clone()
    finetune(own, nn.Identity(), 128, data(), FineTuning("test", 1e-9, 1), labels="100%")
    assert (own.backbone.bn1.running_mean - before).abs().max() > 1e-3
    assert not own.training, "it is measured in evaluation mode"


def test_layers_move_at_their_own_rates() -> None:
    """After one step, tensors have moved in proportion to their learning rates."""
    moved = {}
    for decay in (1.0, 0.5):
        own = network()
        start = {k: v.detach().clone() for k, v in own.backbone.named_parameters()}
        protocol = FineTuning("test", 0.01, 1, batch_size=60, head_lr=0.02, init_std=0.1)
        finetune(own, nn.Identity(), 128, data(), protocol, labels="100%", layer_decay=decay)
        moved[decay] = {
            k: (v.detach() - start[k]).norm() for k, v in own.backbone.named_parameters()
        }
    ratios = {k: float(moved[0.5][k] / moved[1.0][k]) for k in moved[1.0]}
    groups = own.backbone.group_matcher()
    assert groups, "timm orders this network's layers"
    first, last = ratios["conv1.weight"], ratios["layer4.0.conv2.weight"]
    assert first == pytest.approx(0.5**5, rel=1e-3) and last == pytest.approx(0.5, rel=1e-3)


def test_layer_decay_needs_layers_that_timm_can_order() -> None:
    own = network()
    own.backbone = nn.Sequential(nn.Flatten(), nn.Linear(256, 128))
    with pytest.raises(RequestError, match="timm can order, which it cannot for Seq"):
        finetune(
            own,
            nn.Identity(),
            128,
            data(),
            FineTuning("test", 0.1, 1),
            labels="100%",
            layer_decay=0.5,
        )


def test_a_class_without_training_images_and_one_with_a_single_image() -> None:
    whole = data()
    keep = torch.tensor([0, 3, 6, 9, 1])  # many of class 0, one of class 1, none of class 2
    images, labels = whole.train.images[keep], whole.train.labels[keep]
    few = attrs.evolve(whole, reference=Split(images, labels))
    result = finetune(
        network(), nn.Identity(), 128, few, FineTuning("test", 0.1, 1), labels="1%", seed=0
    )
    assert (result.train_images, result.classes) == (2, 3)
    assert 0 <= result.top1 <= 2 / 3


def test_cutting_the_head() -> None:
    class Encoder:
        projector = nn.Sequential(nn.Sequential(nn.Linear(8, 5), nn.ReLU()), nn.Linear(5, 3))
        features = 8

    layers, width = cut(Encoder(), 1)  # type: ignore[arg-type]
    assert width == 5 and layers(torch.ones(2, 8)).shape == (2, 5)
    assert cut(Encoder(), 2)[1] == 3  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"head.3: the projection head has 2 layers"):
        cut(Encoder(), 3)  # type: ignore[arg-type]
    Encoder.projector = nn.Linear(8, 3)  # type: ignore[assignment]
    with pytest.raises(RequestError, match="not a stack of layers"):
        cut(Encoder(), 1)  # type: ignore[arg-type]
