"""Everything that is measured on a GPU, in one call of under nine minutes.

    python benchmarks/gpu.py [--seconds 480] [--only PART ...] [--solo-learn WHEEL]
                             [--device cpu --quick --out FOLDER]    writes results/DEVICE.json

DEVICE is the GPU's name. Parts are done in order; each may go on until its share
of the time is over (what an earlier part left is the next one's), and begins no
row after that. The file is written after every row, so a call that is cut short
leaves what it had (a row that was begun is finished, so the call may take half a
minute more than it was given). What fails is noted where its row would be, and the rest goes
on. `--device cpu --quick` goes through every part with tiny sizes, to try the
script: its figures mean nothing, and it writes to another folder only.

A round of a step is several steps, so that the device need not wait for the host
between them. Runs are as a user's: bfloat16, views and data on the device.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import roofline
import side_by_side

METHODS = ("simclr", "moco", "byol")
# The peers' networks are torchvision's, which has none so small.
PEERS_NETWORK = {"resnet10-quarter": "resnet18"}


@attrs.frozen
class Sizes:
    """How large everything is.

    Attributes:
        views: (pixels a side, images of a batch).
        steps: by name, (network, pixels a side of the images, batch, images of the set, steps
            of a round).
        compiled: the methods that are measured compiled too, which takes a minute each.
        small: (network, batch, images) of what is counted rather than timed.
        knn: (rows, queries, widths).
        rounds: pairs of every ratio.
        workers: processes that make lightly's views.
    """

    views: tuple[tuple[int, int], ...]
    steps: Mapping[str, tuple[str, int, int, int, int]]
    compiled: tuple[str, ...]
    small: tuple[str, int, int]
    knn: tuple[int, int, tuple[int, ...]]
    rounds: int
    workers: int


WHOLE = Sizes(
    views=((32, 256), (32, 512), (32, 1024), (224, 64), (224, 128)),
    steps={
        # More images than MoCo's queue of 65536 keys: it holds no image of the step.
        "resnet18 at 32": ("resnet18", 32, 512, 83_200, 5),
        "resnet50 at 224": ("resnet50", 256, 128, 2048, 2),
    },
    compiled=METHODS,
    small=("resnet18", 64, 4096),
    knn=(50_000, 4096, (128, 512, 2048)),
    rounds=15,
    workers=os.cpu_count() or 1,
)
QUICK = Sizes(
    views=((32, 4),),
    steps={"resnet10-quarter at 32": ("resnet10-quarter", 32, 8, 64, 1)},
    compiled=METHODS[:1],
    small=("resnet10-quarter", 8, 64),
    knn=(400, 16, (16,)),
    rounds=2,
    workers=0,
)


class MissingError(Exception):
    """A row cannot be measured; the text is the reason."""


@attrs.define
class Table:
    """What is measured, as it grows.

    Attributes:
        document: as it is written.
        ends: when the part in hand may begin no further row, in ``time.monotonic``'s seconds.
        part: the part in hand: its ``rows``, ``ratios`` and what is ``missing``, with reasons.
    """

    name: str
    out: Path
    sizes: Sizes
    device: str
    wheel: str | None
    document: dict[str, Any]
    ends: float = 0.0
    part: dict[str, Any] = attrs.field(factory=dict)

    def begin(self, name: str, ends: float) -> None:
        """Begin a part."""
        self.ends = ends
        self.part = {"seconds": 0.0, "summary": {}, "ratios": [], "missing": {}}
        self.document["parts"][name] = self.part

    def row(self, name: str, measure: Callable[[], Mapping[str, Any]]) -> None:
        """Keep a row's numbers, and its ``ratios``; note why there are none if it fails."""
        try:
            if time.monotonic() > self.ends:
                raise MissingError("no time was left for it")
            found = dict(measure())
        except Exception as error:
            self.part["missing"][name] = reason(error)
        else:
            self.part["ratios"] += [{"row": name, **one} for one in found.pop("ratios", [])]
            self.part["summary"] |= {name: found} if found else {}
        free()
        self.write()

    def write(self) -> None:
        """Write what there is."""
        side_by_side.write(self.name, self.document, self.out)


def reason(error: Exception) -> str:
    """Return in one line what failed, without a path of this machine."""
    text = " ".join(str(error).split())
    text = re.sub(r"(?:[A-Za-z]:)?(?:[/\\][\w.+@~-]+)+[/\\]", "", text)[:300]
    return text if isinstance(error, MissingError) else f"{type(error).__name__}: {text}"


def free() -> None:
    """Give memory back, so that a row that failed costs the next one none."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# -- Training steps -----------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def pixels(count: int, side: int) -> Any:
    """Return noise to train on."""
    import step

    return step.images(count, side)


@contextmanager
def begun(
    table: Table, method: str, network: str | None, batch: int, images: Any, **asked: Any
) -> Iterator[Any]:
    """Give a run at its first step; every view is compiled if, and only if, the run is."""
    import step

    compiled = bool(asked.pop("compile", False))
    more = {"device": table.device, **asked}
    with tempfile.TemporaryDirectory() as folder:
        yield step.started(method, batch, network, compiled, folder, pixels=images, **more)
    free()


def several(once: Callable[[], Any], times: int) -> Callable[[], None]:
    """Return so many calls as one."""

    def many() -> None:
        for _ in range(times):
            once()

    return many


def ways() -> dict[str, dict[str, Any]]:
    """Return how a step can be run here: as it is, and compiled where a compiler is found."""
    from coview.nn.compile import has_compiler

    return {"eager": {}} | ({"compiled": {"compile": True}} if has_compiler() else {})


def time_steps(table: Table) -> None:
    """The step over the bare step, views in the step, images a second under the roof."""
    for way, asked in ways().items():
        for size in table.sizes.steps:
            for method in METHODS if way == "eager" else table.sizes.compiled:
                row = functools.partial(_step_row, table, method, size, asked)
                table.row(f"{method}, {size}, {way}", row)
                if way == "eager":
                    _time_peers(table, method, size)


def _step_row(table: Table, method: str, size: str, asked: dict[str, Any]) -> dict[str, Any]:
    import scaling
    import step

    network, side, batch, count, times = table.sizes.steps[size]
    with begun(table, method, network, batch, pixels(count, side), **asked) as run:
        bare = step.bare(run)
        entrants = {"step": step.whole(run), "bare": bare, "views": scaling.views(run)}
        seconds = alternated(entrants, times, table.sizes.rounds)
        rate = times * batch / statistics.median(seconds["step"])
        queue = [len(b) for n, b in run.method.named_buffers() if n.endswith("negatives.rows")]
        return {
            "ratios": [side_by_side.compared(seconds, *pair) for pair in STEP_RATIOS],
            "batch": batch,
            "precision": run.options.precision,
            **({"queue": queue[0]} if queue else {}),
            "images/s": round(rate),
            **_roof(table, f"{method}, {size}, roofline", bare, batch, rate),
        }


def _roof(
    table: Table, name: str, bare: Callable[[], Any], batch: int, rate: float
) -> dict[str, Any]:
    """Return the bounds; where they cannot be counted, times are kept all the same."""
    try:
        return roofline.under_the_roof(bare, batch, rate)
    except Exception as error:
        table.part["missing"][name] = reason(error)
        return {}


def alternated(entrants: side_by_side.Entrants, times: int, rounds: int) -> side_by_side.Times:
    """Alternate entrants that do so many steps a round."""
    many = {name: several(once, times) for name, once in entrants.items()}
    return side_by_side.alternate(many, rounds)


STEP_RATIOS = (("step", "bare"), ("views", "step"))


def _time_peers(table: Table, method: str, size: str) -> None:
    """lightly's loop with its own bare step, and solo-learn's loss in a plain loop."""
    peers: dict[str, Callable[..., Any]] = {"lightly": _lightly}
    if method == "simclr":
        peers["solo-learn's loss"] = _solo_learn
    for who, make in peers.items():
        row = functools.partial(_peer_row, table, method, size, make)
        table.row(f"{method}, {size}, {who}", row)


def _peer_row(table: Table, method: str, size: str, make: Callable[..., Any]) -> dict[str, Any]:
    _, _, batch, _, times = table.sizes.steps[size]
    whole, bare = (in_half(once, table) for once in make(table, method, size))
    seconds = alternated({"step": whole, "bare": bare}, times, table.sizes.rounds)
    # Of all rounds: where views come late, a few rounds wait for all.
    rate = times * batch / statistics.mean(seconds["step"])
    return {
        "ratios": [side_by_side.compared(seconds, "step", "bare")],
        "batch": batch,
        "precision": "bf16" if table.device == "cuda" else "fp32",
        "images/s": round(rate),
    }


def _lightly(table: Table, method: str, size: str) -> tuple[Any, Any]:
    """Return lightly's loop and its bare step; its views are made by as many workers as cores."""
    import step

    network, side, batch, count, _ = table.sizes.steps[size]
    few = pixels(count, side)[: 16 * batch]  # each becomes a Pillow image first
    return step.lightly(
        method,
        batch,
        backbone=PEERS_NETWORK.get(network, network),
        side=side if side <= 64 else 224,
        pixels=few,
        workers=table.sizes.workers,
        device=table.device,
        # The workers keep two batches each ready: of a short epoch that would be all.
        length=100 * batch * max(table.sizes.workers, 1),
    )


def _solo_learn(table: Table, method: str, size: str) -> tuple[Any, Any]:
    """Return SimCLR's step with solo-learn's loss and head, on views made beforehand.

    Its own loop is a LightningModule that imports a package which is no longer
    released (pl_bolts), so that only the loss, which is a file of its own, can be run.
    """
    import losses
    import step
    import torch
    from torch import nn

    if table.wheel is None:
        raise MissingError("solo-learn was not given (--solo-learn WHEEL)")
    network, side, batch, _, _ = table.sizes.steps[size]
    loss = losses.from_wheel(table.wheel, "solo/losses", "simclr").simclr_loss_func
    trunk, width = step._resnet(PEERS_NETWORK.get(network, network))
    head = nn.Sequential(nn.Linear(width, 2048), nn.ReLU(), nn.Linear(2048, 128))
    model = nn.Sequential(trunk, head).to(table.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    view = side if side <= 64 else 224
    first, second = (torch.randn(batch, 3, view, view, device=table.device) for _ in range(2))

    def whole() -> None:
        loss(model(first), model(second), 0.5).backward()
        optimizer.step()
        optimizer.zero_grad()

    def bare() -> None:
        optimizer.zero_grad()
        (model(first).sum() + model(second).sum()).backward()

    return whole, bare


def in_half(once: Callable[[], Any], table: Table) -> Callable[[], Any]:
    """Return a peer's step under bfloat16 autocast, as coview's runs are on a GPU."""
    import torch

    def half() -> None:
        with torch.autocast(table.device, torch.bfloat16, enabled=table.device == "cuda"):
            once()

    return half


# -- What is counted ----------------------------------------------------------------------------


def count_synchronisations(table: Table) -> None:
    """Where the host waits for the device within a step, for every method; none is wanted."""
    import memory

    for method in memory.methods():
        table.row(method, functools.partial(_waits_row, table, method))


def _waits_row(table: Table, method: str) -> dict[str, Any]:
    import step

    with small(table, method) as run:
        once = step.whole(run)
        several(once, 2)()
        found = waits_on_cuda(once) if table.device == "cuda" else waits_on_cpu(once)
    print(method, len(found), *sorted(set(found)), flush=True)
    return {"host waits": len(found), "where": "; ".join(sorted(set(found))) or "-"}


def small(table: Table, method: str, **asked: Any) -> AbstractContextManager[Any]:
    """Give a run of the size that is counted; CPC keeps the network that it is made for."""
    network, batch, count = table.sizes.small
    own = None if method.startswith("cpc") else network
    return begun(table, method, own, batch, pixels(count, 32), **asked)


def waits_on_cuda(once: Callable[[], Any]) -> list[str]:
    """Return a sentence for every synchronisation that CUDA's debug mode warns of."""
    import linecache
    import warnings

    import torch

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            once()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in seen if "synchronizing CUDA operation" in str(w.message)]
    lines = [
        (Path(w.filename).name, w.lineno, linecache.getline(w.filename, w.lineno)) for w in waits
    ]
    return [f"{name}:{number} ({line.strip()})" for name, number, line in lines]


def waits_on_cpu(once: Callable[[], Any]) -> list[str]:
    """Return the operations that would make the host wait, were the tensors on a device."""
    from coview.testing.synchronisation import Synchronisations

    with Synchronisations() as seen:
        once()
    return seen.found


def count_kernels(table: Table) -> None:
    """Kernels launched a step beyond the bare step's: eager for all, compiled for some."""
    for way, asked in ways().items():
        for method in counted(table) if way == "eager" else table.sizes.compiled:
            row = functools.partial(_kernels_row, table, method, asked)
            table.row(f"{method}, {way}", row)


def counted(table: Table) -> Sequence[str]:
    """Return the methods whose kernels and memory are counted: all, but in a quick run."""
    import memory

    return METHODS if table.sizes is QUICK else memory.methods()


def _kernels_row(table: Table, method: str, asked: dict[str, Any]) -> dict[str, Any]:
    import step

    with small(table, method, **asked) as run:
        whole, bare = step.whole(run), step.bare(run)
        several(whole, 3)(), several(bare, 3)()
        ours, least = kernels(table, whole), kernels(table, bare)
    return {"step": ours, "bare": least, "beyond bare": ours - least}


def kernels(table: Table, once: Callable[[], Any]) -> int:
    """Return how many kernels the device is given; on a CPU, operations dispatched."""
    import step
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

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
    import memory

    network, batch, count = table.sizes.small
    for method in counted(table):
        own = None if method.startswith("cpc") else network
        more = {"backbone": own, "count": count, "device": table.device}
        table.row(method, functools.partial(memory.ours, method, batch, **more))


# -- Parts by themselves ------------------------------------------------------------------------


def time_views(table: Table) -> None:
    """Images a second of one view of a batch, each way that is installed."""
    for size, batch in table.sizes.views:
        name = f"{size} pixels, {batch} images"
        table.row(name, functools.partial(_views_row, table, name, size, batch))


def _views_row(table: Table, row: str, size: int, batch: int) -> dict[str, Any]:
    import importlib.util

    import views

    from coview.nn.compile import has_compiler

    without = [] if importlib.util.find_spec("lightly") else ["lightly inline"]
    made = views.entrants(size, table.device, has_compiler(), without, batch)
    able = {name: once for name, once in made.items() if _runs(table, f"{row}, {name}", once)}
    seconds = side_by_side.alternate(able, table.sizes.rounds)
    for name in able:
        rate = round(batch / statistics.median(seconds[name]))
        numbers = {"resampling": views.MODES[name], "images/s": rate}
        table.part["summary"][f"{row}, {name}"] = numbers
    ours = [name for name in views.DEFAULT if name in able]
    others = [name for name in able if name not in views.DEFAULT]
    return {"ratios": [side_by_side.compared(seconds, a, b) for a in ours for b in others]}


def _runs(table: Table, name: str, once: Callable[[], Any]) -> bool:
    try:
        once()
    except Exception as error:
        table.part["missing"][name] = reason(error)
        return False
    return True


def time_losses(table: Table) -> None:
    """Losses and codes beside the peers', with their memory."""
    import losses

    for title in losses.ROWS:
        table.row(title, functools.partial(_loss_row, table, title))


def _loss_row(table: Table, title: str) -> dict[str, Any]:
    import losses

    entrants = losses.ROWS[title](table.device, table.wheel)
    seconds = side_by_side.alternate(entrants, table.sizes.rounds)
    others = [name for name in entrants if name != "coview"]
    times = {f"{n} ms": round(1e3 * statistics.median(s), 3) for n, s in seconds.items()}
    memory = {f"{n} MiB": side_by_side.peak_mib(once) for n, once in entrants.items()}
    ratios = [side_by_side.compared(seconds, "coview", other) for other in others]
    return {"ratios": ratios, **times, **memory}


def time_knn(table: Table) -> None:
    """kNN beside a float32 product."""
    _, _, widths = table.sizes.knn
    for width in widths:
        table.row(f"{width} dimensions", functools.partial(_knn_row, table, width))


def _knn_row(table: Table, width: int) -> dict[str, Any]:
    import knn

    rows, queries, _ = table.sizes.knn
    found = knn.row(width, queries, table.sizes.rounds, table.device, rows)
    times = {f"{name} s": round(value, 4) for name, value in found["median_s"].items()}
    return {"ratios": found["ratios"], **times}


PARTS: dict[str, tuple[Callable[[Table], None], float]] = {
    "host synchronisations": (count_synchronisations, 0.12),
    "step": (time_steps, 0.43),
    "kernels": (count_kernels, 0.15),
    "views": (time_views, 0.14),
    "losses": (time_losses, 0.05),
    "knn": (time_knn, 0.05),
    "memory": (count_memory, 0.06),
}
"""What is done in this order, with its share of the time."""


def run(table: Table, names: list[str], seconds: float) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=480.0, help="for all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--solo-learn", help="its wheel; left out, it is not measured")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    side_by_side.add_quick(parser)
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    if (options.device == "cpu") != options.quick:
        parser.error("--device cpu and --quick go together: a CPU only tries the script")
    side_by_side.refuse_quick_results(parser, options)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("There is no CUDA device here; --device cpu --quick tries the script.")
    facts = side_by_side.facts()
    name = "cpu-quick" if options.quick else slug(facts["device"])
    peak = roofline.peak_of(facts["device"])
    # Not where a wheel or a folder lies on this machine.
    words = [word if word.startswith("-") else Path(word).name for word in sys.argv[1:]]
    document = {
        **facts,
        "command": " ".join(["python benchmarks/gpu.py", *words]),
        "table": "gpu",
        "data_sheet": None if peak is None else attrs.asdict(peak),
        "reached": roofline.measured_peaks(options.device),
        "parts": {},
    }
    sizes = QUICK if options.quick else WHOLE
    table = Table(name, options.out, sizes, options.device, options.solo_learn, document)
    run(table, options.only, options.seconds)


def slug(name: str) -> str:
    """Return a device's name as a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
