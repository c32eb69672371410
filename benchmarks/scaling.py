"""What a step costs when one size grows: fitted exponents beside what theory says.

    python benchmarks/scaling.py [--rounds 6] [--threads 1] [--only LAW ...]
                                 [--quick --out FOLDER]       writes results/scaling.json

One size grows by factors of four (batch, queue, data set, noise samples,
prototypes, gallery), all else stays. An exponent is the slope of log(time), or
of log(memory), against log(size) over the largest three sizes, a factor of 16:
1 is proportional, 2 quadratic, 0 does not depend on it. Sizes take turns, so
every round gives an exponent; the median and its interval are reported.
Memory is counted, not sampled, and has one exponent. "Beyond" is the time less
that of the smallest size, which leaves out what does not grow.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import side_by_side
import step

UPPER = 3
SHORTEST = 0.003
SIDE, DIM, BACKBONE = 16, 128, "resnet10-quarter"
Theory = float | tuple[float, float]
Timed = dict[str, Callable[[], Any]]


@attrs.frozen
class Law:
    """One size, and what grows with it.

    Attributes:
        sizes: geometric.
        times, memory: by quantity, the exponent that theory gives, or its bounds.
        build: of a size, what to time by quantity, and how many MiB by quantity.
        beyond: timed quantities that are fitted less the smallest size's time too,
            with the exponent of what is left.
    """

    sizes: Sequence[int]
    times: Mapping[str, Theory]
    memory: Mapping[str, Theory]
    build: Callable[[int, str, str], tuple[Timed, dict[str, float]]]
    beyond: Mapping[str, Theory] = attrs.field(factory=dict)


def begun(method: str, count: int, batch: int, device: str, folder: str, **sets: Any) -> Any:
    """Return a run on so many images, a setting ``a__b`` for ``a.b``; none is held out."""
    own = {key.replace("__", "."): value for key, value in sets.items()}
    small = {"backbone.stem": "7x7", "views.compile": "off", **own}
    place = tempfile.mkdtemp(dir=folder)
    pixels = step.images(math.ceil(count / 0.8), SIDE)  # a fifth is held out
    return step.started(
        method, batch, BACKBONE, False, place, pixels=pixels, sets=small, device=device
    )


def whole_step(batch: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """SimCLR's step, and its parts: views, network, loss."""
    run = begun("simclr", 2 * batch, batch, device, folder)
    whole, network = step.whole(run), step.bare(run)
    loss = nt_xent(batch, device)
    timed = {"views": views(run), "network": network, "NT-Xent": loss, "whole step": whole}
    return timed, {"network": peak(network), "whole step": peak(whole)}


def views(run: Any) -> Callable[[], Any]:
    """Return what makes the views of a batch."""
    import torch

    from coview.nn.compile import compiled
    from coview.training.loop import _position

    batch, hook = next(run.batches.epoch(0)), run.method.manager.hook

    def once() -> Any:
        with torch.no_grad(), compiled(run.options.compile):
            return hook.generate_views(batch=batch, step=_position(run))

    return once


def nt_xent(images: int, device: str) -> Callable[[], Any]:
    """Return SimCLR's loss of two views, forward and backward."""
    import torch

    import coview

    views = {view: torch.randn(images, DIM, device=device, requires_grad=True) for view in (0, 1)}
    names = dict.fromkeys((0, 1), torch.arange(images, device=device))
    loss: Any = coview.component("losses", "info-nce", temperature=0.5)
    source: Any = coview.component("negatives", "in-batch")
    encoded = coview.Encoded(views, views, names, ((0, 1), (1, 0)), {})
    targets = coview.Targets(views, names)
    where = coview.Step(device=device)

    def once() -> None:
        negatives = source.draw_negatives(targets)
        loss.compute_loss(encoded, targets, (negatives,), where).backward()

    return once


def loss_alone(images: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """NT-Xent of two views."""
    once = nt_xent(images, device)
    return {"NT-Xent": once}, {"NT-Xent": peak(once)}


def queue(size: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """MoCo's queue: loss and enqueueing by themselves, and the step."""
    import torch

    import coview

    batch = 256
    plan = coview.Plan(dataset_size=2 * size + batch, batch_size=batch, dim=DIM)
    query = torch.randn(batch, DIM, device=device, requires_grad=True)
    key, own = torch.randn(batch, DIM, device=device), torch.arange(batch, device=device)
    loss: Any = coview.component("losses", "info-nce", temperature=0.2)
    keys: Any = coview.component("negatives", "queue", plan=plan, size=size).to(device)
    encoded = coview.Encoded({0: query}, {0: query}, {0: own}, ((0, 1),), {})
    targets, where = coview.Targets({1: key}, {1: own}), coview.Step(device=device)

    def compare() -> None:
        negatives = keys.draw_negatives(targets, where)
        loss.compute_loss(encoded, targets, (negatives,), where).backward()

    def enqueue() -> None:
        with torch.no_grad():
            keys.update_target(targets, where)

    more: dict[str, Any] = {
        "negatives__size": size,
        "encoder__norm_groups": 1,
        "target__shuffle": False,
    }
    run = begun("moco", size + 2 * batch, batch, device, folder, **more)
    whole = step.whole(run)
    timed = {"loss": compare, "enqueue": enqueue, "whole step": whole}
    memory = {"loss": peak(compare), "queue": mib(keys.rows)}
    return timed, {**memory, "whole step": peak(whole)}


def data_set(images: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """Loading, SimCLR and InstDisc, whose bank has a row for every image."""
    batch = 64
    simclr = begun("simclr", images, batch, device, folder)
    noisy = begun("instdisc", images, batch, device, folder, target__draws=4096)
    full = begun("instdisc", images, batch, device, folder)
    batches = step.endless(simclr)
    numbers = iter(range(10**9))
    steps = {name: step.whole(run) for name, run in {"s": simclr, "n": noisy, "f": full}.items()}
    timed = {
        "a resident batch": lambda: next(batches),
        "an epoch's order": lambda: simclr.batches._order(next(numbers)),
        "SimCLR step": steps["s"],
        "InstDisc step, 4096 draws": steps["n"],
        "InstDisc step, all rows": steps["f"],
    }
    memory = {
        "images": mib(simclr.batches._images),
        "bank": mib(full.method.components["target"].rows),
        "SimCLR step": peak(steps["s"]),
        "InstDisc step, 4096 draws": peak(steps["n"]),
    }
    return timed, memory


def noise_samples(draws: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """InstDisc's NCE: rows are fetched for every query, and compared."""
    import torch

    import coview

    batch, images = 64, 65536
    plan = coview.Plan(dataset_size=images, batch_size=batch, dim=DIM)
    bank: Any = coview.component("targets", "memory-bank", plan=plan, draws=draws).to(device)
    loss: Any = coview.component("losses", "nce", plan=plan, temperature=0.07).to(device)
    query = torch.randn(batch, DIM, device=device, requires_grad=True)
    records = coview.Batch(torch.empty(batch, 0), torch.arange(batch, device=device))
    own = {0: records.indices}
    encoded = coview.Encoded({0: query}, {0: query}, own, ((0, 0),), {})
    targets = coview.Targets({0: bank.rows[:batch]}, own)
    numbers = iter(range(10**9))

    def once() -> None:
        where = coview.Step(number=next(numbers), device=device)
        negatives = bank.draw_negatives(targets, records, where)
        loss.compute_loss(encoded, targets, (negatives,), where).backward()

    return {"draw and NCE": once}, {"draw and NCE": peak(once)}


def prototypes(count: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """SwAV's codes of 256 rows."""
    import torch

    from coview_swav.sinkhorn import sinkhorn

    scores = (0.1 * torch.randn(256, count, device=device)).clamp(-1, 1)
    return {"Sinkhorn": lambda: sinkhorn(scores)}, {"Sinkhorn": peak(lambda: sinkhorn(scores))}


def gallery(rows: int, device: str, folder: str) -> tuple[Timed, dict[str, float]]:
    """kNN of 512 queries; what it keeps beside the rows themselves."""
    import torch

    from coview.evaluation.neighbours import nearest
    from coview.evaluation.rows import InMemory

    table, queries = torch.randn(rows, DIM, device=device), torch.randn(512, DIM, device=device)

    def search() -> None:
        for _ in nearest(InMemory(table), queries, 20):
            pass

    return {"search": search}, {"gallery": mib(table), "search": peak(search)}


LAWS: dict[str, Law] = {
    "batch": Law(
        (16, 64, 256, 1024, 4096),
        {"views": 1, "network": 1, "NT-Xent": 2, "whole step": (1, 2)},
        {"network": 1, "whole step": 1},
        whole_step,
    ),
    "batch, NT-Xent alone": Law(
        (32, 128, 512, 2048, 8192), {"NT-Xent": 2}, {"NT-Xent": (0, 1)}, loss_alone
    ),
    "queue": Law(
        (1024, 4096, 16384, 65536, 262144),
        {"loss": 1, "enqueue": 0, "whole step": (0, 1)},
        {"loss": 0, "queue": 1, "whole step": 0},
        queue,
        {"whole step": 1},
    ),
    "data set": Law(
        (1024, 4096, 16384, 65536, 262144),
        {
            "a resident batch": 0,
            "an epoch's order": 1,
            "SimCLR step": 0,
            "InstDisc step, 4096 draws": 0,
            "InstDisc step, all rows": (0, 1),
        },
        {"images": 1, "bank": 1, "SimCLR step": 0, "InstDisc step, 4096 draws": 0},
        data_set,
        {"InstDisc step, all rows": 1},
    ),
    "noise samples": Law(
        (64, 256, 1024, 4096, 16384), {"draw and NCE": 1}, {"draw and NCE": 1}, noise_samples
    ),
    "prototypes": Law((128, 512, 2048, 8192, 32768), {"Sinkhorn": 1}, {"Sinkhorn": 1}, prototypes),
    "gallery": Law(
        (1024, 4096, 16384, 65536, 262144), {"search": 1}, {"gallery": 1, "search": (0, 1)}, gallery
    ),
}


def peak(function: Callable[[], Any]) -> float:
    """Return the most that it allocates, in MiB, after a first call."""
    function()
    return side_by_side.peak_mib(function)


def mib(tensor: Any) -> float:
    """Return what a tensor takes."""
    return float(tensor.numel() * tensor.element_size() / 2**20)


def repeated(function: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
    """Return the function done often enough for a clock, and how often that is."""
    function()
    started = time.perf_counter()
    function()
    count = math.ceil(SHORTEST / max(time.perf_counter() - started, 1e-7))

    def many() -> None:
        for _ in range(count):
            function()

    return many, count


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the least-squares slope of log(value) against log(size)."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope


def fitted(sizes: Sequence[int], by_size: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the median exponent of the rounds, and its interval; none where nothing grows."""
    rounds = [values for values in zip(*by_size, strict=True) if min(values) > 0]
    slopes = [slope(sizes, values) for values in rounds] or [math.nan]
    low, high = side_by_side.median_interval(slopes)
    return {"exponent": statistics.median(slopes), "interval_95": [low, high], "rounds": slopes}


def measured(law: Law, rounds: int, device: str) -> dict[str, Any]:
    """Measure one law: medians and exponents by quantity."""
    entrants: Timed = {}
    counts: dict[str, int] = {}
    memory: dict[str, list[float]] = {name: [] for name in law.memory}
    with tempfile.TemporaryDirectory() as folder:
        for size in law.sizes:
            timed, sized = law.build(size, device, folder)
            for name, function in timed.items():
                entrants[f"{name} {size}"], counts[f"{name} {size}"] = repeated(function)
            for name in memory:
                memory[name].append(sized[name])
        seconds = side_by_side.alternate(entrants, rounds, warm_up=1)
    per_call = {key: [s / counts[key] for s in values] for key, values in seconds.items()}
    by_size = {n: [per_call[f"{n} {size}"] for size in law.sizes] for n in law.times}
    upper = law.sizes[-UPPER:]
    found = {"sizes": law.sizes, "seconds": by_size, "memory_mib": memory}
    times = {name: fitted(upper, values[-UPPER:]) for name, values in by_size.items()}
    for name in law.beyond:
        first, *_ = by_size[name]
        left = [[a - b for a, b in zip(v, first, strict=True)] for v in by_size[name][-UPPER:]]
        times[f"{name} beyond {law.sizes[0]}"] = fitted(upper, left)
    sized = {name: slope(upper, values[-UPPER:]) for name, values in memory.items()}
    return {**found, "times": times, "memory": sized}


def summary(name: str, law: Law, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of the table: theory beside the measurement."""
    over = f"{law.sizes[-UPPER]} to {law.sizes[-1]}"
    beyond = {f"{key} beyond {law.sizes[0]}": value for key, value in law.beyond.items()}
    rows = {}
    for what, theory in {**law.times, **beyond}.items():
        fit = result["times"][what]
        low, high = fit["interval_95"]
        interval = f"{low:.2f} to {high:.2f}"
        rows[f"{name}: {what}, time"] = _row(theory, fit["exponent"], interval, over)
    for what, theory in law.memory.items():
        counted = result["memory"][what]
        rows[f"{name}: {what}, memory"] = _row(theory, counted, "counted", over)
    return rows


def _row(theory: Theory, value: float, interval: str, over: str) -> dict[str, Any]:
    said = f"{theory[0]} to {theory[1]}" if isinstance(theory, tuple) else str(theory)
    measured = f"{value + 0.0:.2f}".replace("-0.00", "0.00")
    return {"theory": said, "exponent": measured, "95 % interval": interval, "fitted over": over}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=LAWS, default=list(LAWS))
    side_by_side.add_quick(parser)
    options = parser.parse_args()
    side_by_side.refuse_quick_results(parser, options)
    import torch

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    document: dict[str, Any] = {**side_by_side.facts(options.rounds), "figures": {}, "summary": {}}
    for name in options.only:
        law = LAWS[name]
        if options.quick:
            law = attrs.evolve(law, sizes=[64 * 2**power for power in range(UPPER + 1)])
        result = measured(law, options.rounds, device)
        document["figures"][name] = result
        document["summary"] |= summary(name, law, result)
        print(json.dumps(summary(name, law, result), indent=1), flush=True)
    print(side_by_side.write("scaling", document, options.out))


if __name__ == "__main__":
    side_by_side.steady_allocator()
    main()
