"""Two processes under gloo equal one, for every installed method, in float64.

Each process has half of the global batch. The gradients, averaged over
processes, and after three optimiser steps every weight, queue, bank and centre
must be those of one process with the whole batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import torch.multiprocessing as mp

from coview.configure import Changes, configure
from coview.hookspecs import hookimpl
from coview.method import Method, build_method
from coview.plan import Plan
from coview.recipes import method_names
from coview.records import Batch, Step, Views
from coview.training.optimizers import make_optimizer, set_rate
from coview.training.sync_norm import synchronise

IMAGES, SIZE, CHANNELS, STEPS = 16, 32, 3, 3
METHODS = [name for name in method_names() if not name.endswith("-audio")]
# Widths are cut: what is tested does not depend on them, and float64 is slow.
NARROW = {
    "backbone.stem": "7x7",
    "encoder.hidden": 32,
    "encoder.predictor_hidden": 16,
    "encoder.prototypes": 24,
    "encoder.outputs": 24,
    "negatives.size": 24,
}


class InDouble:
    """Lets views arrive in float64."""

    @hookimpl(wrapper=True)
    def generate_views(self) -> Any:
        views: Views = yield
        return attrs.evolve(views, crops=tuple(crop.double() for crop in views.crops))


def built(name: str, processes: int) -> tuple[Method, torch.optim.Optimizer, float]:
    """Build a method for so many processes, in float64, the same everywhere."""
    plan = Plan(
        dataset_size=64,
        channels=CHANNELS,
        image_size=SIZE,
        mean=(0.5,) * CHANNELS,
        std=(0.2,) * CHANNELS,
        batch_size=IMAGES,
        world_size=processes,
        steps_per_epoch=4,
        total_steps=40,
    )
    changes = Changes(preset="small", backbone="resnet10-quarter")
    resolved = configure(name, None, changes, "test")
    known = {
        key: value
        for key, value in NARROW.items()
        if key.split(".")[0] in resolved.parts
        and hasattr(resolved.part(key.split(".")[0]).settings, key.split(".")[1])
    }
    resolved = configure(name, None, attrs.evolve(changes, set=known), "test")
    torch.manual_seed(0)
    method = build_method(resolved, plan).double()
    method.observe(InDouble(), "in-double")
    synchronise(method)
    part = resolved.part("optimizer")
    optimizer = make_optimizer(part.factory, part.settings, method, plan, torch.device("cpu"))
    return method.train(), optimizer, min(part.settings.peak(IMAGES), 0.05)


def train(name: str, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """Train three steps on this process's rows; return first gradients and last state."""
    import torch.distributed as dist

    method, optimizer, rate = built(name, processes)
    set_rate(optimizer, rate)
    kept: dict[str, torch.Tensor] = {}
    own = slice(rank * IMAGES // processes, (rank + 1) * IMAGES // processes)
    for number in range(STEPS):
        generator = torch.Generator().manual_seed(number)
        images = torch.randint(
            256, (IMAGES, CHANNELS, SIZE, SIZE), generator=generator, dtype=torch.uint8
        )
        indices = torch.randperm(64, generator=generator)[:IMAGES]
        step = Step(number=number, steps_per_epoch=4, total_steps=40, seed=3)
        optimizer.zero_grad(set_to_none=True)
        method(Batch(images[own], indices[own]), step).backward()
        for key, parameter in method.named_parameters():
            if parameter.grad is not None and processes > 1:
                dist.all_reduce(parameter.grad)
                parameter.grad /= processes
            if parameter.grad is not None and number == 0:
                kept[f"gradient of {key}"] = parameter.grad.clone()
        method.gradients_ready(step)
        optimizer.step()
        method.update_target(step)
    return kept | {key: value.clone() for key, value in method.state_dict().items()}


def grouped(name: str) -> bool:
    """Whether a method normalises groups of the batch apart, so each process its own."""
    part = configure(name, None, Changes(preset="small"), "test").part("encoder")
    return getattr(part.settings, "norm_groups", 1) > 1


def work(rank: int, where: str) -> None:
    """One of two processes; trains every method and saves what it got."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    for name in METHODS:
        try:
            result: Any = train(name, rank, 2)
        except Exception as error:  # one method must not hide the others
            result = repr(error)
        torch.save(result, f"{where}/{name}-{rank}.pt")
        dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run both processes once, for all methods."""
    where = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(str(where),), nprocs=2)
    return where


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_equal_one(name: str, two_processes: Path) -> None:
    whole = train(name, 0, 1)
    assert any(key.startswith("gradient of") for key in whole)
    for rank in (0, 1):
        half = torch.load(two_processes / f"{name}-{rank}.pt")
        assert isinstance(half, dict), half
        assert set(half) == set(whole)
        for key, value in whole.items():
            if ("running_" in key or "num_batches" in key) and grouped(name):
                continue  # statistics of groups within a process are that process's
            scale = value.abs().max().clamp_min(1e-6) if value.numel() else 1.0
            error = ((half[key] - value).abs().max() / scale).item() if value.numel() else 0.0
            assert error < 1e-5, f"rank {rank}: {key} differs by {error:.2g}"
