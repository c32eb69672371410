"""Runs to draw: written by hand, which takes no time, and one that is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from coview.cli import main

EVIL = "<img src=x onerror=alert(1)>"
"""As a folder of images or of a run may be called."""
Written = Callable[..., Path]


def entries(epochs: int, per_epoch: int = 2, top1: float = 0.8) -> list[dict[str, Any]]:
    """Return what a run logs, of a loss that falls."""
    found: list[dict[str, Any]] = [
        {"step": 0, "epoch": 0.0, "raw_pixels_knn_top1": 0.5},
        {"step": 0, "epoch": 0.0, "untrained_knn_top1": 0.4},
    ]
    for step in range(1, epochs * per_epoch + 1):
        epoch = step / per_epoch
        found.append({"step": step, "epoch": epoch, "loss": 5 / epoch, "lr": 0.1 / epoch})
        found[-1] |= {"images_per_second": 900.0 + step, "grad_norm": 1.5}
        found.append({"step": step, "epoch": epoch, "collapse/std": 0.9})
        if step % per_epoch == 0:
            found.append({"step": step, "epoch": epoch, "online_knn_top1": 0.6})
    knn = {"protocol": "weighted kNN, cosine", "k": 20, "temperature": 0.07, "top1": top1}
    knn |= {"train_images": 4000, "test_images": 1000, "classes": 10}
    last = {"step": epochs * per_epoch, "epoch": float(epochs)}
    return [*found, {**last, "knn": knn, "knn_top1": top1, "knn_top5": 0.9}]


@pytest.fixture(scope="session")
def logged() -> Callable[..., list[dict[str, Any]]]:
    """Return what a run logs, see :func:`entries`."""
    return entries


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write the files of a run, without weights."""

    def write(name: str = "run", *, lines: Any = None, recipe: str = "", **facts: Any) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        known = {
            "command": ["/opt/bin/coview", "train", "mine", "--out", name],
            "method": "mine",
            "seed": 0,
            "data": {"name": "digits", "fingerprint": "abc", "train_images": 4000},
            "started": "2026-01-01T10:00:00+00:00",
            "finished": "2026-01-01T11:02:03+00:00",
        }
        (path / "run.json").write_text(json.dumps({**known, **facts}))
        (path / "recipe.toml").write_text(recipe or 'name = "mine"\nepochs = 3\nbatch_size = 8\n')
        rows = entries(3) if lines is None else lines
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 colour images of three classes, one of them with a name that is HTML."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(48):
        place = folder / (EVIL, "red", "blue")[number % 3]
        place.mkdir(exist_ok=True)
        pixels = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """A finished run of two steps on these images."""
    pytest.importorskip("coview_simclr")
    import coview

    out = tmp_path_factory.mktemp("runs") / EVIL
    settings = {"backbone": "resnet10-quarter", "batch_size": 16, "preset": "none", "epochs": 1}
    coview.train(
        "simclr",
        photographs,
        out=out,
        image_size=24,
        device="cpu",
        max_steps=2,
        log_every=1,
        progress=False,
        **settings,
    )
    return out


@pytest.fixture
def coview_command() -> Callable[..., Result]:
    """Run a command in this process; the exit status is checked."""

    def invoke(*words: object, status: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, [str(w) for w in words], prog_name="coview", **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    return invoke
