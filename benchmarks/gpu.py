"""Everything that is measured on a GPU, ordered by worth; a call goes on where the last stopped."""

import copy
import functools
import gc
import linecache
import os
import re
import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import engine, gpu_runs, knn, losses, memory, peers, runner, step, views

WHOLE, QUICK = runner.DESIGN["gpu"]["whole"], runner.DESIGN["gpu"]["quick"]
WAYS = {"eager": False} | ({"compiled": True} if engine.has_compiler() else {})
Row, UNFUSED = Mapping[str, Any], "MB an image, unfused"


class MissingError(Exception):
    """Why a row cannot be measured."""


@attrs.define
class Table:
    """What is measured, as it grows; the part in hand begins no row after ``ends``."""

    name: str
    out: Path
    sizes: Mapping[str, Any]
    device: str
    wheel: str | None
    document: dict[str, Any]
    ends: float = 0.0
    part: dict[str, Any] = attrs.field(factory=dict)
    rounds = property(lambda self: self.sizes["rounds"])

    def row(self, name: str, measure: Callable[..., Row], *given: Any) -> None:
        """Keep a row's numbers, and its ``ratios``; note why there are none if it fails.

        A row that an earlier call has measured is left as it is.
        """
        if name in self.part["done"]:
            return
        self.part["missing"].pop(name, None)
        try:
            if time.monotonic() > self.ends:
                raise MissingError("no time was left for it")
            found = dict(measure(*given))
            self.part["ratios"] += [{"row": name, **one} for one in found.pop("ratios", [])]
            found.pop("raw_seconds", None)
            for key, unit in (("median_s", "s"), ("peak_mib", "MiB")):
                found |= {f"{who} {unit}": value for who, value in found.pop(key, {}).items()}
            self.part["summary"] |= {name: found} if found else {}
            self.part["done"].append(name)
        except Exception as error:
            self.miss(name, error)
        # A row that failed costs the next one no memory.
        gc.collect()
        torch.cuda.empty_cache()
        runner.write(self.name, self.document, self.out)

    def each(self, rows: Iterable[Any], measure: Callable[..., Row], *more: Any) -> None:
        """Keep rows by name; or by what they are given, where that is more than a name."""
        for name, *given in ((row, row) if isinstance(row, str) else row for row in rows):
            self.row(name, measure, *given, *more)

    def counted(self) -> tuple[int, str | None, int]:
        """Return sizes of what is counted."""
        network, batch, count = self.sizes["small"]
        return batch, network, count

    def methods(self) -> Sequence[str]:
        """Return those whose kernels and memory are counted: all, but in a quick run."""
        return peers.METHODS if self.sizes is QUICK else engine.methods()

    def miss(self, name: str, error: Exception) -> None:
        """Note in one line why a row is missing, without a path of this machine."""
        text = " ".join(str(error).split())
        text = re.sub(r"(?:[A-Za-z]:)?(?:[/\\][\w.+@~-]+)+[/\\]", "", text)[:300]
        known = isinstance(error, MissingError)
        self.part["missing"][name] = text if known else f"{type(error).__name__}: {text}"


pixels = functools.lru_cache(maxsize=2)(engine.images)


def time_steps(table: Table) -> None:
    for way, compiled in WAYS.items():
        for size in table.sizes["steps"]:
            for method in table.sizes["compiled"] if compiled else peers.METHODS:
                row, given = f"{method}, {size}", (table, method, size)
                table.row(f"{row}, {way}", step_row, *given, compiled)
                if not compiled:
                    table.row(f"{row}, lightly", peer_row, *given)
                if not compiled and method == "simclr":
                    table.row(f"{row}, solo-learn's loss", peer_row, *given, True)


def step_row(table: Table, method: str, size: str, compiled: bool) -> Row:
    network, side, batch, count, times, _ = table.sizes["steps"][size]
    # Every view is compiled if, and only if, the run is.
    more = {"data": pixels(count, side), "device": table.device, "compile": compiled}
    run = engine.started(method, batch, network, **more)
    bare = engine.bare(run)
    entrants = {"step": engine.whole(run), "bare": bare, "views": engine.views(run)}
    seconds = runner.alternate(entrants, table.rounds, times=times)
    rate = times * batch / statistics.median(seconds["step"])
    queue = [len(b) for n, b in run.method.named_buffers() if n.endswith("negatives.rows")]
    ratios = runner.compared(seconds, "step", "bare") + runner.compared(seconds, "views", "step")
    found = {"ratios": ratios, "batch": batch, "precision": run.settings.precision}
    found |= {**({"queue": queue[0]} if queue else {}), "images/s": round(rate)}
    try:
        return found | under_the_roof(bare, batch, rate)
    except Exception as error:  # where bounds cannot be counted, times are kept all the same
        table.miss(f"{method}, {size}, roofline", error)
        return found


def peer_row(table: Table, method: str, size: str, solo: bool = False) -> Row:
    """lightly's loop, its views made by as many workers as cores; solo-learn's, beforehand."""
    if solo and not table.wheel:
        raise MissingError("solo-learn was not given (--solo-learn WHEEL)")
    _, side, batch, count, times, network = table.sizes["steps"][size]
    view, device, cuda = side if side <= 64 else 224, table.device, table.device == "cuda"
    loop = peers.Loop(method, network, device, (solo and table.wheel) or "")
    if solo:
        made = torch.randn(2, batch, 3, view, view, device=device)
        pair = (lambda: loop.step(*made)), (lambda: loop.bare(*made))
    else:
        workers = 0 if table.sizes is QUICK else os.cpu_count() or 1
        # Each becomes a Pillow image first. The workers keep two batches each ready: of a short
        # epoch that would be all.
        few, length = pixels(count, side)[: 16 * batch], 100 * batch * max(workers, 1)
        pictures = peers.Pictures(few, view, length)
        pair = peers.lightly(loop, batch, pictures, view, workers, device)
    half = torch.autocast(device, torch.bfloat16, enabled=cuda)
    entrants = {"step": half(pair[0]), "bare": half(pair[1])}
    seconds = runner.alternate(entrants, table.rounds, times=times)
    # Of all rounds: where views come late, a few rounds wait for all.
    rate = round(times * batch / statistics.mean(seconds["step"]))
    found = {"batch": batch, "precision": "bf16" if cuda else "fp32", "images/s": rate}
    return {"ratios": runner.compared(seconds, "step", "bare"), **found}


def small(table: Table, method: str, compiled: bool = False) -> tuple[runner.Once, runner.Once]:
    batch, network, count = table.counted()
    more = {"data": pixels(count, engine.SIDE), "device": table.device, "compile": compiled}
    run = engine.started(method, batch, network, **more)
    return engine.whole(run), engine.bare(run)


def waits_row(method: str, table: Table) -> Row:
    """Where the host waits for the device within a step; nowhere is wanted."""
    once, _ = small(table, method)
    runner.several(once, 2)()
    found = waits_on_cuda(once) if table.device == "cuda" else step.waits(once)
    print(method, len(found), *sorted(set(found)), flush=True)
    return {"host waits": len(found), "where": "; ".join(sorted(set(found))) or "-"}


def waits_on_cuda(once: runner.Once) -> list[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            once()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in seen if "synchronizing CUDA operation" in str(w.message)]
    lines = [(w, linecache.getline(w.filename, w.lineno).strip()) for w in waits]
    return [f"{Path(w.filename).name}:{w.lineno} ({line})" for w, line in lines]


def kernels_row(method: str, compiled: bool, table: Table) -> Row:
    """Kernels launched a step beyond the bare step's; on a CPU, operations dispatched."""
    whole, bare = small(table, method, compiled)
    runner.several(whole, 3)(), runner.several(bare, 3)()
    ours, least = kernels(whole, table.device), kernels(bare, table.device)
    return {"step": ours, "bare": least, "beyond bare": ours - least}


def kernels(once: runner.Once, device: str) -> int:
    if device == "cpu":
        return step.operations(once).total()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        once()
        torch.cuda.synchronize()
    none = ("Memcpy", "Memset", "ProfilerStep", "Optimizer.")
    events = (e for e in profiled.events() if e.device_type == DeviceType.CUDA)
    return sum(not (e.name.startswith(none) or getattr(e, "is_user_annotation", 0)) for e in events)


def views_row(size: int, batch: int, table: Table) -> Row:
    """Images a second of one view of a batch, each way that is installed and runs."""
    able, name = {}, f"{size} pixels, {batch} images"
    for way, once in views.entrants(str(size), table.device, len(WAYS) > 1, batch).items():
        try:
            once()
            able[way] = once
        except Exception as error:
            table.miss(f"{name}, {way}", error)
    seconds = runner.alternate(able, table.rounds)
    table.part["summary"] |= views.rows(name, batch, seconds)
    others = [way for way in able if way not in views.DEFAULT]
    ours = [runner.compared(seconds, way, *others) for way in views.DEFAULT if way in able]
    return {"ratios": [ratio for ratios in ours for ratio in ratios]}


def under_the_roof(bare: runner.Once, batch: int, rate: float) -> Row:
    with FlopCounterMode(display=False) as counter:
        bare()
    flops, traffic = counter.get_total_flops() / batch, traffic_of(bare) / batch
    found: Row = {"GFLOP an image": round(flops / 1e9, 3), UNFUSED: round(traffic / 1e6, 1)}
    peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    if peak is None:
        return found
    compute, memory = peak.flops / flops, peak.bandwidth / traffic
    found |= {"compute bound images/s": round(compute), "traffic bound images/s": round(memory)}
    return {**found, "of the lower bound": f"{rate / min(compute, memory):.0%}"}


def peak_of(name: str) -> Namespace | None:
    """Return the peak of a device, by its name; None if it is none of these (NVL is another)."""
    known = ((words.split(), peak) for words, peak in runner.DESIGN["peaks"].items())
    found = [Namespace(**peak) for words, peak in known if all(word in name for word in words)]
    return found[0] if found and "NVL" not in name else None


class Traffic(TorchDispatchMode):
    total = 0  # bytes; a view of a tensor moves none

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
            self.total += sum(t.numel() * t.element_size() for t in tensors)
        return result


def traffic_of(function: runner.Once) -> int:
    with Traffic() as counting:
        function()
    return counting.total


def measured_peaks(device: str) -> Row:
    """Return what this very device reaches: a large product's rate, a copy's bandwidth."""
    if device != "cuda":
        return {}
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    b, c = torch.empty(2, 1 << 30, dtype=torch.uint8, device=device)
    seconds = runner.alternate({"product": lambda: a @ a, "copy": lambda: b.copy_(c)}, 15)
    product, copy = runner.medians(seconds).values()
    reached = {"bfloat16 product, TFLOP/s": round(2 * 8192**3 / product / 1e12)}
    return {**reached, "copy, TB/s": round(2 * (1 << 30) / copy / 1e12, 2)}


def count_kernels(t: Table) -> None:
    for way, compiled in WAYS.items():
        methods = t.sizes["compiled"] if compiled else t.methods()
        t.each(((f"{method}, {way}", method, compiled) for method in methods), kernels_row, t)


def time_views(t: Table) -> None:
    sizes = t.sizes["views"]
    t.each(((f"{n} pixels, {count} images", n, count) for n, count in sizes), views_row, t)


def count_memory(t: Table) -> None:
    t.each(((m, m, *t.counted(), t.device) for m in t.methods()), memory.ours)


def time_knn(t: Table) -> None:
    rows, queries, widths = t.sizes["knn"]
    given = (queries, t.rounds, t.device, rows)
    t.each(((f"{width} dimensions", width) for width in widths), knn.row, *given)


def run_tests(t: Table) -> None:
    for file in t.sizes["tests"]:
        t.row(file, lambda file=file: gpu_runs.tests(file, t.ends - time.monotonic()))


def train(t: Table) -> None:
    rows = ((name, *runner.DESIGN["gpu"]["training"][name].values()) for name in t.sizes["train"])
    for name, method, given in rows:
        t.row(name, gpu_runs.training, method, {**given, **t.sizes["shorter"]}, t.device)


# What is done in this order, with its share of the time.
PARTS: dict[str, tuple[Callable[[Table], None], float]] = {
    "tests": (run_tests, 0.1),
    "host synchronisations": (lambda t: t.each(engine.methods(), waits_row, t), 0.08),
    "step": (time_steps, 0.3),
    "memory": (count_memory, 0.04),
    "training": (train, 0.2),
    "views": (time_views, 0.1),
    "kernels": (count_kernels, 0.1),
    "losses": (lambda t: t.each(losses.ROWS, losses.row, t.device, t.wheel, t.rounds), 0.04),
    "knn": (time_knn, 0.04),
}
OPTIONS = {"seconds": 480.0, "rows": PARTS, "solo_learn": "", "device": "cuda"}
NEW = {"seconds": 0.0, "summary": {}, "ratios": [], "missing": {}, "done": []}
WHOLE_PART = "all of it"


def run(table: Table, names: Sequence[str], seconds: float) -> None:
    """Do parts, but what an earlier call has done; each may use what others left of the time."""
    names = [name for name in names if not finished(table.document["parts"].get(name))]
    started, share = time.monotonic(), 0.0
    total = sum(PARTS[name][1] for name in names)
    for name in names:
        function, own = PARTS[name]
        share += own
        table.ends = started + seconds * share / total
        table.part = table.document["parts"].setdefault(name, copy.deepcopy(NEW))
        began = time.monotonic()
        table.row(WHOLE_PART, lambda function=function: function(table) or {})
        if table.part["missing"]:  # begun again by the next call, which leaves what is done
            table.part["done"] = [row for row in table.part["done"] if row != WHOLE_PART]
        table.part["seconds"] = round(table.part["seconds"] + time.monotonic() - began, 1)
        runner.write(table.name, table.document, table.out)
        print(name, table.part["seconds"], "s", table.part["missing"], flush=True)


def finished(part: Mapping[str, Any] | None) -> bool:
    return part is not None and WHOLE_PART in part["done"]


def before(name: str, out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts that were measured on this device with these versions, if any."""
    kept = runner.document(name, out)
    same = all(kept.get(key) == facts[key] for key in ("device", "python", "libraries"))
    return kept.get("parts", {}) if same else {}


def main(asked: runner.Asked) -> None:
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if (asked.device == "cpu") != asked.quick:
        asked.error("--device cpu and --quick go together: a CPU only tries the script")
    if asked.device == "cuda" and not torch.cuda.is_available():
        asked.error("There is no CUDA device here; --device cpu --quick tries the script.")
    document = {**runner.facts(), "table": "gpu", "parts": {}}
    sheet, reached = peak_of(document["device"]), measured_peaks(asked.device)
    document |= {"data_sheet": sheet and vars(sheet), "reached": reached}
    slug = re.sub(r"[^a-z0-9]+", "-", document["device"].lower()).strip("-")
    sizes, name = (QUICK, "cpu-quick") if asked.quick else (WHOLE, slug)
    document["parts"] = before(name, asked.out, document)
    table = Table(name, asked.out, sizes, asked.device, asked.solo_learn, document)
    run(table, asked.only, asked.seconds)
