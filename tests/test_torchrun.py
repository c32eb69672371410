"""A run under torchrun: two real processes end with the weights of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ARGUMENTS = (
    *("-m", "coview", "train", "simclr", "--data", "digits", "--device", "cpu"),
    *("--backbone", "resnet10-quarter", "--set", "backbone.stem=7x7", "--image-size", "16"),
    *("--batch-size", "32", "--max-steps", "4", "--log-every", "2", "--json"),
)


def run(prefix: list[str], out: Path) -> dict[str, object]:
    command = [sys.executable, *prefix, *ARGUMENTS, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    summary: dict[str, object] = json.loads(done.stdout)
    return summary


def losses(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    one = run([], tmp_path / "one")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = run(launcher, tmp_path / "two")
    assert two["steps"] == one["steps"] == 4
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    weights = [load_file(tmp_path / name / "backbone.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        assert torch.allclose(weights[1][name].float(), value.float(), atol=1e-3), name
    checkpoint = torch.load(tmp_path / "two" / "checkpoints" / "last.pt", weights_only=True)
    assert checkpoint["identity"]["world_size"] == 2
