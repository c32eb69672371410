"""SwAV, SimSiam, MoCo v3 and DINO from the command line, on a folder and on MNIST's format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import coview

SMALL: dict[str, tuple[str, ...]] = {
    "swav": ("encoder.hidden=16", "encoder.prototypes=8", "negatives.from_epoch=0.0"),
    "simsiam": ("encoder.hidden=16", "encoder.dim=16", "encoder.predictor_hidden=8"),
    "moco-v3": ("encoder.hidden=16", "encoder.predictor_hidden=16"),
    "dino": ("encoder.hidden=16", "encoder.dim=16"),
}

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("source", ["folder", "idx"])
@pytest.mark.parametrize("method", sorted(SMALL))
def test_trains_and_resumes(
    run: Any, idx: Path, photos: Path, tiny: tuple[str, ...], tmp_path: Path, method: str,
    source: str,
) -> None:  # fmt: skip
    data = photos if source == "folder" else f"idx:{idx}"
    sets = [part for text in SMALL[method] for part in ("--set", text)]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    # The preset with every part: that for few images has no queue.
    arguments = ["train", method, "--preset", "small", "--data", data, "--epochs", 2, *tiny, *sets]
    run(*arguments, "--out", whole)
    run(*arguments, "--out", halves, "--max-steps", 2)
    run("train", "--resume", halves, "--max-steps", "none")
    ends = [coview.load_backbone(path).backbone.state_dict() for path in (whole, halves)]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    text = (whole / "metrics.jsonl").read_text()
    assert "NaN" not in text and '"knn_top1"' in text
    assert math.isfinite(sum(value.double().sum().item() for value in ends[0].values()))


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="Fashion-MNIST is not on this machine")
@pytest.mark.parametrize("method", sorted(SMALL))
def test_trains_on_fashion_mnist(
    run: Any, tiny: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    """All 60,000 images are there; a few steps are taken, and the weights are usable."""
    sets = [part for text in SMALL[method] for part in ("--set", text)]
    out = tmp_path / "run"
    steps = ("--max-steps", 4, "--no-evaluate", "--log-every", 1)
    run("train", method, "--data", f"idx:{FASHION}", *tiny, *sets, *steps, "--out", out)
    facts = json.loads((out / "run.json").read_text())
    assert facts["data"]["train_images"] == 60_000 and facts["steps"] == 4
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4 and all(map(math.isfinite, losses))
    features = coview.load_backbone(out)(torch.rand(2, 1, 28, 28))
    assert features.shape == (2, 128) and features.isfinite().all()
