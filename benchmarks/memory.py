"""Peak memory of a training step of every installed method, beyond its bare network."""

from collections.abc import Iterable
from typing import Any

import torch

from benchmarks import engine, peers, runner
from benchmarks.engine import QUEUE, SIDE, methods

# So many that MoCo's queue, which holds less than a data set's images, has lightly's size.
COUNT = 1 + int((QUEUE + 1024) / 0.8)
# The profiler was seen to lose an allocation, once in some thirty counts.
TRIES = 3
OPTIONS = {"batch_size": 32, "no_peers": False, "rows": methods()}


def main(asked: runner.Asked) -> None:
    batch, device = 16 if asked.quick else asked.batch_size, engine.device()
    small = {"backbone": "resnet10-quarter", "count": 256} if asked.quick else {}
    design = f"small presets, {SIDE} pixels, batches of {batch}, float32, nothing compiled"

    def measure(method: str) -> dict[str, Any]:
        found = {method: ours(method, batch, device=device, **small)}
        if method in peers.METHODS and not asked.no_peers and not asked.quick:
            loop = peers.Loop(method, "resnet18", device)
            made = torch.randn(2, batch, 3, SIDE, SIDE, device=device)
            whole = runner.peak_mib(lambda: loop.step(*made), 2)
            found[f"{method}, lightly's loop"] = row(
                whole, runner.peak_mib(lambda: loop.bare(*made))
            )
        return {"summary": found}

    runner.rows(asked, {"design": design}, measure)


def ours(
    method: str, batch: int, backbone: str | None = None, count: int = COUNT, device: str = "cpu"
) -> dict[str, float]:
    for _ in range(TRIES):
        whole, bare, kept = counted(method, batch, backbone, count, device)
        if whole > 0.95 * bare:
            return row(whole, bare, kept)
    raise RuntimeError(f"{method}: a step took less than its bare step, {TRIES} times")


def counted(
    method: str, batch: int, backbone: str | None, count: int, device: str
) -> tuple[float, float, float]:
    """Return the peaks of the step and of the bare one, and what is kept between steps."""
    pixels = torch.zeros(count, 3, SIDE, SIDE, dtype=torch.uint8)
    # Too short a run for its views to be compiled.
    run = engine.started(method, batch, backbone, pixels=pixels, epochs=12, device=device)

    def state() -> float:
        values = (value for state in run.optimizer.state.values() for value in state.values())
        return mib(value for value in values if isinstance(value, torch.Tensor))

    before, whole = state(), runner.peak_mib(engine.whole(run), 2)
    after = state()  # some optimisers make their state in the first step
    kept = after + mib([*run.method.parameters(), *run.method.buffers()])
    run.optimizer.zero_grad(set_to_none=True)
    return whole - (after - before), runner.peak_mib(engine.bare(run)), kept


def row(whole: float, bare: float, kept: float | None = None) -> dict[str, float]:
    found = {"step MiB": whole, "bare MiB": bare, "beyond MiB": whole - bare}
    found |= {} if kept is None else {"kept between steps MiB": kept}
    found = {name: round(value, 1) for name, value in found.items()}
    return {**found, "beyond / bare": round((whole - bare) / bare, 3)}


def mib(tensors: Iterable[Any]) -> float:
    sizes = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
    return sum(sizes.values()) / 2**20
