"""Python objects in place of names: data, a backbone, a transform; trained, resumed, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import torchvision.transforms as v1
import torchvision.transforms.v2 as tv
from torch import Tensor, nn

import coview
from coview.evaluation.finetune import starting_network


class Net(nn.Module):
    """A small network that no registry knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))


def objects() -> dict[str, Any]:
    images = np.random.RandomState(0).randint(0, 255, (60, 16, 16, 3), dtype=np.uint8)
    torch.manual_seed(0)
    return {
        "data": (images, np.arange(60) % 3),
        "backbone": Net(),
        "views": tv.RandomResizedCrop(12, antialias=True),
    }


def train(**changes: Any) -> Any:
    return coview.train("simclr", epochs=2, batch_size=8, progress=False, **changes)


def test_objects_train_resume_and_load(tmp_path: Path) -> None:
    whole = train(**objects(), out=tmp_path / "whole", log_every=1)
    part = train(**objects(), out=tmp_path / "part", log_every=1, max_steps=5)
    for missing, said in (
        ("data", "data were a Python object"),
        ("backbone", "backbone was a Python object (Net)"),
        ("views", "views was a Python object (RandomResizedCrop)"),
    ):
        given = {name: value for name, value in objects().items() if name != missing}
        with pytest.raises(coview.RequestError) as caught:
            coview.train(resume=part.path, progress=False, **given)
        assert said in str(caught.value)
    resumed = coview.train(
        resume=part.path, max_steps="none", progress=False, log_every=1, **objects()
    )
    losses = [[m["loss"] for m in run.metrics if "loss" in m] for run in (whole, resumed)]
    assert losses[0] == losses[1]
    assert resumed.value("knn_top1") == whole.value("knn_top1")

    with pytest.raises(coview.RequestError, match="was a Python object"):
        coview.load_backbone(whole.path)
    loaded = coview.load_backbone(whole.path, backbone=Net())
    assert loaded(torch.rand(2, 3, 16, 16)).shape == (2, 8)
    with pytest.raises(coview.RequestError, match=r"was a Python object: use --from head.0"):
        starting_network(whole.path, loaded, "head.1")


def test_nothing_is_changed_silently_when_resuming(tmp_path: Path) -> None:
    with pytest.raises(coview.RequestError, match="leave out preset, init when you give resume"):
        coview.train(resume=tmp_path, init=tmp_path, preset="small")


def test_a_backbone_that_gives_no_vector_is_refused(tmp_path: Path) -> None:
    given = {**objects(), "backbone": nn.Conv2d(3, 4, 3)}
    with pytest.raises(coview.RequestError, match="must return one vector per image"):
        train(**given, out=tmp_path / "run")


@pytest.mark.parametrize("whole", [True, False])
def test_a_classifier_at_the_end_is_noticed(tmp_path: Path, whole: bool) -> None:
    network = torchvision.models.resnet18(num_classes=11)
    if not whole:
        network.fc = nn.Identity()
    run = train(**{**objects(), "backbone": network}, out=tmp_path / "run", max_steps=1)
    said = [note for note in run.resolved.notices if "end in a classifier (fc: 512 to 11)" in note]
    assert len(said) == whole
    assert run.method.encoder.features == (11 if whole else 512)


def test_transforms_as_other_code_has_them_train_and_resume(tmp_path: Path) -> None:
    usual = v1.Compose(
        [
            v1.RandomResizedCrop(12),
            v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v1.ToTensor(),
            v1.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
        ]
    )
    given = {**objects(), "views": [usual, usual]}
    whole = train(**given, out=tmp_path / "whole", log_every=1)
    part = train(**given, out=tmp_path / "part", log_every=1, max_steps=5)
    resumed = coview.train(resume=part.path, max_steps="none", progress=False, log_every=1, **given)
    losses = [[m["loss"] for m in run.metrics if "loss" in m] for run in (whole, resumed)]
    assert losses[0] == losses[1]
    notes = " ".join(whole.resolved.notices)
    assert "coview does not do it again" in notes
    assert notes.count("image by image") == 1
    loaded = coview.load_backbone(whole.path, backbone=Net())
    assert loaded.card.mean == (0.4, 0.5, 0.6)
