"""A run that is measured and watched has the weights of one that is not, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import coview
from coview.testing import same

METHODS = ("moco-v2", "swav", "instdisc")
"""With a queue and shuffled batch norms, prototypes, a bank."""
OTHERS = ("byol", "dino", "cmc", "cpc", "simclr-v2-memory")
"""With a moving average, a centre, two networks, patches, in-batch negatives beside a queue."""
SMALL = {"dino": {"views.size": "none"}}


def bars(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (80, channels, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(80) % 4


def train(path: Path, method: str, observe: tuple[str, ...], **options: Any) -> Path:
    coview.train(
        method,
        bars(3),
        out=path,
        observe=observe,
        epochs=2,
        max_steps=6,
        batch_size=16,
        backbone="resnet10-quarter",
        set=SMALL.get(method, {}),
        seed=5,
        progress=False,
        **options,
    )
    return path


@pytest.mark.parametrize(
    "method", [*METHODS, *(pytest.param(method, marks=pytest.mark.slow) for method in OTHERS)]
)
def test_weights_do_not_depend_on_who_looks(tmp_path: Path, method: str) -> None:
    alone = train(tmp_path / "alone", method, (), evaluate=False)
    options: dict[str, Any] = {"evaluate_every": 1, "log_every": 1, "save_every": "2"}
    watched = train(tmp_path / "watched", method, ("probe", "csv", "collapse"), **options)
    lines = [json.loads(line) for line in (watched / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert {"online_knn_top1", "online_probe_top1", "untrained_knn_top1"} <= names
    states = [
        torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (alone, watched)
    ]
    for part in ("method", "optimizer", "random"):
        assert same(states[0][part], states[1][part]), part
    first, second = (load_file(path / "backbone.safetensors") for path in (alone, watched))
    assert same(first, second)
