"""Contrastive losses and codes beside lightly's (and solo-learn's SimCLR loss): time and memory.

python benchmarks/losses.py [--rounds 15] [--threads 2] [--only ROW]
                            [--solo-learn WHEEL]        writes results/losses.json

Each row times forward and backward, with all that a step does for it (the queue
takes in its keys, rows are normalised, identities compared). solo-learn's loss
is one file, read out of its wheel: its package needs more than it.
"""

from __future__ import annotations

import argparse
import statistics
import zipimport
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec
from typing import Any

from side_by_side import alternate, compared, facts, peak_mib, steady_allocator, write

Row = dict[str, Callable[[], Any]]


def nt_xent(device: str, solo_learn: str | None) -> Row:
    """SimCLR: 4096 images, two views, d = 128."""
    import torch
    from lightly.loss import NTXentLoss

    import coview

    temperature = 0.5
    a, b = (torch.randn(4096, 128, device=device, requires_grad=True) for _ in range(2))
    own = torch.arange(4096, device=device)
    loss: Any = coview.component("losses", "info-nce", temperature=temperature)
    source: Any = coview.component("negatives", "in-batch")
    views, names = {0: a, 1: b}, {0: own, 1: own}
    encoded = coview.Encoded(views, views, names, ((0, 1), (1, 0)), {})
    targets = coview.Targets(views, names)

    def ours() -> float:
        negatives = source.draw_negatives(targets)
        value = loss.compute_loss(encoded, targets, (negatives,), coview.Step(device=device))
        return backward(value)

    entrants = {"coview": ours, "lightly": lambda: backward(theirs(a, b))}
    theirs = NTXentLoss(temperature)
    if solo_learn:
        solo = from_wheel(solo_learn, "solo/losses", "simclr").simclr_loss_func
        entrants["solo-learn"] = lambda: backward(solo(a, b, temperature))
    agree(entrants, (a, b), 1e-5)
    return entrants


def moco(device: str, solo_learn: str | None) -> Row:
    """MoCo: 256 queries, 65536 keys of width 128, taken in after each step."""
    import torch
    from lightly.loss import NTXentLoss

    import coview

    temperature, size = 0.2, 65536
    plan = coview.Plan(dataset_size=10 * size, batch_size=256, dim=128)
    query = torch.randn(256, 128, device=device, requires_grad=True)
    key, own = torch.randn(256, 128, device=device), torch.arange(256, device=device)
    loss: Any = coview.component("losses", "info-nce", temperature=temperature)
    queue: Any = coview.component("negatives", "queue", plan=plan, size=size).to(device)
    encoded = coview.Encoded({0: query}, {0: query}, {0: own}, ((0, 1),), {})
    targets, step = coview.Targets({1: key}, {1: own}), coview.Step(device=device)
    theirs = NTXentLoss(temperature, memory_bank_size=(size, 128)).to(device)
    theirs(query, key)  # fills the bank at random
    theirs.memory_bank.bank = queue.rows.clone()

    def ours() -> float:
        negatives = queue.draw_negatives(targets, step)
        value = backward(loss.compute_loss(encoded, targets, (negatives,), step))
        queue.update_target(targets, step)
        return value

    entrants = {"coview": ours, "lightly": lambda: backward(theirs(query, key))}
    agree(entrants, (query,), 1e-5)
    return entrants


def sinkhorn(device: str, solo_learn: str | None) -> Row:
    """SwAV's codes: 4096 rows, 3000 prototypes, three iterations."""
    import torch
    from lightly.loss.swav_loss import sinkhorn as theirs

    from coview_swav.sinkhorn import sinkhorn as ours

    scores = (0.1 * torch.randn(4096, 3000, device=device)).clamp(-1, 1)
    difference = (ours(scores) - theirs(scores)).abs().max().item()
    if difference > 2e-6:
        raise SystemExit(f"These codes differ by {difference}, so their times mean nothing.")
    return {"coview": lambda: ours(scores), "lightly": lambda: theirs(scores)}


ROWS = {"nt-xent 4096x2": nt_xent, "moco 256 x 65536": moco, "sinkhorn 4096 x 3000": sinkhorn}


def backward(value: Any) -> float:
    """Run backward; return the value detached, not read."""
    value.backward()
    return value.detach()  # type: ignore[no-any-return]


def agree(entrants: Row, trained: Sequence[Any], tolerance: float) -> None:
    """Stop if entrants do not compute the same loss and, relative to its size, gradient."""
    losses, gradients = {}, {}
    for name, run in entrants.items():
        for tensor in trained:
            tensor.grad = None
        losses[name] = float(run())
        gradients[name] = [tensor.grad.clone() for tensor in trained]
    first = gradients["coview"]
    errors = {
        name: max(float((g - f).norm() / f.norm()) for g, f in zip(theirs, first, strict=True))
        for name, theirs in gradients.items()
    }
    if max(losses.values()) - min(losses.values()) > tolerance or max(errors.values()) > 1e-3:
        raise SystemExit(f"These differ, so their times mean nothing: {losses}, {errors}")


def from_wheel(wheel: str, folder: str, name: str) -> Any:
    """Load one module out of a wheel without its package."""
    spec = zipimport.zipimporter(f"{wheel}/{folder}").find_spec(name)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{wheel} has no {folder}/{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=ROWS)
    parser.add_argument("--solo-learn", help="its wheel; left out, it is not measured")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = {}
    for title, make in ROWS.items():
        if options.only in (None, title):
            entrants = make(device, options.solo_learn)
            seconds = alternate(entrants, options.rounds)
            memory = {name: peak_mib(run) for name, run in entrants.items()}
            others = [name for name in entrants if name != "coview"]
            rows[title] = {
                "median_ms": {n: 1e3 * statistics.median(s) for n, s in seconds.items()},
                "ratios": [compared(seconds, "coview", other) for other in others],
                "peak_mib": memory,
                "memory_ratios": {o: memory["coview"] / max(memory[o], 0.01) for o in others},
                "raw_seconds": seconds,
            }
            print(title, {k: v for k, v in rows[title].items() if k != "raw_seconds"}, flush=True)
    write("losses", {**facts(options.rounds), "compiled": False, "rows": rows})


if __name__ == "__main__":
    steady_allocator()
    main()
