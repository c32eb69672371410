"""Everything that is measured on a GPU, in one call of under nine minutes.

python -m benchmarks gpu [--seconds 480] [--only PART ...] [--solo-learn WHEEL]
                         [--device cpu --quick --out FOLDER]    writes results/DEVICE.json
"""

from __future__ import annotations

import functools
import gc
import linecache
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import engine, knn, losses, memory, peers, roofline, runner, step, views
from coview.testing import Synchronisations

METHODS = peers.METHODS
WHOLE, QUICK = runner.DESIGN["gpu"]["whole"], runner.DESIGN["gpu"]["quick"]
Once = Callable[[], Any]
Row = dict[str, Any]


class MissingError(Exception):
    """A row cannot be measured; the text is the reason."""


@attrs.define
class Table:
    """What is measured, as it grows.

    Attributes:
        sizes: how large everything is, from design.toml.
        document: as it is written.
        ends: when the part in hand may begin no further row, in ``time.monotonic``'s seconds.
        part: the part in hand: its ``rows``, ``ratios`` and what is ``missing``, with reasons.
    """

    name: str
    out: Path
    sizes: Mapping[str, Any]
    device: str
    wheel: str | None
    document: dict[str, Any]
    ends: float = 0.0
    part: dict[str, Any] = attrs.field(factory=dict)

    def begin(self, name: str, ends: float) -> None:
        self.ends = ends
        self.part = {"seconds": 0.0, "summary": {}, "ratios": [], "missing": {}}
        self.document["parts"][name] = self.part

    def row(self, name: str, measure: Callable[..., Mapping[str, Any]], *given: Any) -> None:
        """Keep a row's numbers, and its ``ratios``; note why there are none if it fails."""
        try:
            if time.monotonic() > self.ends:
                raise MissingError("no time was left for it")
            found = dict(measure(*given))
        except Exception as error:
            self.part["missing"][name] = reason(error)
        else:
            self.part["ratios"] += [{"row": name, **one} for one in found.pop("ratios", [])]
            self.part["summary"] |= {name: found} if found else {}
        free()
        self.write()

    def write(self) -> None:
        runner.write(self.name, self.document, self.out)


def reason(error: Exception) -> str:
    """Return in one line what failed, without a path of this machine."""
    text = " ".join(str(error).split())
    text = re.sub(r"(?:[A-Za-z]:)?(?:[/\\][\w.+@~-]+)+[/\\]", "", text)[:300]
    return text if isinstance(error, MissingError) else f"{type(error).__name__}: {text}"


def free() -> None:
    """Give memory back, so that a row that failed costs the next one none."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# -- Training steps -----------------------------------------------------------------------------

pixels = functools.lru_cache(maxsize=2)(engine.images)


def ways() -> dict[str, bool]:
    """Return how a step can be run here: as it is, and compiled where a compiler is found.

    Every view is compiled if, and only if, the run is.
    """
    return {"eager": False} | ({"compiled": True} if engine.has_compiler() else {})


def time_steps(table: Table) -> None:
    """The step over the bare step, views in the step, images a second under the roof."""
    for way, compiled in ways().items():
        for size in table.sizes["steps"]:
            for method in table.sizes["compiled"] if compiled else METHODS:
                row = f"{method}, {size}"
                table.row(f"{row}, {way}", step_row, table, method, size, compiled)
                if not compiled:
                    table.row(f"{row}, lightly", peer_row, table, method, size, lightly)
                if not compiled and method == "simclr":
                    table.row(
                        f"{row}, solo-learn's loss", peer_row, table, method, size, solo_learn
                    )


def step_row(table: Table, method: str, size: str, compiled: bool) -> Row:
    network, side, batch, count, times, _ = table.sizes["steps"][size]
    more = {"pixels": pixels(count, side), "device": table.device, "compile": compiled}
    run = engine.started(method, batch, network, **more)
    bare = engine.bare(run)
    entrants = {"step": engine.whole(run), "bare": bare, "views": engine.views(run)}
    seconds = alternated(entrants, times, table)
    rate = times * batch / statistics.median(seconds["step"])
    queue = [len(b) for n, b in run.method.named_buffers() if n.endswith("negatives.rows")]
    found = {
        "ratios": [
            runner.compared(seconds, "step", "bare"),
            runner.compared(seconds, "views", "step"),
        ],
        "batch": batch,
        "precision": run.options.precision,
        **({"queue": queue[0]} if queue else {}),
        "images/s": round(rate),
    }
    try:
        return found | roofline.under_the_roof(bare, batch, rate)
    except Exception as error:  # where bounds cannot be counted, times are kept all the same
        table.part["missing"][f"{method}, {size}, roofline"] = reason(error)
        return found


def alternated(entrants: runner.Entrants, times: int, table: Table) -> runner.Times:
    """Alternate entrants that do so many steps a round: the device need not wait between them."""
    many = {name: runner.several(once, times) for name, once in entrants.items()}
    return runner.alternate(many, table.sizes["rounds"])


def peer_row(table: Table, method: str, size: str, make: Callable[..., Any]) -> Row:
    """lightly's loop with its own bare step, or solo-learn's loss in a plain loop."""
    _, _, batch, _, times, _ = table.sizes["steps"][size]
    half = torch.autocast(table.device, torch.bfloat16, enabled=table.device == "cuda")
    whole, bare = (half(once) for once in make(table, method, size))
    seconds = alternated({"step": whole, "bare": bare}, times, table)
    # Of all rounds: where views come late, a few rounds wait for all.
    rate = times * batch / statistics.mean(seconds["step"])
    return {
        "ratios": [runner.compared(seconds, "step", "bare")],
        "batch": batch,
        "precision": "bf16" if table.device == "cuda" else "fp32",
        "images/s": round(rate),
    }


def view_side(side: int) -> int:
    return side if side <= 64 else 224


def lightly(table: Table, method: str, size: str) -> tuple[Once, Once]:
    """Return lightly's loop and its bare step; its views are made by as many workers as cores."""
    _, side, batch, count, _, network = table.sizes["steps"][size]
    workers = 0 if table.sizes is QUICK else os.cpu_count() or 1
    return peers.lightly(
        method,
        batch,
        backbone=network,
        side=view_side(side),
        pixels=pixels(count, side)[: 16 * batch],  # each becomes a Pillow image first
        workers=workers,
        device=table.device,
        # The workers keep two batches each ready: of a short epoch that would be all.
        length=100 * batch * max(workers, 1),
    )


def solo_learn(table: Table, method: str, size: str) -> tuple[Once, Once]:
    """Return SimCLR's step with solo-learn's loss and head, on views made beforehand.

    Its own loop is a LightningModule that imports a package which is no longer
    released (pl_bolts), so that only the loss, which is a file of its own, can be run.
    """
    if not table.wheel:
        raise MissingError("solo-learn was not given (--solo-learn WHEEL)")
    _, side, batch, _, _, network = table.sizes["steps"][size]
    loss = peers.solo_learn(table.wheel)
    trunk, width = peers.resnet(network)
    head = nn.Sequential(nn.Linear(width, 2048), nn.ReLU(), nn.Linear(2048, 128))
    model = nn.Sequential(trunk, head).to(table.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    first, second = torch.randn(2, batch, 3, *[view_side(side)] * 2, device=table.device)

    def whole() -> None:
        loss(model(first), model(second), 0.5).backward()
        optimizer.step()
        optimizer.zero_grad()

    def bare() -> None:
        optimizer.zero_grad()
        (model(first).sum() + model(second).sum()).backward()

    return whole, bare


# -- What is counted ----------------------------------------------------------------------------


def network_of(table: Table, method: str) -> str | None:
    """Return the network of what is counted; CPC keeps the one that it is made for."""
    return None if method.startswith("cpc") else table.sizes["small"][0]


def counted(table: Table) -> Sequence[str]:
    """Return the methods whose kernels and memory are counted: all, but in a quick run."""
    return METHODS if table.sizes is QUICK else engine.methods()


def small(table: Table, method: str, compiled: bool = False) -> Any:
    """Return a run of the size that is counted."""
    _, batch, count = table.sizes["small"]
    more = {"pixels": pixels(count, engine.SIDE), "device": table.device, "compile": compiled}
    return engine.started(method, batch, network_of(table, method), **more)


def count_synchronisations(table: Table) -> None:
    """Where the host waits for the device within a step, for every method; none is wanted."""
    for method in engine.methods():
        table.row(method, waits_row, table, method)


def waits_row(table: Table, method: str) -> Row:
    once = engine.whole(small(table, method))
    runner.several(once, 2)()
    found = waits_on_cuda(once) if table.device == "cuda" else waits_on_cpu(once)
    print(method, len(found), *sorted(set(found)), flush=True)
    return {"host waits": len(found), "where": "; ".join(sorted(set(found))) or "-"}


def waits_on_cuda(once: Once) -> list[str]:
    """Return a sentence for every synchronisation that CUDA's debug mode warns of."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            once()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in seen if "synchronizing CUDA operation" in str(w.message)]
    lines = [linecache.getline(w.filename, w.lineno).strip() for w in waits]
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in waits]
    return [f"{place} ({line})" for place, line in zip(places, lines, strict=True)]


def waits_on_cpu(once: Once) -> list[str]:
    """Return the operations that would make the host wait, were the tensors on a device."""
    with Synchronisations() as seen:
        once()
    return seen.found


def count_kernels(table: Table) -> None:
    """Kernels launched a step beyond the bare step's: eager for all, compiled for some."""
    for way, compiled in ways().items():
        for method in table.sizes["compiled"] if compiled else counted(table):
            table.row(f"{method}, {way}", kernels_row, table, method, compiled)


def kernels_row(table: Table, method: str, compiled: bool) -> Row:
    run = small(table, method, compiled)
    whole, bare = engine.whole(run), engine.bare(run)
    runner.several(whole, 3)(), runner.several(bare, 3)()
    ours, least = kernels(table, whole), kernels(table, bare)
    return {"step": ours, "bare": least, "beyond bare": ours - least}


def kernels(table: Table, once: Once) -> int:
    """Return how many kernels the device is given; on a CPU, operations dispatched."""
    if table.device == "cpu":
        return sum(step.operations(once).values())
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        once()
        torch.cuda.synchronize()
    none = ("Memcpy", "Memset", "ProfilerStep", "Optimizer.")
    events = (e for e in profiled.events() if e.device_type == DeviceType.CUDA)
    return sum(not (e.name.startswith(none) or getattr(e, "is_user_annotation", 0)) for e in events)


def count_memory(table: Table) -> None:
    """Peak memory of a step beyond the bare one, for every method."""
    _, batch, count = table.sizes["small"]
    for method in counted(table):
        own = {"backbone": network_of(table, method), "count": count, "device": table.device}
        table.row(method, functools.partial(memory.ours, method, batch, **own))


# -- Parts by themselves ------------------------------------------------------------------------


def time_views(table: Table) -> None:
    """Images a second of one view of a batch, each way that is installed."""
    for size, batch in table.sizes["views"]:
        name = f"{size} pixels, {batch} images"
        table.row(name, views_row, table, name, str(size), batch)


def views_row(table: Table, row: str, size: str, batch: int) -> Row:
    made = views.entrants(size, table.device, engine.has_compiler(), batch)
    able = {name: once for name, once in made.items() if runs(table, f"{row}, {name}", once)}
    seconds = runner.alternate(able, table.sizes["rounds"])
    for name, median in runner.medians(seconds).items():
        numbers = {
            "resampling": views.MODES.get(name, "bilinear"),
            "images/s": round(batch / median),
        }
        table.part["summary"][f"{row}, {name}"] = numbers
    ours = [name for name in views.DEFAULT if name in able]
    others = [name for name in able if name not in views.DEFAULT]
    return {"ratios": [runner.compared(seconds, a, b) for a in ours for b in others]}


def runs(table: Table, name: str, once: Once) -> bool:
    try:
        once()
    except Exception as error:
        table.part["missing"][name] = reason(error)
        return False
    return True


def time_losses(table: Table) -> None:
    """Losses and codes beside the peers', with their memory."""
    for title in losses.ROWS:
        table.row(title, loss_row, table, title)


def loss_row(table: Table, title: str) -> Row:
    found = losses.row(title, table.device, table.wheel, table.sizes["rounds"])
    times = {f"{name} ms": round(value, 3) for name, value in found["median_ms"].items()}
    sizes = {f"{name} MiB": value for name, value in found["peak_mib"].items()}
    return {"ratios": found["ratios"], **times, **sizes}


def time_knn(table: Table) -> None:
    """kNN beside a float32 product."""
    for width in table.sizes["knn"][2]:
        table.row(f"{width} dimensions", knn_row, table, width)


def knn_row(table: Table, width: int) -> Row:
    rows, queries, _ = table.sizes["knn"]
    found = knn.row(width, queries, table.sizes["rounds"], table.device, rows)
    times = {f"{name} s": round(value, 4) for name, value in found["median_s"].items()}
    return {"ratios": found["ratios"], **times}


# What is done in this order, with its share of the time.
PARTS: dict[str, tuple[Callable[[Table], None], float]] = {
    "host synchronisations": (count_synchronisations, 0.12),
    "step": (time_steps, 0.43),
    "kernels": (count_kernels, 0.15),
    "views": (time_views, 0.14),
    "losses": (time_losses, 0.05),
    "knn": (time_knn, 0.05),
    "memory": (count_memory, 0.06),
}
OPTIONS = {"seconds": 480.0, "rows": PARTS, "solo_learn": "", "device": "cuda"}


def run(table: Table, names: Sequence[str], seconds: float) -> None:
    """Do the parts, each until its share of the time is over."""
    started = time.monotonic()
    total, share = sum(PARTS[name][1] for name in names), 0.0
    for name in names:
        function, own = PARTS[name]
        share += own
        table.begin(name, started + seconds * share / total)
        began = time.monotonic()
        table.row("all of it", lambda function=function: function(table) or {})
        table.part["seconds"] = round(time.monotonic() - began, 1)
        table.write()
        print(name, table.part["seconds"], "s", table.part["missing"], flush=True)
        free()


def main(asked: runner.Asked) -> None:
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if (asked.device == "cpu") != asked.quick:
        asked.error("--device cpu and --quick go together: a CPU only tries the script")
    if asked.device == "cuda" and not torch.cuda.is_available():
        asked.error("There is no CUDA device here; --device cpu --quick tries the script.")
    facts = runner.facts()
    peak = roofline.peak_of(facts["device"])
    document = {
        **facts,
        "table": "gpu",
        "data_sheet": None if peak is None else attrs.asdict(peak),
        "reached": roofline.measured_peaks(asked.device),
        "parts": {},
    }
    name = re.sub(r"[^a-z0-9]+", "-", facts["device"].lower()).strip("-")
    sizes, name = (QUICK, "cpu-quick") if asked.quick else (WHOLE, name)
    table = Table(name, asked.out, sizes, asked.device, asked.solo_learn, document)
    run(table, asked.only, asked.seconds)
