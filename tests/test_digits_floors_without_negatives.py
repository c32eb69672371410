"""SwAV, SimSiam, MoCo v3 and DINO beat the untrained network on digits.

Their small presets are made for 1000 epochs of CIFAR; what differs here is what
forty epochs on 1438 images of 8 pixels need. Floors are below two measured seeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import coview

pytestmark = pytest.mark.slow

COMMON = {
    "backbone.stem": "7x7",
    "views.flip_p": 0.0,
    "views.crop_scale": [0.3, 1.0],
    "schedule.warmup_epochs": 5,
    "encoder.hidden": 512,
    "optimizer.lr": 2.0,
}
OWN: dict[str, tuple[float, dict[str, Any]]] = {
    "swav": (0.90, {"encoder.prototypes": 64, "loss.epsilon": 0.03}),
    "simsiam": (
        0.90,
        {
            "views.blur_p": 0.0,
            "backbone.zero_init_last": False,
            "encoder.dim": 512,
            "encoder.layers": 2,
            "encoder.predictor_hidden": 128,
            "optimizer.weight_decay": 5e-4,
        },
    ),
    "moco-v3": (0.93, {"encoder.predictor_hidden": 512, "optimizer.lr": 0.3}),
    "dino": (
        0.90,
        {
            "encoder.dim": 256,
            "encoder.norm": "batch",
            "encoder.layers": 2,
            "target.decay": 0.99,
            "loss.teacher_temperature": 0.04,
        },
    ),
}


@pytest.mark.parametrize("method", sorted(OWN))
def test_floor(method: str, tmp_path: Path) -> None:
    floor, own = OWN[method]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = coview.train(
            method,
            data="digits",
            out=tmp_path / "run",
            epochs=40,
            batch_size=64,
            backbone="resnet10-quarter",
            device="cpu",
            seed=0,
            progress=False,
            set={**COMMON, **own},
        )
    finally:
        torch.set_num_threads(threads)
    trained, untrained = run.value("knn_top1"), run.value("untrained_knn_top1")
    assert trained > max(floor, untrained)
