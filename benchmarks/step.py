"""A whole training step over the bare network's: time, and operations dispatched."""

import functools
from collections import Counter
from typing import Any

import torch
import torch._inductor.config
from torch.profiler import ProfilerActivity, profile

from benchmarks import engine, peers, runner
from coview.testing import Synchronisations

OPTIONS = {
    **{"what": ("time", "count"), "rows": engine.methods(), "only": list(peers.METHODS)},
    **{"batch_size": 64, "backbone": "resnet18", "no_peers": False, "rounds": 15, "steady": True},
}


def main(asked: runner.Asked) -> None:
    if asked.quick:
        asked.batch_size, asked.backbone = 8, "resnet10-quarter"
    if asked.what == "time":
        design = f"ResNet-18 with a 3x3 stem, {engine.SIDE} pixels, batches of {asked.batch_size}"
        about = {"design": f"{design}, float32", "compiled": False}
        runner.rows(asked, about, lambda method: {"rows": {method: timed(method, asked)}})
        return
    asked.rounds = None
    torch._inductor.config.cpp.enable_kernel_profile = True
    backbone = None if asked.backbone == "preset" else asked.backbone
    count = functools.partial(counted, batch_size=asked.batch_size, backbone=backbone)
    runner.rows(asked, {"backbone": backbone}, count, "step-operations")


def timed(method: str, asked: runner.Asked) -> dict[str, Any]:
    # A queue holds less than the training images, four fifths of all: so many that it has
    # lightly's size.
    count = 5 * (engine.QUEUE + 2 * asked.batch_size) // 4 + 1 if method == "moco" else 4096
    pixels = engine.images(count)
    run = engine.started(method, asked.batch_size, asked.backbone, pixels=pixels)
    entrants = {"coview": engine.whole(run), "coview bare": engine.bare(run)}
    pairs = [("coview", "coview bare")]
    if method in peers.METHODS and not asked.no_peers:
        loop = peers.Loop(method, "resnet18", "cpu")
        pictures = peers.Pictures(engine.images(), engine.SIDE)
        theirs = peers.lightly(loop, asked.batch_size, pictures, engine.SIDE, 2, "cpu")
        entrants["lightly"], entrants["lightly bare"] = theirs
        pairs += [("lightly", "lightly bare"), ("coview", "lightly")]
    seconds = runner.alternate(entrants, asked.rounds)
    ratios = [ratio for pair in pairs for ratio in runner.compared(seconds, *pair)]
    return {"ratios": ratios, "seconds": seconds}


def counted(method: str, batch_size: int, backbone: str | None) -> dict[str, Any]:
    """Count what one step dispatches beyond the bare step, and where the host would wait."""
    found: dict[str, Any] = {"summary": {}, "which": {}}
    for way, compiled in (("eager", False), ("compiled", True)):
        torch._dynamo.reset()
        run = engine.started(method, batch_size, backbone, compile=compiled)
        step, least = engine.whole(run), engine.bare(run)
        for _ in range(3):  # compilation and queues settle
            step(), least()
        ours, theirs = operations(step), operations(least)
        beyond = {name: ours[name] - theirs[name] for name in {*ours, *theirs}}
        which = {name: count for name, count in beyond.items() if count}
        found["which"][f"{method}, {way}"] = dict(sorted(which.items(), key=lambda x: -x[1]))
        numbers = {
            "step": ours.total(),
            "bare": theirs.total(),
            "beyond bare": sum(beyond.values()),
        }
        found["summary"][f"{method}, {way}"] = numbers | {"host waits": len(waits(step))}
    return found


def waits(step: runner.Once) -> list[str]:
    with Synchronisations() as seen:
        step()
    return seen.found


def operations(step: runner.Once) -> Counter[str]:
    """Return how often each operation is dispatched, or each compiled loop run.

    By the profiler: a dispatch mode would have compiled functions run as they are written.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    counts: Counter[str] = Counter()
    waiting = [event for event in profiled.events() if event.cpu_parent is None]
    while waiting:
        event = waiting.pop()
        name = event.name.removeprefix("aten::")
        if "cpp_fused" in name or name.startswith("triton_"):
            counts["compiled loop"] += 1
        elif name == event.name or kind(name) == "made of others":
            waiting.extend(event.cpu_children)
        elif kind(name) != "launches nothing":
            counts[name] += 1
    return counts


@functools.cache
def kind(name: str) -> str:
    has, made = torch._C._dispatch_has_kernel_for_dispatch_key, "CompositeImplicitAutograd"
    every = torch._C._dispatch_get_all_op_names()
    overloads = [one for one in every if one.split(".")[0] == f"aten::{name}"]
    if any(has(one, made) and not has(one, "CPU") for one in overloads):
        return "made of others"
    schemas = list(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))
    returns = [r.alias_info for schema in schemas[:1] for r in schema.returns]
    views = any(info is not None and not info.is_write for info in returns)
    none = name.startswith("empty") or name in ("detach", "_unsafe_view", "resolve_conj")
    return "launches nothing" if none or views else "launches"
