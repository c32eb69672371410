"""kNN as a method's authors measured it, beside the vote that all methods have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import coview
from coview.data.base import DataSettings
from coview.data.sources import open_source
from coview.weights.checkpoint import load_encoder
from coview.weights.exported import load_backbone

Run = Callable[..., Any]
FEW = {"batch_size": 32, "max_steps": 2, "device": "cpu", "progress": False}


def trained(method: str, path: Path, **changes: Any) -> Path:
    coview.train(method, "digits", out=path, backbone="resnet10-quarter", **FEW, **changes)
    return path


@pytest.fixture(scope="module")
def run_of_instdisc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("instdisc", tmp_path_factory.mktemp("votes") / "run", preset="small")


def by_scikit_learn(run: Path, k: int, temperature: float) -> float:
    """Return the accuracy of a vote on projections, with another library's neighbours."""
    network = load_backbone(run)
    encoder = load_encoder(run, network.card).eval()
    data = open_source("digits").load(DataSettings())
    assert data.test is not None

    def rows(split: Any) -> tuple[np.ndarray, np.ndarray]:
        images = torch.stack([split.images[i] for i in range(len(split))]).float() / 255
        normal = (images - network.mean) / network.std
        with torch.no_grad():
            made = encoder.projector(encoder.backbone()(normal))
        return torch.nn.functional.normalize(made).numpy(), split.labels.numpy()

    (x, y), (queries, truth) = rows(data.reference), rows(data.test)
    # Euclidean distance d of unit rows: cosine 1 - d^2 / 2.
    vote = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / temperature))
    return float((vote.fit(x, y).predict(queries) == truth).mean())


def test_instdisc_s_own_vote_is_of_projections(run_of_instdisc: Path) -> None:
    found = coview.evaluate(run_of_instdisc)
    own = found["published"]
    assert (own["k"], own["temperature"], own["features"]) == (200, 0.1, "projection")
    assert own["source"].startswith("zhirongw/lemniscate.pytorch")
    assert own["top1"] == pytest.approx(by_scikit_learn(run_of_instdisc, 200, 0.1), abs=0.005)
    assert (found["k"], found["temperature"]) == (200, 0.07)
    assert "features" not in found
    assert "\nAs published: top-1 " in str(found) and "of the projection" in str(found)


def test_projections_can_be_asked_for(run_of_instdisc: Path, run: Run) -> None:
    command = ("evaluate", "knn", run_of_instdisc, "--features", "projection")
    found = run(*command, "--temperature", 0.1, "--json").json
    own = coview.evaluate(run_of_instdisc)["published"]
    assert (found["features"], found["top1"]) == ("projection", own["top1"])
    assert "published" not in found


def test_a_file_of_weights_has_no_projection(run_of_instdisc: Path, run: Run) -> None:
    command = ("evaluate", "knn", run_of_instdisc / "backbone.safetensors", "--data", "digits")
    answer = run(*command, "--json")
    assert "published" not in answer.json
    assert "compares projections, which these weights lack" in answer.stderr
    (said,) = run(*command, "--features", "projection", status=2).errors
    assert said.endswith("only a run's checkpoint has the projection head.")


def test_a_vote_on_features_needs_no_run(tmp_path: Path) -> None:
    """MoCo's demonstration compares features, which every file of weights has."""
    run = trained("moco", tmp_path / "run", preset="small", set={"encoder.norm_groups": 1})
    found = coview.evaluate(run / "backbone.safetensors", data="digits")
    own = found["published"]
    assert (own["k"], own["temperature"]) == (200, 0.1) and "features" not in own
    again = coview.evaluate(run, temperature=0.1)
    assert own["top1"] == again["top1"]
    assert "published" not in again


@pytest.mark.parametrize(
    ("method", "preset", "vote"),
    [
        ("instdisc", "none", (200, 0.07, "projection")),
        ("moco", "small", (200, 0.1, "backbone")),
        ("dino", "none", (20, 0.07, "backbone")),
    ],
)
def test_the_published_votes(method: str, preset: str, vote: tuple[int, float, str]) -> None:
    from coview.testing import resolved

    settings = resolved(method, preset).part("knn").settings
    assert (settings.k, settings.temperature, settings.features) == vote
    assert settings.source


def test_a_method_without_one_has_the_common_vote_alone(tmp_path: Path) -> None:
    run = trained("simclr", tmp_path / "run", preset="small")
    assert "published" not in coview.evaluate(run)
