"""A run under torchrun: two real processes end with the weights of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import coview

ROWS = "components.target.rows"
ARGUMENTS = (
    *("-m", "coview", "train", "simclr", "--data", "digits", "--device", "cpu"),
    *("--backbone", "resnet10-quarter", "--set", "backbone.stem=7x7", "--image-size", "16"),
    *("--batch-size", "32", "--max-steps", "4", "--log-every", "2", "--json"),
    *("--observe", "probe", "--observe", "csv"),
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
    one_end, two_end = (
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)
        for name in ("one", "two")
    )
    assert two_end["identity"]["world_size"] == 2
    for name, value in one_end["observers"]["probe"].items():
        assert value.abs().max() > 0
        assert torch.allclose(two_end["observers"]["probe"][name], value, atol=2e-3), name
    lines = [len((tmp_path / n / "metrics.csv").read_text().splitlines()) for n in ("one", "two")]
    logged = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert lines == [1 + len(logged)] * 2


def test_a_bank_in_shares_is_the_whole_bank_and_resumes_in_one_process(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data": "digits",
        "device": "cpu",
        "backbone": "resnet10-quarter",
        "image_size": 16,
        "batch_size": 32,
        "set": {"backbone.stem": "7x7", "target.draws": 16, "target.shard": "always"},
    }
    quick: dict[str, Any] = {"log_every": 1, "evaluate": False, "progress": False}
    coview.train("instdisc", out=tmp_path / "one", max_steps=4, **options, **quick)
    # What is registered first is called last: after what coview does at the end.
    # In one write a line: the processes share a pipe, and print may write the end of one by itself.
    script = "import atexit, os, torch.distributed as dist\n"
    script += "told = lambda: b'open\\n' if dist.is_initialized() else b'closed\\n'\n"
    script += "atexit.register(lambda: os.write(1, told()))\n"
    script += f"import coview; coview.train('instdisc', out={str(tmp_path / 'two')!r}, "
    script += f"max_steps=2, **{options!r}, **{quick!r})"
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["closed", "closed"]
    coview.train(resume=tmp_path / "two", max_steps=4, allow_change=["world_size"], **quick)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    rows = [
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["method"][ROWS]
        for name in ("one", "two")
    ]
    torch.testing.assert_close(rows[0], rows[1], atol=1e-4, rtol=0)
