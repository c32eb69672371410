"""What a step costs when one size grows: fitted exponents beside what theory says."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch

import coview
from benchmarks import engine, losses, memory, runner

UPPER, SHORTEST = 3, 0.003
SIDE, DIM, BACKBONE = 16, losses.DIM, "resnet10-quarter"
Theory = float | list[float]
Built = tuple[dict[str, runner.Once], dict[str, float]]


@attrs.frozen
class Law:
    """One size, and what grows with it, with the exponents that theory gives, or their bounds."""

    sizes: Sequence[int]
    times: Mapping[str, Theory]
    memory: Mapping[str, Theory]
    build: Callable[[int, str], Built]
    beyond: Mapping[str, Theory] = attrs.field(factory=dict)


def begun(method: str, count: int, batch: int, device: str, sets: Mapping[str, Any] = {}) -> Any:
    small = {"backbone.stem": "7x7", "views.compile": "off", **sets}
    pixels = engine.images(math.ceil(count / 0.8), SIDE)  # a fifth is held out
    return engine.started(method, batch, BACKBONE, pixels=pixels, sets=small, device=device)


def whole_step(batch: int, device: str) -> Built:
    run = begun("simclr", 2 * batch, batch, device)
    whole, network, (_, loss) = engine.whole(run), engine.bare(run), losses.nt_xent(batch, device)
    views = engine.views(run)
    timed = {"views": views, "network": network, "NT-Xent": loss, "whole step": whole}
    return timed, {"network": peak(network), "whole step": peak(whole)}


def loss_alone(images: int, device: str) -> Built:
    _, once = losses.nt_xent(images, device)
    return {"NT-Xent": once}, {"NT-Xent": peak(once)}


def queue(size: int, device: str) -> Built:
    batch = losses.QUERIES
    _, _, keys, parts = losses.with_queue(size, device)
    more = {"negatives.size": size, "encoder.norm_groups": 1, "target.shuffle": False}
    whole = engine.whole(begun("moco", size + 2 * batch, batch, device, more))
    sizes = {"loss": peak(parts["loss"]), "queue": memory.mib([keys.rows])}
    return {**parts, "whole step": whole}, {**sizes, "whole step": peak(whole)}


def data_set(images: int, device: str) -> Built:
    simclr, full = (begun(method, images, 64, device) for method in ("simclr", "instdisc"))
    noisy = begun("instdisc", images, 64, device, {"target.draws": 4096})
    batches, numbers = engine.endless(simclr), iter(range(10**9))
    step, draws = engine.whole(simclr), engine.whole(noisy)
    timed = {
        "a resident batch": lambda: next(batches),
        "an epoch's order": lambda: simclr.batches._order(next(numbers)),
        "SimCLR step": step,
        "InstDisc step, 4096 draws": draws,
        "InstDisc step, all rows": engine.whole(full),
    }
    return timed, {
        "images": memory.mib([simclr.batches._images]),
        "bank": memory.mib([full.method.components["target"].rows]),
        "SimCLR step": peak(step),
        "InstDisc step, 4096 draws": peak(draws),
    }


def noise_samples(draws: int, device: str) -> Built:
    """InstDisc's NCE: rows are fetched for every query, and compared."""
    batch, plan = 64, coview.Plan(dataset_size=65536, batch_size=64, dim=DIM)
    bank: Any = coview.component("targets", "memory-bank", plan=plan, draws=draws).to(device)
    loss: Any = coview.component("losses", "nce", plan=plan, temperature=0.07).to(device)
    query = torch.randn(batch, DIM, device=device, requires_grad=True)
    records = coview.Batch(torch.empty(batch, 0), torch.arange(batch, device=device))
    own, numbers = {0: records.indices}, iter(range(10**9))
    encoded = coview.Encoded({0: query}, {0: query}, own, ((0, 0),), {})
    targets = coview.Targets({0: bank.rows[:batch]}, own)

    def once() -> None:
        where = coview.Step(number=next(numbers), device=device)
        negatives = bank.draw_negatives(targets, records, where)
        loss.compute_loss(encoded, targets, (negatives,), where).backward()

    return {"draw and NCE": once}, {"draw and NCE": peak(once)}


def prototypes(count: int, device: str) -> Built:
    scores = (0.1 * torch.randn(256, count, device=device)).clamp(-1, 1)
    once = partial(engine.sinkhorn, scores)
    return {"Sinkhorn": once}, {"Sinkhorn": peak(once)}


def gallery(rows: int, device: str) -> Built:
    table, queries = torch.randn(rows, DIM, device=device), torch.randn(512, DIM, device=device)
    near = partial(engine.nearest, engine.InMemory(table), queries, 20)
    search = lambda: deque(near(), maxlen=0)  # noqa: E731
    return {"search": search}, {"gallery": memory.mib([table]), "search": peak(search)}


BUILD = (whole_step, loss_alone, queue, data_set, noise_samples, prototypes, gallery)
LAWS = {
    name: Law(build=build, **design)
    for (name, design), build in zip(runner.DESIGN["scaling"].items(), BUILD, strict=True)
}
OPTIONS = {"rounds": 6, "threads": 1, "rows": LAWS, "steady": True}


def main(asked: runner.Asked) -> None:
    def measure(name: str) -> dict[str, Any]:
        law = LAWS[name]
        if asked.quick:
            law = attrs.evolve(law, sizes=[64 * 2**power for power in range(UPPER + 1)])
        result = measured(law, asked.rounds, engine.device())
        return {"figures": {name: result}, "summary": summary(name, law, result)}

    runner.rows(asked, {}, measure)


def peak(function: runner.Once) -> float:
    function()
    return runner.peak_mib(function)


def repeated(function: runner.Once) -> tuple[runner.Once, int]:
    """Return the function done often enough for a clock, and how often that is."""
    function()
    started = time.perf_counter()
    function()
    count = math.ceil(SHORTEST / max(time.perf_counter() - started, 1e-7))
    return runner.several(function, count), count


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    return statistics.linear_regression([*map(math.log, sizes)], [*map(math.log, values)]).slope


def fitted(sizes: Sequence[int], by_size: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the median exponent of the rounds, and its interval; none where nothing grows."""
    rounds = [v for v in zip(*by_size[-UPPER:], strict=True) if min(v) > 0]
    slopes = [slope(sizes[-UPPER:], values) for values in rounds] or [math.nan]
    interval = list(runner.median_interval(slopes))
    return {"exponent": statistics.median(slopes), "interval_95": interval, "rounds": slopes}


def measured(law: Law, rounds: int, device: str) -> dict[str, Any]:
    entrants, counts = {}, {}
    memory: dict[str, list[float]] = {name: [] for name in law.memory}
    for size in law.sizes:
        timed, sized = law.build(size, device)
        for name, function in timed.items():
            entrants[f"{name} {size}"], counts[f"{name} {size}"] = repeated(function)
        for name in memory:
            memory[name].append(sized[name])
    seconds = runner.alternate(entrants, rounds, warm_up=1)
    per_call = {key: [s / counts[key] for s in values] for key, values in seconds.items()}
    by_size = {n: [per_call[f"{n} {size}"] for size in law.sizes] for n in law.times}
    times = {name: fitted(law.sizes, values) for name, values in by_size.items()}
    for name in law.beyond:
        first, *others = by_size[name]
        left = [[a - b for a, b in zip(values, first, strict=True)] for values in others]
        times[f"{name} beyond {law.sizes[0]}"] = fitted(law.sizes[1:], left)
    sized = {name: slope(law.sizes[-UPPER:], v[-UPPER:]) for name, v in memory.items()}
    found = {"sizes": law.sizes, "seconds": by_size, "memory_mib": memory}
    return {**found, "times": times, "memory": sized}


def summary(name: str, law: Law, result: Mapping[str, Any]) -> dict[str, Any]:
    beyond = {f"{key} beyond {law.sizes[0]}": value for key, value in law.beyond.items()}
    theory = {"time": {**law.times, **beyond}, "memory": law.memory}
    rows = {}
    every = [(kind, *one) for kind, by_what in theory.items() for one in by_what.items()]
    for kind, what, said in every:
        fit = result["times"][what] if kind == "time" else {"exponent": result["memory"][what]}
        low, high = fit.get("interval_95", (0, 0))
        rows[f"{name}: {what}, {kind}"] = {
            "theory": " to ".join(map(str, said)) if isinstance(said, list) else str(said),
            "exponent": f"{fit['exponent'] + 0.0:.2f}".replace("-0.00", "0.00"),
            "95 % interval": f"{low:.2f} to {high:.2f}" if kind == "time" else "counted",
            "fitted over": f"{law.sizes[-UPPER]} to {law.sizes[-1]}",
        }
    return rows
