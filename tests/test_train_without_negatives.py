"""SwAV, SimSiam, MoCo v3 and DINO from the command line, on a folder and on MNIST's format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import coview

SMALL: dict[str, tuple[str, ...]] = {
    "swav": ("encoder.hidden=16", "encoder.prototypes=8", "negatives.from_epoch=0.0"),
    "simsiam": ("encoder.hidden=16", "encoder.dim=16", "encoder.predictor_hidden=8"),
    "moco-v3": ("encoder.hidden=16", "encoder.predictor_hidden=16"),
    "dino": ("encoder.hidden=16", "encoder.dim=16"),
}


@pytest.mark.parametrize("source", ["folder", "idx"])
@pytest.mark.parametrize("method", sorted(SMALL))
def test_trains_and_resumes(
    run: Any, idx: Path, photos: Path, tiny: tuple[str, ...], tmp_path: Path, method: str,
    source: str,
) -> None:  # fmt: skip
    data = photos if source == "folder" else f"idx:{idx}"
    sets = [part for text in SMALL[method] for part in ("--set", text)]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    arguments = ["train", method, "--data", data, "--epochs", 2, *tiny, *sets]
    run(*arguments, "--out", whole)
    run(*arguments, "--out", halves, "--max-steps", 2)
    run("train", "--resume", halves)
    ends = [coview.load_backbone(path).backbone.state_dict() for path in (whole, halves)]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    text = (whole / "metrics.jsonl").read_text()
    assert "NaN" not in text and '"knn_top1"' in text
    assert math.isfinite(sum(value.double().sum().item() for value in ends[0].values()))
