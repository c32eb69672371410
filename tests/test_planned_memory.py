"""Memory planned on a device that is not there, beside what torch allocates on the processor."""

from __future__ import annotations

import wave
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import METHODS, options
from torch.profiler import ProfilerActivity, profile

from coview.recipes.configure import Changes
from coview.testing.rehearsal import planned_bytes
from coview.training.loop import Metrics, one_step
from coview.training.run import Run
from coview.training.start import Request, rehearse


def built(method: str, data: str, changes: Changes) -> Run:
    """Return a run at its first step."""
    settings = {"data": data, "device": "cpu", "compile": "off"}
    return rehearse(Request(method=method, changes=changes, settings=settings))


def bytes_of(tensors: Iterable[Any]) -> int:
    places = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for x in tensors
        if isinstance(x, torch.Tensor)
    }
    return sum(places.values())


def counted(run: Run) -> int:
    """Return the most bytes at once in a step on the processor, from torch's own record."""
    metrics = Metrics()
    run.method.train()
    batch = next(run.batches.epoch(0))
    one_step(run, batch, metrics)
    state = [x for each in run.optimizer.state.values() for x in each.values()]
    kept = bytes_of([*run.method.parameters(), *run.method.buffers(), *state])
    run.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        one_step(run, batch, metrics)
    events = seen.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return kept + max(accumulate(sizes, initial=0))


@pytest.mark.parametrize("method", METHODS)
def test_planned_memory_is_what_a_step_takes(method: str) -> None:
    run = built(method, "colour-digits", Changes(**options(method)))
    planned = planned_bytes(run.resolved, run.plan, "fp32")
    assert planned == pytest.approx(counted(run), rel=0.1)


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's, of a switch that is not used
def test_planned_memory_of_sounds(tmp_path: Path) -> None:
    for number in range(8):
        with wave.open(str(tmp_path / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(np.random.RandomState(number).bytes(2 * 20_480))
    run = built("cpc-audio", f"wav:{tmp_path}", Changes(batch_size=4))
    planned = planned_bytes(run.resolved, run.plan, "fp32")
    # oneDNN copies what a convolution over time is given, into a layout of the processor's own.
    with torch.backends.mkldnn.flags(enabled=False):
        assert planned == pytest.approx(counted(run), rel=0.1)


def test_what_fits_a_gpu_that_is_not_here(run: Any) -> None:
    asked = ("train", "simclr", "--data", "digits", "--backbone", "resnet10-quarter", "--dry-run")
    asked = (*asked, "--batch-size", 512)
    found = run(*asked, "--fits", "24GB", "--json").json["run"]["fits"]
    (whole,) = found["rooms"]
    assert (found["memory"], found["precision"]) == (24 * 2**30, "bf16") and whole["fits"]
    less = run(*asked, "--fits", f"{whole['bytes'] / 2**30 - 0.01:.4f} GiB", "--json")
    first, last = less.json["run"]["fits"]["rooms"]
    assert first == {**whole, "fits": False}
    assert last["accumulate"] == 2 and last["fits"] and last["bytes"] < whole["bytes"]
    # CUDA itself takes that much.
    said = run(*asked, "--batch-size", 4, "--fits", "1GB", "--precision", "fp16").stdout
    assert "fits 1 GB: no (1." in said and "with --accumulate 2: no (1." in said
    assert "an image has the negatives of its part alone" in said
    assert "in fp16, not compiled" in said and "estimate" not in said


@pytest.mark.parametrize("memory", ["", "GB", "0", "-3GB", "24 MB", "nanGB"])
def test_a_memory_that_is_none(run: Any, memory: str) -> None:
    (said,) = run("train", "simclr", "--dry-run", "--fits", memory, status=2).errors[-1:]
    assert f"{memory!r} is not the memory of a GPU: write 24GB" in said


def test_the_question_needs_a_dry_run(run: Any) -> None:
    (said,) = run("train", "simclr", "--fits", "24GB", status=2).errors
    assert said == "--fits is a question to a --dry-run: add that, or leave it out."
