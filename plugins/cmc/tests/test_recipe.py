from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import coview
from coview import testing
from coview.recipes.resolve import Resolved
from coview.testing import has


def resolved(preset: str = "none") -> Resolved:
    return testing.resolved("cmc", preset)


def test_the_imagenet_recipe() -> None:
    has(
        resolved(),
        views="colour-groups",
        views__space="lab",
        views__groups=None,
        views__pairing="full",
        views__crop_scale=(0.08, 1.0),
        views__order=("crop", "flip"),
        encoder="per-view",
        encoder__dim=128,
        encoder__layers=1,
        target="memory-bank",
        target__momentum=0.5,
        target__draws=4096,
        target__per_view=True,
        negatives="memory-bank",
        loss="nce",
        loss__temperature=0.07,
        loss__reduction="sum",
        backbone="resnet50",
        optimizer="sgd",
        optimizer__lr=0.03,
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        schedule="steps",
        schedule__milestones=(120, 160, 200),
        training__epochs=240,
        training__batch_size=128,
    )
    assert resolved().part("negatives").shared_with == "target"


def test_the_small_preset_is_the_softmax_form() -> None:
    has(
        resolved("small"),
        backbone="resnet18",
        backbone__stem="3x3",
        views__crop_scale=(0.2, 1.0),
        target__draws=0,
        target__per_view=True,
        loss="non-parametric-softmax",
        loss__temperature=0.1,
        loss__reduction="sum",
    )


def quarters_of_photographs(path: Path, count: int = 60) -> Path:
    """Crops of scikit-learn's two photographs; a class is a quarter of one."""
    from sklearn.datasets import load_sample_images

    random = np.random.RandomState(0)
    for number, photo in enumerate(load_sample_images().images):
        height, width = (side // 2 for side in photo.shape[:2])
        for quarter in range(4):
            folder = path / f"{number}-{quarter}"
            folder.mkdir(parents=True)
            part = photo[quarter // 2 * height :, quarter % 2 * width :][:height, :width]
            for item in range(count):
                side = random.randint(32, 96)
                y, x = random.randint(height - side), random.randint(width - side)
                crop = Image.fromarray(part[y : y + side, x : x + side]).resize((32, 32))
                crop.save(folder / f"{item}.png")
    return path


@pytest.mark.slow
def test_colours_of_photographs_are_learnt(tmp_path: Path) -> None:
    run = coview.train(
        "cmc",
        data=str(quarters_of_photographs(tmp_path / "photographs", 100)),
        out=tmp_path / "run",
        backbone="resnet10-quarter",
        epochs=40,
        batch_size=64,
        set={"backbone.stem": "7x7"},
        progress=False,
    )
    assert run.value("knn_top1") > max(0.7, run.value("untrained_knn_top1") + 0.03)
