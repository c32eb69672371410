"""What SimCLR's studies measure, and the head that they take away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview.studies.measures import linear_probe, projection_knn
from coview_simclr.colour import colour_left, explained


def trained(path: Path, **settings: Any) -> Any:
    return coview.train(
        "simclr",
        data="digits",
        preset="tiny",
        batch_size=256,
        out=path,
        max_steps=3,
        set=settings,
        progress=False,
    )


def test_without_a_head_the_projection_is_the_features(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{"encoder.layers": 0})
    assert run.method.encoder.dim == run.method.encoder.features == 128
    assert not list(run.method.encoder.projector.parameters())
    assert projection_knn(run) == pytest.approx(run.value("knn_top1"))


def test_quantities_of_a_run(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    before = {key: value.clone() for key, value in run.method.state_dict().items()}
    assert 0.1 < projection_knn(run) < 1
    assert projection_knn(run) != run.value("knn_top1")
    # Digits are easy: even random features tell most of them apart.
    assert 0.5 < linear_probe(run) < 1
    assert -1 < colour_left(run) < 1
    after = run.method.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_explained_is_the_share_of_variance() -> None:
    """y = 2 x + 1 is all explained; noise of a third of the variance leaves two thirds."""
    make = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 20_000, 1, generator=make)
    rows = torch.cat([x, torch.ones_like(x)], dim=1)
    exact, noisy = 2 * x + 1, 2 * x + 2**0.5 * noise
    half = slice(0, 10_000), slice(10_000, None)
    assert explained(rows[half[0]], exact[half[0]], rows[half[1]], exact[half[1]]) > 0.999
    share = explained(rows[half[0]], noisy[half[0]], rows[half[1]], noisy[half[1]])
    assert share == pytest.approx(2 / 3, abs=0.02)
