"""The online probe against a loop, its place in checkpoints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import coview
from coview.errors import CoviewError, RequestError
from coview.records import Batch, Encoded
from coview.training.observers.base import watchers
from coview.training.observers.probe import ProbeObserver


def observer(width: int, classes: int, labels: list[int], views: Any, **settings: Any) -> Any:
    """Return one as it is after ``run_started``, beside a run that has only what it reads."""
    made = ProbeObserver(ProbeObserver.Settings(**settings))
    made._run = SimpleNamespace(
        plan=SimpleNamespace(batch_size=128),
        method=SimpleNamespace(components={"views": views}),
    )
    made._labels = torch.tensor(labels)
    names = ("weights", "velocity_weights")
    made.state = {name: torch.zeros(width, classes) for name in names}
    made.state |= {n: torch.zeros(classes) for n in ("biases", "velocity_biases")}
    made.state |= {
        "mean": torch.zeros(width),
        "variance": torch.ones(width),
        "steps": torch.zeros(()),
    }
    return made


WHOLE = SimpleNamespace(normalization=((0.0,), (1.0,)))


def test_a_step_is_softmax_regression_on_standardised_features() -> None:
    random = np.random.RandomState(0)
    labels = [0, 2, 1, 1, 0, 2, 2, 0]
    own = observer(3, 3, labels, WHOLE, lr=0.5, weight_decay=0.1)
    weights, velocity = np.zeros((3, 3)), np.zeros((3, 3))
    biases, drift = np.zeros(3), np.zeros(3)
    mean, variance = np.zeros(3), np.ones(3)
    own.state["steps"] += 98
    for step in range(99, 103):
        indices = random.permutation(8)[:5]
        rows = random.randn(5, 3).astype(np.float32)
        other = torch.randn(5, 3)
        features = {0: torch.from_numpy(rows), 1: other}
        batch = Batch(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.from_numpy(indices))
        own.update_target(Encoded({}, {}, {}, (), features), batch)
        rows = rows.astype(np.float64)
        m, v = rows.mean(0), rows.var(0)
        share = 1 / min(step, 100)
        mean, variance = (1 - share) * mean + share * m, (1 - share) * variance + share * v
        slope, bias_slope = 0.1 * weights, np.zeros(3)
        for row, index in zip(rows, indices, strict=True):
            x = (row - m) / np.sqrt(v + 1e-5)
            powers = np.exp(x @ weights + biases)
            for label in range(3):
                wrong = (powers[label] / powers.sum() - (labels[index] == label)) / 5
                slope[:, label] += wrong * x
                bias_slope[label] += wrong
        velocity, drift = 0.9 * velocity + slope, 0.9 * drift + bias_slope
        weights, biases = weights - 0.25 * velocity, biases - 0.25 * drift
    np.testing.assert_allclose(own.state_dict()["weights"].numpy(), weights, atol=1e-5)
    np.testing.assert_allclose(own.state_dict()["biases"].numpy(), biases, atol=1e-5)
    np.testing.assert_allclose(own.state["mean"].numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(own.state["variance"].numpy(), variance, atol=1e-6)


def test_which_features_are_an_images() -> None:
    first, second = torch.arange(6.0).view(2, 3), torch.ones(2, 3)
    both = Encoded({}, {}, {}, (), {0: first, 1: second})
    pieces = SimpleNamespace()
    assert torch.equal(observer(3, 2, [0], WHOLE)._rows(both, 2), first)
    assert torch.equal(observer(3, 2, [0], pieces)._rows(both, 2), (first + second) / 2)
    grouped = observer(6, 2, [0], pieces)._rows(both, 2)
    assert torch.equal(grouped, torch.cat([first, second], dim=1))
    with pytest.raises(CoviewError, match=r"cannot match .* \[\(2, 3\), \(2, 3\)\] for 1 im"):
        observer(3, 2, [0], WHOLE)._rows(both, 1)


def bars(count: int = 240) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright bars at one of three heights: an untrained network's features tell them apart."""
    images = torch.zeros(count, 1, 12, 12, dtype=torch.uint8)
    for row in range(count):
        images[row, :, row % 3 * 4 : row % 3 * 4 + 4] = 180 + row % 70
    return images, torch.arange(count) % 3


def train(path: Path, steps: int | None = None, method: str = "simclr", **options: Any) -> Any:
    return coview.train(
        method,
        bars(),
        out=path,
        observe=["probe:lr=0.3"],
        max_steps=steps,
        epochs=8,
        batch_size=32,
        backbone="resnet10-quarter",
        set={"views.flip_p": 0.0, "views.crop_scale": [0.9, 1.0]},
        evaluate=False,
        progress=False,
        **options,
    )


def logged(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "online_probe_top1" in line]


def test_it_learns_beside_the_network_and_goes_on_where_it_was(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    whole = logged(tmp_path / "whole")
    assert [line["step"] for line in whole] == [6, 12, 18, 24, 30, 36, 42, 48]
    assert whole[-1]["online_probe_top1"] > 0.8
    assert set(whole[-1]) == {
        *("step", "epoch", "online_probe_top1", "online_probe_top5"),
        "online_probe_mean_per_class",
    }
    train(tmp_path / "halves", steps=9)
    coview.train(
        resume=tmp_path / "halves", data=bars(), max_steps="none", evaluate=False, progress=False
    )
    halves = [line for line in logged(tmp_path / "halves") if line["step"] % 6 == 0]
    assert halves == whole
    ends = [
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)
        for name in ("whole", "halves")
    ]
    kept = [end["observers"]["probe"] for end in ends]
    assert kept[0]["weights"].abs().max() > 0
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_labels_are_needed(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs labels for training and test images"):
        coview.train(
            "simclr",
            bars()[0],
            out=tmp_path / "r",
            observe=["probe"],
            batch_size=32,
            backbone="resnet10-quarter",
            progress=False,
        )
    with pytest.raises(RequestError, match=r"probe\.lr must be above 0"):
        watchers(["probe:lr=0"])
