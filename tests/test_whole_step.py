"""A whole training step reads nothing from the device, and copies no numbers to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import METHODS, options
from torch.utils._pytree import tree_leaves

from coview.recipes.configure import Changes
from coview.testing import Synchronisations
from coview.training.loop import Metrics, one_step
from coview.training.run import Run
from coview.training.start import Request, start

STEPS = 2
"""Done before the step that is watched: queues, schedules and optimisers have begun."""


@pytest.fixture(params=METHODS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    method: str = request.param
    # Few epochs: what long runs compile, a dispatch mode would run as it is written.
    changes = Changes(epochs=2, **options(method))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    begun = start(
        Request(
            method=method,
            data="digits",
            changes=changes,
            out=tmp_path / "run",
            settings={"evaluate": False, "device": device},
        )
    )
    begun.method.train()
    return begun


def test_a_whole_step_never_waits_for_the_device(run: Run) -> None:
    batches, metrics = run.batches.epoch(0), Metrics()
    for _ in range(STEPS):
        one_step(run, next(batches), metrics)
    batch = next(batches)
    if batch.images.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            one_step(run, batch, metrics)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    kept = tree_leaves([run.optimizer.state_dict(), run.method.state_dict()])
    on_device = [batch.images, batch.indices, *(t for t in kept if isinstance(t, torch.Tensor))]
    with Synchronisations(of=on_device) as seen:
        one_step(run, batch, metrics)
    assert not seen.found, seen.found
