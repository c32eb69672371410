"""Data sets of one's own whose items change from call to call, or are views already."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms as v1
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets import FakeData, ImageFolder

import coview
from coview.data.base import DataSettings, Split
from coview.data.items import Changing
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview.data.sources.arrays import from_object

CHANGE = "items change from call to call"


class Shaky(Dataset[Any]):
    """Images with random brightness, drawn in one of the usual ways."""

    def __init__(self, draw: Any, count: int = 48, labels: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 3, 16, 16, generator=generator) / 2
        self.draw, self.labels = draw, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Any:
        image = self.images[row] * (1 + float(self.draw()))
        return (image, row % 3) if self.labels else image


DRAWS = {
    "torch": lambda: torch.rand(()),
    "python": random.random,
    "numpy": np.random.rand,
}


def train(data: Any, out: Path, **options: Any) -> Any:
    chosen = {"backbone": "resnet10-quarter", "batch_size": 16, "epochs": 2, "log_every": 1}
    return coview.train("simclr", data, out=out, device="cpu", progress=False, **chosen | options)


def losses(run: Any) -> list[float]:
    return [entry["loss"] for entry in run.metrics if "loss" in entry]


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_changing_items_are_read_anew_in_every_epoch(draw: Any) -> None:
    data = from_object(Shaky(draw), DataSettings())
    assert sum(CHANGE in note for note in data.notes) == 1
    assert data.train.resident is None
    assert data.test is not None
    assert data.labelled
    batches = Batches(data.train, 19, 0, "cpu")

    def of(epoch: int, start: int = 0) -> dict[int, Tensor]:
        read = batches.epoch(epoch, start)
        return {
            int(r): i for batch in read for r, i in zip(batch.indices, batch.images, strict=True)
        }

    first, second = of(0), of(1)
    assert all(not torch.equal(first[row], second[row]) for row in first if row in second)
    state = random.getstate()
    torch.manual_seed(5)
    again, rest = of(0), of(0, 1)
    assert all(torch.equal(first[row], again[row]) for row in first)  # the same epoch, repeated
    assert all(torch.equal(first[row], rest[row]) for row in rest)  # as a resumed run reads it
    assert random.getstate() == state
    # Another reading is of the same data, whatever was drawn.
    assert from_object(Shaky(draw), DataSettings()).fingerprint == data.fingerprint


def test_what_draws_from_a_generator_of_its_own_is_told_by_its_labels() -> None:
    own = np.random.default_rng()
    one, other = (from_object(Shaky(own.random), DataSettings()) for _ in range(2))
    assert one.fingerprint == other.fingerprint
    fewer = from_object(Shaky(own.random, 47), DataSettings())
    assert fewer.fingerprint != one.fingerprint


def test_what_does_not_change_is_kept() -> None:
    data = from_object(Shaky(lambda: 0.5), DataSettings())
    assert data.train.resident is not None
    assert not any(CHANGE in note for note in data.notes)


def test_one_can_say_so() -> None:
    kept = from_object(Shaky(random.random), DataSettings(cache="on"))
    assert kept.train.resident is not None
    assert "are kept as they were first read, as data.cache = on asks" in " ".join(kept.notes)
    anew = from_object(Shaky(lambda: 0.5), DataSettings(cache="off"))
    assert anew.train.resident is None
    assert not any(CHANGE in note for note in anew.notes)


def test_a_rare_change_is_seen() -> None:
    missed = sum(
        not any(CHANGE in note for note in from_object(Shaky(flip), DataSettings()).notes)
        for flip in [lambda: random.random() < 0.5] * 20
    )
    assert missed == 0


def test_a_run_on_changing_items_resumes_exactly(tmp_path: Path) -> None:
    whole = train(Shaky(random.random), tmp_path / "whole")
    assert any(CHANGE in note for note in whole.resolved.notices)
    train(Shaky(random.random), tmp_path / "part", max_steps=3)
    again = coview.train(
        data=Shaky(random.random), resume=tmp_path / "part", max_steps="none", progress=False
    )
    assert losses(again) == losses(whole)
    assert again.value("knn_top1") is not None


def test_workers_give_what_this_process_gives() -> None:
    data = from_object(Shaky(np.random.rand), DataSettings())
    read = [
        torch.cat([b.images for b in Batches(data.train, 19, 0, "cpu", workers).epoch(1)])
        for workers in (0, 2)
    ]
    assert torch.equal(*read)


class Two:
    """Two views of one image."""

    def __init__(self) -> None:
        self.base = v1.Compose(
            [v1.RandomResizedCrop(12), v1.ToTensor(), v1.Normalize((0.5,) * 3, (0.25,) * 3)]
        )

    def __call__(self, image: Any) -> list[Tensor]:
        return [self.base(image), self.base(image)]


def photos(transform: Any = None) -> FakeData:
    return FakeData(48, (3, 16, 16), num_classes=3, transform=transform)


def test_a_data_set_of_two_views_trains_on_them(tmp_path: Path) -> None:
    data = photos(Two())
    run = train(data, tmp_path / "two")
    assert isinstance(data.transform, Two)  # the user's own is left as it was
    said = [note for note in run.resolved.notices if "Each item of the data set holds 2" in note]
    assert len(said) == 1
    assert "made by its transform (Two). The images are read without it, and it makes" in said[0]
    assert run.data.train.resident is not None
    apart = train(photos(), tmp_path / "apart", views=Two())
    assert losses(run) == losses(apart)
    assert json.loads((run.path / "run.json").read_text())["own"] == {"views": {"object": "Two"}}
    backbone = coview.load_backbone(run.path)
    assert (backbone.card.mean, backbone.card.size) == ((0.5,) * 3, 12)


def test_views_given_beside_a_data_set_of_two_views(tmp_path: Path) -> None:
    other = v1.RandomResizedCrop(8)
    run = train(photos(Two()), tmp_path / "run", views=other, max_steps=1)
    assert run.method.components["views"].layout.sizes == ((8, 8), (8, 8))
    assert any("since views= makes the views" in note for note in run.resolved.notices)


class Pairs(Dataset[Any]):
    """Two views of each image, as ``[view, view]`` or ``((view, view), label)``."""

    def __init__(self, labels: bool) -> None:
        self.images, self.labels = Shaky(lambda: 0.1).images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Any:
        views = (self.images[row], self.images[row].flip(-1))
        return (views, row % 3) if self.labels else list(views)


@pytest.mark.parametrize("labels", [False, True])
def test_views_that_cannot_be_taken_apart_give_their_first(labels: bool) -> None:
    data = from_object(Pairs(labels), DataSettings())
    assert "Each item of the data set holds 2 views. The first is used" in data.notes[0]
    assert data.labelled is labels
    images = data.train.resident
    assert images is not None
    first = (Pairs(labels).images * 255).round().to(torch.uint8)
    rows = data.train.rows  # without labels nothing is held out
    assert torch.equal(images, first if rows is None else first[rows])


def test_a_part_of_a_data_set_of_two_views() -> None:
    part = Subset(
        photos(v1.Compose([Two(), lambda views: [v.clamp(0, 1) for v in views]])), range(40)
    )
    data = from_object(part, DataSettings())
    assert any("Each item of the data set holds 2 views. The first" in note for note in data.notes)
    assert any(CHANGE in note for note in data.notes)
    assert isinstance(data.train, Split)
    assert isinstance(data.train.images.dataset, Changing)  # type: ignore[union-attr]


def test_normalised_items_say_what_to_leave_out() -> None:
    normal = v1.Compose([v1.ToTensor(), v1.Normalize((0.5,) * 3, (0.1,) * 3)])
    with pytest.raises(coview.RequestError, match="Leave out Normalize: coview normalises images"):
        from_object(photos(normal), DataSettings())


def test_a_folder_and_a_data_set_of_the_same_photographs_have_the_same_pixels(
    tmp_path: Path,
) -> None:
    """Of several sizes, none of them square; what differs with their order is said."""
    random = np.random.default_rng(0)
    for number in range(30):
        folder = tmp_path / f"class{number % 3}"
        folder.mkdir(exist_ok=True)
        side = (int(random.integers(40, 80)), int(random.integers(80, 160)))
        low = random.integers(0, 255, (4, 6, 3), np.uint8)
        Image.fromarray(low).resize(side[::-1]).save(folder / f"{number:02}.jpg", quality=90)
    settings = DataSettings(size=32)
    photographs = ImageFolder(str(tmp_path))
    one = open_source(str(tmp_path)).load(settings)
    other = open_source(photographs).load(settings)
    turned = open_source(Subset(photographs, range(29, -1, -1))).load(settings)
    for split in ("train", "test"):
        ours, theirs = getattr(one, split), getattr(other, split)
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
    assert one.notes == other.notes
    assert not torch.equal(turned.test.images.flip(0), one.test.images)
    assert "Which ones follows from the images' order." in one.notes[0]
    assert "(the middle of one that is not square)" in one.notes[1]
