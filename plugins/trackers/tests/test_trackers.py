"""What trackers get, read back by the real libraries; nothing leaves this machine."""

from __future__ import annotations

import csv
import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import coview
from coview.errors import RequestError


@pytest.fixture(autouse=True)
def _nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every address but this machine's."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> Any:
        here = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        assert here, f"something asks for {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://198.51.100.1:5000")


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(60) % 3


def train(path: Path, *observers: str, **more: Any) -> Any:
    pytest.importorskip("coview_simclr")
    settings = {"backbone": "resnet10-quarter", "batch_size": 16, "log_every": 1, "epochs": 1}
    settings |= {"device": "cpu", "progress": False, "report": False, **more}
    return coview.train("simclr", images(), out=path, observe=observers, **settings)


# Of alembic's scripts, at every version of both that there is.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_has_what_the_run_has(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    run = train(tmp_path / "mine", "mlflow", max_steps=2)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("coview")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "mine" and found.info.status == "FINISHED"
    assert found.data.params["backbone.use"] == "resnet10-quarter"
    assert found.data.params["batch_size"] == "16" and found.data.params["seed"] == "0"
    assert found.data.metrics["knn_top1"] == pytest.approx(run.value("knn_top1"))
    history = client.get_metric_history(found.info.run_id, "loss")
    wanted = [(entry["step"], entry["loss"]) for entry in run.metrics if "loss" in entry]
    assert len(wanted) == 2
    assert [(each.step, each.value) for each in history] == wanted
    # A resumed run goes on where it was, and no step is there twice.
    coview.train(resume=run.path, data=images(), max_steps="none", progress=False)
    (found,) = client.search_runs([experiment.experiment_id])
    steps = [each.step for each in client.get_metric_history(found.info.run_id, "loss")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 2


def test_tensorboard_shows_views_and_embeddings(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(tmp_path / "mine", "tensorboard-pictures:images=9", max_steps=1)
    folder = run.path / "tensorboard"
    events = accumulator.EventAccumulator(str(folder)).Reload()
    (picture,) = events.Images("views")
    assert picture.width > 50 and picture.step == 0
    (place,) = [path.parent for path in folder.rglob("tensors.tsv")]
    rows = list(csv.reader((place / "tensors.tsv").read_text().splitlines(), delimiter="\t"))
    classes = (place / "metadata.tsv").read_text().split()
    network = coview.load_backbone(run.path)
    test = run.data.test
    wanted = network(test.resident[:9].float() / 255).detach().numpy()
    assert sorted(classes) == sorted(3 * ["0", "1", "2"])
    found = np.array(rows, dtype=float)
    # Nine of twelve test images, in whatever order: each is one of the network's features.
    every = network(test.resident.float() / 255).detach().numpy()
    distances = np.abs(found[:, None] - every[None]).max(axis=2).min(axis=1)
    assert found.shape == (9, wanted.shape[1]) and distances.max() < 1e-3
    with Image.open(place / "sprite.png") as sprite:
        assert sprite.width >= 3 * 32


def test_wandb_shows_views_and_embeddings(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    observers = ("wandb-pictures:images=6", "wandb:mode=offline")
    run = train(tmp_path / "mine", *observers, max_steps=1)
    (folder,) = (run.path / "wandb").glob("offline-run-*")
    media = folder / "files" / "media"
    assert len(list(media.glob("images/views*.png"))) == 1
    (table,) = media.glob("table/embeddings*.json")
    found = json.loads(table.read_text())
    assert found["columns"][:3] == ["image", "class", "e0"]
    assert len(found["data"]) == 6
    assert {row[1] for row in found["data"]} == {"0", "1", "2"}


def test_wandbs_pictures_need_its_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with pytest.raises(RequestError, match="give --observe wandb too"):
        train(tmp_path / "mine", "wandb-pictures", max_steps=1)


@pytest.mark.parametrize("name", ["mlflow", "tensorboard-pictures", "wandb-pictures"])
def test_a_missing_library_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("mlflow", "torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, library, None)
    extra = name.partition("-")[0]
    with pytest.raises(RequestError, match=f"needs: pip install {extra}"):
        train(tmp_path / "mine", name, max_steps=1)
    assert not (tmp_path / "mine").exists()
