"""Python objects in place of names: data, a backbone, a transform; trained, resumed, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as tv
from torch import Tensor, nn

import coview


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


def test_nothing_is_changed_silently_when_resuming(tmp_path: Path) -> None:
    with pytest.raises(coview.RequestError, match="leave out preset, init when you give resume"):
        coview.train(resume=tmp_path, init=tmp_path, preset="small")


def test_a_backbone_that_gives_no_vector_is_refused(tmp_path: Path) -> None:
    given = {**objects(), "backbone": nn.Conv2d(3, 4, 3)}
    with pytest.raises(coview.RequestError, match="must return one vector per image"):
        train(**given, out=tmp_path / "run")
