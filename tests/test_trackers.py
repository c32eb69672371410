"""Trackers that a package or a variable brings into the environment run only when asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = (
    "wandb",
    "mlflow",
    "comet_ml",
    "clearml",
    "neptune",
    "aim",
    "trackio",
    "swanlab",
    "dvclive",
)
VARIABLES = {
    **{"WANDB_API_KEY": "x", "WANDB_MODE": "online", "WANDB_PROJECT": "theirs"},
    **{"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "COMET_API_KEY": "x", "CLEARML_API_HOST": "x"},
    **{"NEPTUNE_API_TOKEN": "x", "TRACKIO_SPACE_ID": "x", "COVIEW_OBSERVE": "wandb"},
}
TRACKER = """
def __getattr__(name):
    # timm imports wandb if it finds it, and then lets it be.
    if not name.startswith("__"):
        raise SystemExit(f"{__name__}.{name} was used")
    raise AttributeError(name)
"""
OBSERVER = """
import coview

class Observer:
    def __init__(self):
        raise SystemExit("nobody asked for it")

class Plugin:
    @coview.hookimpl
    def run_started(self, run):
        raise SystemExit("nobody asked for it")
"""


def test_none_of_them_is_used(
    python: Callable[..., subprocess.CompletedProcess[str]],
    idx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = tmp_path / "packages"
    info = packages / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    for name in NAMES:
        (packages / f"{name}.py").write_text(TRACKER)
    (packages / "stranger.py").write_text(OBSERVER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[coview.observers]\nstranger = stranger:Observer\n[coview]\nx = stranger:Plugin\n"
    )
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    words = ("train", "simclr", "--data", f"idx:{idx}", "--backbone", "resnet10-quarter")
    words += ("--batch-size", "16", "--device", "cpu", "--max-steps", "1", "--no-evaluate")
    python("-m", "coview", *words, "--out", "r", path=[packages])
    asked = python(
        "-m", "coview", *words, "--out", "s", "--observe", "stranger", path=[packages], status=1
    )
    assert "nobody asked for it" in asked.stderr
