"""Peak memory of a training step of every installed method, beyond its bare network.

    python benchmarks/memory.py [--batch-size 32] [--methods NAME ...]
                                [--quick --out FOLDER]       writes results/memory.json

Small presets at 32 pixels, float32. A step's peak is counted over a run's first two
steps, on top of what is kept between steps (weights, target, queue or bank, the
optimiser's state): activations, gradients, views, loss. The bare step is the
networks' forward and backward on views made beforehand (as in step.py). "Beyond"
is the first less the second: what the method itself costs. lightly's loops, from
its documentation, get views that other processes have made. Methods of sound are
left out: they take other data.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import side_by_side
import step

# So many that MoCo's queue, which holds less than a data set's images, has lightly's size.
COUNT = 1 + int((step.QUEUE + 1024) / 0.8)
PEERS = ("simclr", "moco", "byol")
TRIES = 3


def methods() -> list[str]:
    """Return every installed method of images."""
    from coview.recipes.recipe import method_names
    from coview.testing.recipes import resolved

    def takes(name: str) -> str:
        return getattr(resolved(name).part("views").factory, "takes", "images")

    return [name for name in method_names() if takes(name) == "images"]


def ours(
    method: str,
    batch: int,
    *,
    backbone: str | None = None,
    count: int = COUNT,
    device: str = "cpu",
) -> dict[str, float]:
    """Return what a method of coview's takes, in MiB."""
    counts = (counted(method, batch, backbone, count, device) for _ in range(TRIES))
    # The profiler was seen to lose an allocation, once in some thirty counts.
    found = next((count for count in counts if count[0] > 0.95 * count[1]), None)
    if found is None:
        raise RuntimeError(f"{method}: a step took less than its bare step, {TRIES} times")
    return row(*found)


def counted(
    method: str, batch: int, backbone: str | None, count: int, device: str
) -> tuple[float, float, float]:
    """Return the peaks of the step and of the bare one, and what is kept between steps."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        pixels = torch.zeros(count, 3, step.SIDE, step.SIDE, dtype=torch.uint8)
        run = step.started(  # too short a run for its views to be compiled
            method, batch, backbone, False, folder, pixels=pixels, epochs=12, device=device
        )
        before = mib(_kept_by(run.optimizer))
        whole = peak(step.whole(run), 2)
        after = mib(_kept_by(run.optimizer))  # some optimisers make their state in the first step
        kept = after + mib([*run.method.parameters(), *run.method.buffers()])
        run.optimizer.zero_grad(set_to_none=True)
        return whole - (after - before), peak(step.bare(run), 1), kept


def lightly(method: str, batch: int, device: str = "cpu") -> dict[str, float]:
    """Return what lightly's loop takes, in MiB."""
    import torch

    shape = (batch, 3, step.SIDE, step.SIDE)
    first, second = (torch.randn(shape, device=device) for _ in range(2))
    whole, bare = step.LIGHTLY[method]("resnet18", device)
    theirs = peak(lambda: whole(first, second), 2)
    return row(theirs, peak(lambda: bare(first, second), 1))


def row(whole: float, bare: float, kept: float | None = None) -> dict[str, float]:
    """Return a row of the table."""
    found = {"step MiB": whole, "bare MiB": bare, "beyond MiB": whole - bare}
    found |= {} if kept is None else {"kept between steps MiB": kept}
    return {name: round(value, 1) for name, value in found.items()} | {
        "beyond / bare": round((whole - bare) / bare, 3)
    }


def peak(once: Callable[[], Any], times: int) -> float:
    """Return the most that steps hold: what one leaves behind for the next counts too."""

    def several() -> None:
        for _ in range(times):
            once()

    return side_by_side.peak_mib(several)


def _kept_by(optimizer: Any) -> Iterable[Any]:
    import torch

    values = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in values if isinstance(value, torch.Tensor)]


def mib(tensors: Iterable[Any]) -> float:
    """Return what tensors take; one that is there twice counts once."""
    sizes = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
    return sum(sizes.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--no-peers", action="store_true")
    side_by_side.add_quick(parser)
    options = parser.parse_args()
    side_by_side.refuse_quick_results(parser, options)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 16 if options.quick else options.batch_size
    small = {"backbone": "resnet10-quarter", "count": 256} if options.quick else {}
    design = f"small presets, {step.SIDE} pixels, batches of {batch}, float32, nothing compiled"
    document: dict[str, Any] = {**side_by_side.facts(), "design": design, "summary": {}}
    rows = document["summary"]
    for method in options.methods or methods():
        rows[method] = ours(method, batch, device=device, **small)
        if method in PEERS and not options.no_peers and not options.quick:
            rows[f"{method}, lightly's loop"] = lightly(method, batch, device)
        print(method, json.dumps(rows[method]), flush=True)
        side_by_side.write("memory", document, options.out)


if __name__ == "__main__":
    main()
