"""Peak memory of a training step of every installed method, beyond its bare network.

Small presets at 32 pixels, float32. A step's peak is counted over a run's first two
steps, on top of what is kept between steps (weights, target, queue or bank, the
optimiser's state): activations, gradients, views, loss. The bare step is the
networks' forward and backward on views made beforehand (as in step.py). "Beyond"
is the first less the second: what the method itself costs. lightly's loops, from
its documentation, get views that other processes have made. Methods of sound are
left out: they take other data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks import engine, peers, runner
from benchmarks.engine import QUEUE, SIDE, methods

# So many that MoCo's queue, which holds less than a data set's images, has lightly's size.
COUNT = 1 + int((QUEUE + 1024) / 0.8)
TRIES = 3


OPTIONS = {"batch_size": 32, "no_peers": False, "rows": methods()}


def main(asked: runner.Asked) -> None:
    batch, device = 16 if asked.quick else asked.batch_size, runner.device()
    small = {"backbone": "resnet10-quarter", "count": 256} if asked.quick else {}
    design = f"small presets, {SIDE} pixels, batches of {batch}, float32, nothing compiled"

    def measure(method: str) -> dict[str, Any]:
        found = {method: ours(method, batch, device=device, **small)}
        if method in peers.METHODS and not asked.no_peers and not asked.quick:
            found[f"{method}, lightly's loop"] = lightly(method, batch, device)
        return {"summary": found}

    runner.rows(asked, {"design": design}, measure)


def ours(method: str, batch: int, **sizes: Any) -> dict[str, float]:
    """Return what a method of coview's takes, in MiB; sizes are those of :func:`counted`."""
    counts = (counted(method, batch, **sizes) for _ in range(TRIES))
    # The profiler was seen to lose an allocation, once in some thirty counts.
    found = next((count for count in counts if count[0] > 0.95 * count[1]), None)
    if found is None:
        raise RuntimeError(f"{method}: a step took less than its bare step, {TRIES} times")
    return row(*found)


def counted(
    method: str, batch: int, backbone: str | None = None, count: int = COUNT, device: str = "cpu"
) -> tuple[float, float, float]:
    """Return the peaks of the step and of the bare one, and what is kept between steps."""
    pixels = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
    # Too short a run for its views to be compiled.
    run = engine.started(method, batch, backbone, pixels=pixels, epochs=12, device=device)
    before = mib(_kept_by(run.optimizer))
    whole = peak(engine.whole(run), 2)
    after = mib(_kept_by(run.optimizer))  # some optimisers make their state in the first step
    kept = after + mib([*run.method.parameters(), *run.method.buffers()])
    run.optimizer.zero_grad(set_to_none=True)
    return whole - (after - before), peak(engine.bare(run), 1), kept


def lightly(method: str, batch: int, device: str = "cpu") -> dict[str, float]:
    """Return what lightly's loop takes, in MiB."""
    made = [torch.randn(batch, 3, SIDE, SIDE, device=device) for _ in range(2)]
    loop = peers.Lightly(method, "resnet18", device)
    whole = peak(lambda: loop.step(*made), 2)
    return row(whole, peak(lambda: loop.bare(*made), 1))


def row(whole: float, bare: float, kept: float | None = None) -> dict[str, float]:
    """Return a row of the table."""
    found = {"step MiB": whole, "bare MiB": bare, "beyond MiB": whole - bare}
    found |= {} if kept is None else {"kept between steps MiB": kept}
    return {name: round(value, 1) for name, value in found.items()} | {
        "beyond / bare": round((whole - bare) / bare, 3)
    }


def peak(once: Callable[[], Any], times: int) -> float:
    """Return the most that steps hold: what one leaves behind for the next counts too."""
    return runner.peak_mib(runner.several(once, times))


def _kept_by(optimizer: Any) -> Iterable[Any]:
    values = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in values if isinstance(value, torch.Tensor)]


def mib(tensors: Iterable[Any]) -> float:
    """Return what tensors take; one that is there twice counts once."""
    sizes = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
    return sum(sizes.values()) / 2**20
