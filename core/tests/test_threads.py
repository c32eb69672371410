"""The number of threads is recorded and repeated, and a crowded processor is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coview
from coview.errors import RequestError
from coview.training import threads

CPU = torch.device("cpu")
IMAGES = np.random.RandomState(0).randint(0, 256, (32, 3, 16, 16), np.uint8)
OPTIONS: dict[str, Any] = {
    "data": IMAGES,
    "backbone": "resnet10-quarter",
    "batch_size": 8,
    "preset": "tiny",
    "device": "cpu",
    "progress": False,
}
SPIN = "while True: pass"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Other programs that never rest, on the cores that this process may use."""
    programs = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def compute(seconds: float) -> None:
    x, end = torch.randn(200, 200), time.monotonic() + seconds
    while time.monotonic() < end:
        x @ x


def settings(run: Any) -> Any:
    return json.loads((run.path / "run.json").read_text())["settings"]


def test_the_number_is_recorded_and_repeated_and_then_put_back(tmp_path: Path) -> None:
    outside = torch.get_num_threads()
    run = coview.train("simclr", out=tmp_path / "a", max_steps=1, threads=3, **OPTIONS)
    assert settings(run)["threads"] == 3
    assert torch.get_num_threads() == outside
    seen = []

    class Watch:
        @coview.hookimpl
        def step_finished(self, run: Any) -> None:
            seen.append(torch.get_num_threads())

    again = {"resume": run.path, "data": IMAGES, "max_steps": 2, "progress": False}
    more = coview.train(**again, observe=[Watch()])
    assert settings(more)["threads"] == 3
    assert seen == [3]


def test_what_was_chosen_is_repeated_on_a_machine_that_would_choose_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = coview.train("simclr", out=tmp_path / "a", max_steps=1, **OPTIONS)
    chosen = settings(run)["threads"]
    assert chosen == torch.get_num_threads()
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    try:
        again = {"resume": run.path, "data": IMAGES, "progress": False}
        more = coview.train(**again, max_steps=2)
        assert settings(more)["threads"] == chosen
        with pytest.raises(RequestError, match=f"threads differs .*{chosen}, now {chosen + 1}"):
            coview.train(**again, max_steps=3, threads=chosen + 1)
    finally:
        torch.set_num_threads(before)


def test_a_gpu_records_none() -> None:
    assert threads.chosen(0, torch.device("cuda")) == 0
    assert threads.chosen(2, torch.device("cuda")) == 2


def test_the_share_of_waiting_is_of_what_came_since() -> None:
    assert threads.Use(5.0, 3.0).since(threads.Use(2.0, 2.0)) == pytest.approx(0.25)
    assert threads.Use(2.0, 2.0).since(threads.Use(2.0, 2.0)) == 0.0
    # A thread that has ended takes its seconds with it.
    assert threads.Use(1.0, 3.0).since(threads.Use(2.0, 2.0)) == 1.0


@pytest.mark.skipif(threads.use() is None, reason="the system does not count waiting")
def test_a_crowded_processor_is_noticed() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with busy(2 * len(os.sched_getaffinity(0))):
            started = threads.use()
            compute(1.0)
            said = threads.crowded(started, CPU)
        assert said.startswith("other programs keep the processor busy: the 2 threads")
        assert threads.crowded(started, torch.device("cuda")) == ""
        assert threads.crowded(None, CPU) == ""
        torch.set_num_threads(1)
        assert threads.crowded(started, CPU) == ""
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("waited", "said"), [(0.5, True), (9.0, True), (0.1, False)])
def test_only_long_waiting_is_said(
    waited: float, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(threads, "use", lambda: threads.Use(1.0, waited))
    assert bool(threads.crowded(threads.Use(0.0, 0.0), CPU)) is said


def test_where_nothing_counts_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "TASKS", tmp_path / "none")
    assert threads.use() is None
    task = tmp_path / "task" / "1"
    task.mkdir(parents=True)
    (task / "schedstat").write_text("0 0 0\n")
    monkeypatch.setattr(threads, "TASKS", tmp_path / "task")
    assert threads.use() is None
    (task / "schedstat").write_text("3000000000 1000000000 7\n")
    assert threads.use() == threads.Use(3.0, 1.0)


def test_the_run_says_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from coview.training.observers import progress

    monkeypatch.setattr(progress, "FIRST_ESTIMATE", 0.0)
    monkeypatch.setattr(progress.threads, "crowded", lambda before, device: "BUSY")
    coview.train(
        "simclr", out=tmp_path / "a", max_steps=3, evaluate=False, **{**OPTIONS, "progress": True}
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if "BUSY" in line]
    assert len(lines) == 1
    again = f"coview train --resume {tmp_path / 'a'} --threads 1 --allow-change threads"
    assert lines[0].endswith(f"press Ctrl-C, then {again}")
