"""SIGTERM, SIGUSR1 and a second signal, alone and under torchrun; and processes that are lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., Any]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

TINY = (
    *("--backbone", "resnet10-quarter", "--set", "backbone.stem=7x7", "--image-size", "16"),
    *("--batch-size", "32", "--device", "cpu", "--no-evaluate"),
)
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
WAIT = 240
"""Seconds until a run must have ended: far more than a slow machine needs."""
LOST = """
import os, pathlib, signal, sys, time
import torch
torch.set_num_threads(1)
import coview
from coview.errors import CoviewError

class Lost:
    "The second process is lost at its third step."

    @coview.hookimpl
    def step_finished(self, run):
        if os.environ["RANK"] == "1" and run.step == 3:
            if sys.argv[1] == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(300)

try:
    coview.train(
        "simclr", data="digits", backbone="resnet10-quarter", image_size=16, batch_size=32,
        set={"backbone.stem": "7x7"}, device="cpu", evaluate=False, progress=False,
        save_every="2", timeout=float(sys.argv[2]), out=sys.argv[3], max_steps=500,
        observe=[Lost()],
    )
except CoviewError as error:
    print(f"Error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)
"""


@contextmanager
def started(*arguments: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start a fresh interpreter in a process group of its own; none of it stays."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_first_epoch(process: subprocess.Popen[str]) -> str:
    """Read stderr until training is under way; return what was read."""
    assert process.stderr is not None
    read = ""
    while not (line := process.stderr.readline()).startswith("epoch 1/"):
        assert line, f"it ended before the first epoch did: {read}"
        read += line
    return read


def step_of(path: Path) -> int:
    state = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    return int(state["step"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 138)])
def test_a_scheduler_s_signal_saves_and_ends(
    run: Run, tmp_path: Path, name: str, status: int
) -> None:
    out = tmp_path / "r"
    arguments = ("train", "simclr", "--data", "digits", *TINY, "--epochs", 5000, "--out", out)
    with started("-m", "coview", *arguments) as process:
        until_first_epoch(process)
        process.send_signal(getattr(signal, name))
        stdout, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stdout) == (status, "")
    step = step_of(out)
    assert f"Stopped after step {step}, checkpoint saved." in stderr
    assert f"coview train --resume {out}" in stderr and "Traceback" not in stderr
    assert json.loads((out / "run.json").read_text())["finished"] is None
    assert not list(out.rglob("*.tmp"))
    run("train", "--resume", out, "--max-steps", step + 1, "--no-evaluate", "--device", "cpu")
    assert step_of(out) == step + 1


def test_under_torchrun_all_processes_stop_after_the_same_step(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "r"
    arguments = ("train", "simclr", "--data", "digits", *TINY, "--epochs", 5000, "--out", out)
    with started(*LAUNCHER, "-m", "coview", *arguments, "--log-every", 1) as process:
        until_first_epoch(process)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=WAIT)
    assert process.returncode == 1
    assert stderr.count("Stopped after step") == 1, stderr
    assert "Another process" not in stderr
    step = step_of(out)
    entries = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    assert [e["step"] for e in entries if "loss" in e] == [*range(1, step + 1)]
    more = ("train", "--resume", out, "--max-steps", step + 1, "--no-evaluate", "--device", "cpu")
    refused = run(*more, status=2)
    assert "world_size differs from the saved run (2, now 1)" in refused.errors[0]
    run(*more, "--allow-change", "world-size")
    assert step_of(out) == step + 1
    assert json.loads((out / "run.json").read_text())["changes"][0]["changed"] == {
        "max_steps": ["none", step + 1],
        "world_size": [2, 1],
    }


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    out = tmp_path / "r"
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    # Not found out by the run's own timeout: that is far above WAIT.
    with started(*LAUNCHER, script, "dies", "1800", out) as process:
        _, stderr = process.communicate(timeout=WAIT)
    assert process.returncode != 0
    said = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, stderr
    (sentence,) = said
    assert "Another process of this run ended" in sentence
    assert f"To continue from step 2: coview train --resume {out}" in sentence
    assert step_of(out) == 2


@pytest.mark.slow
def test_a_process_that_is_stuck_ends_the_others_after_the_timeout(tmp_path: Path) -> None:
    """Without a launcher, which would wait for the stuck one before it kills it."""
    out = tmp_path / "r"
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first = started(script, "sleeps", "10", out, RANK="0", LOCAL_RANK="0", **meet)
    second = started(script, "sleeps", "10", out, RANK="1", LOCAL_RANK="1", **meet)
    with first as process, second:
        _, stderr = process.communicate(timeout=WAIT)
    assert process.returncode == 1
    (sentence,) = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    assert "did not answer for 10 s (--timeout)" in sentence
    assert "Traceback" not in stderr
    assert step_of(out) == 2


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
