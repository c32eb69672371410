"""A whole training step over the bare network's: time, and operations dispatched.

    python benchmarks/step.py time [--rounds 15]    results/step.json
    python benchmarks/step.py count                 results/step-operations.json

The bare step is the speed of light of the same method: the online network's
forward and backward and the target's forward, on views made beforehand, in the
same layout and the same grouping of batch normalisation (it is the method's own
encoder and target that run), of a loss that costs nothing. The whole step is
the engine's own: batch, views, loss, backward, optimiser, target, queue,
metrics. lightly's loop, from its documentation, stands beside its own bare step:
its views are made by two worker processes, as users run it.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import side_by_side

METHODS = ("simclr", "moco", "byol")
SIDE, IMAGES = 32, 4096
QUEUE = 65536
# lightly's MoCo normalises the whole batch at once and does not shuffle: so does ours, here.
OWN = {"moco": {"encoder.norm_groups": 1, "target.shuffle": False, "negatives.size": QUEUE}}
STEP = Callable[[], Any]


def images(count: int = IMAGES, side: int = SIDE) -> Any:
    """Return noise that compresses to nothing and trains as well as anything for timing."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def started(
    method: str,
    batch_size: int,
    backbone: str | None,
    compiled: bool,
    folder: str,
    *,
    pixels: Any = None,
    sets: dict[str, Any] | None = None,
    epochs: int = 20,
    **asked: Any,
) -> Any:
    """Return a run of the method's small preset at its first step.

    Args:
        method, batch_size, backbone: of the run; no backbone: the preset's.
        compiled: ``--compile``; without it so short a run compiles nothing.
        folder: where the run's directory goes.
        pixels: uint8 images to train on, in place of :func:`images`.
        sets: settings, in place of OWN's.
        epochs: their number; compiled views are the default of long runs.
        **asked: more of a request: a device, a precision.
    """
    from coview.recipes.configure import Changes
    from coview.training.start import Request, start

    own = OWN.get(method, {}) if sets is None else sets
    changes = Changes(backbone=backbone, batch_size=batch_size, epochs=epochs, set=own)
    run = start(
        Request(
            method=method,
            data=images() if pixels is None else pixels,
            changes=changes,
            out=Path(folder) / f"{method}-{compiled}",
            evaluate=False,
            compile=compiled,
            on_collapse="ignore",
            **asked,
        )
    )
    run.method.train()
    return run


def whole(run: Any) -> STEP:
    """Return the engine's step, with its batch and its metrics."""
    from coview.training.loop import Metrics, _step

    batches = endless(run)
    metrics = Metrics()

    def step() -> None:
        _step(run, next(batches), metrics)
        if run.step % run.options.log_every == 0:
            metrics.read()

    return step


def endless(run: Any) -> Iterator[Any]:
    """Yield batches, epoch after epoch."""
    epoch = 0
    while True:
        yield from run.batches.epoch(epoch)
        epoch += 1


def bare(run: Any) -> STEP:
    """Return forward and backward of the method's own networks, and nothing else."""
    import torch

    from coview.training.loop import _position

    method = run.method
    batch = next(run.batches.epoch(0))
    hook = method.manager.hook
    with torch.no_grad():
        views = hook.generate_views(batch=batch, step=_position(run))
    shared = hasattr(method.components["target"], "network")

    def step() -> None:
        position = _position(run)
        for parameter in method.parameters():
            parameter.grad = None
        with method.autocast():
            encoded = hook.encode(views=views, batch=batch, step=position)
            if shared:
                hook.encode_targets(
                    encoder=method.encoder,
                    views=views,
                    encoded=encoded,
                    batch=batch,
                    step=position,
                )
        torch.stack([query.sum() for query in encoded.queries.values()]).sum().backward()

    return step


def lightly(
    method: str,
    batch_size: int,
    *,
    backbone: str = "resnet18",
    side: int = SIDE,
    pixels: Any = None,
    workers: int = 2,
    device: str = "cpu",
    length: int | None = None,
) -> tuple[STEP, STEP]:
    """Return lightly's loop, a step at a time, and its own bare step.

    With ``length`` an epoch has so many images, the same ones again and again: as many
    as the workers cannot have ready at its beginning.
    """
    import torch
    from torch.utils.data import DataLoader

    step, bare_step = LIGHTLY[method](backbone, device)
    pictures = _Pictures(images() if pixels is None else pixels, _transform(side), length)
    loader = DataLoader(
        pictures,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device != "cpu",
    )

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()
    first, second = (torch.randn(batch_size, 3, side, side, device=device) for _ in range(2))

    def whole_step() -> None:
        step(*(view.to(device, non_blocking=True) for view in next(batches)[0]))

    return whole_step, lambda: bare_step(first, second)


class _Pictures:
    """The images as PIL gives them, transformed."""

    def __init__(self, pixels: Any, transform: Any, length: int | None) -> None:
        from PIL import Image

        self.transform = transform
        self.length = length or len(pixels)
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index % len(self.pictures)]), 0


def _resnet(name: str) -> tuple[Any, int]:
    """Return torchvision's network without its classifier, and its width."""
    import torchvision
    from torch import nn

    network = getattr(torchvision.models, name)(num_classes=1)
    if name == "resnet18":  # for small images
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    width = network.fc.in_features
    network.fc = nn.Identity()
    return network, width


def _transform(side: int) -> Any:
    from lightly.transforms import SimCLRTransform

    blur, strength = (0.0, 0.5) if side <= 64 else (0.5, 1.0)
    return SimCLRTransform(input_size=side, gaussian_blur=blur, cj_strength=strength)


def _descend(loss: Any, optimizer: Any) -> None:
    """In the order of lightly's examples: no gradient is kept over the next forward."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _lightly_simclr(backbone: str, device: str) -> tuple[Any, Any]:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from torch import nn
    from torch.optim import SGD

    trunk, width = _resnet(backbone)
    network = nn.Sequential(trunk, SimCLRProjectionHead(width, width, 128)).to(device)
    criterion, optimizer = NTXentLoss(temperature=0.5), SGD(network.parameters(), lr=0.06)

    def step(first: Any, second: Any) -> None:
        loss = criterion(network(first), network(second))
        _descend(loss, optimizer)

    def bare_step(first: Any, second: Any) -> None:
        optimizer.zero_grad()
        (network(first).sum() + network(second).sum()).backward()

    return step, bare_step


def _lightly_moco(backbone: str, device: str) -> tuple[Any, Any]:
    import copy

    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn
    from torch.optim import SGD

    trunk, width = _resnet(backbone)
    network = nn.Sequential(trunk, MoCoProjectionHead(width, width, 128)).to(device)
    momentum = copy.deepcopy(network)
    deactivate_requires_grad(momentum)
    criterion = NTXentLoss(temperature=0.1, memory_bank_size=(QUEUE, 128)).to(device)
    optimizer = SGD(network.parameters(), lr=0.06)

    def step(first: Any, second: Any) -> None:
        update_momentum(network, momentum, 0.99)
        query = network(first)
        with torch.no_grad():
            key = momentum(second)
        _descend(criterion(query, key), optimizer)

    def bare_step(first: Any, second: Any) -> None:
        optimizer.zero_grad()
        with torch.no_grad():
            momentum(second)
        network(first).sum().backward()

    return step, bare_step


def _lightly_byol(backbone: str, device: str) -> tuple[Any, Any]:
    import copy

    import torch
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn
    from torch.optim import SGD

    trunk, width = _resnet(backbone)
    network = nn.Sequential(trunk, BYOLProjectionHead(width, 4096, 256)).to(device)
    predictor = BYOLPredictionHead(256, 4096, 256).to(device)
    momentum = copy.deepcopy(network)
    deactivate_requires_grad(momentum)
    criterion = NegativeCosineSimilarity()
    optimizer = SGD([*network.parameters(), *predictor.parameters()], lr=0.06)

    def targets(*views: Any) -> list[Any]:
        with torch.no_grad():
            return [momentum(view) for view in views]

    def step(first: Any, second: Any) -> None:
        update_momentum(network, momentum, 0.99)
        queries = [predictor(network(view)) for view in (first, second)]
        keys = targets(first, second)
        loss = 0.5 * (criterion(queries[0], keys[1]) + criterion(queries[1], keys[0]))
        _descend(loss, optimizer)

    def bare_step(first: Any, second: Any) -> None:
        optimizer.zero_grad()
        targets(first, second)
        (predictor(network(first)).sum() + predictor(network(second)).sum()).backward()

    return step, bare_step


LIGHTLY = {"simclr": _lightly_simclr, "moco": _lightly_moco, "byol": _lightly_byol}


def time_steps(methods: list[str], batch_size: int, rounds: int, peers: bool) -> None:
    """Time every method beside its bare step and lightly's; write each as it is done."""
    document: dict[str, Any] = {
        **side_by_side.facts(rounds),
        "design": f"ResNet-18 with a 3x3 stem, {SIDE} pixels, batches of {batch_size}, float32",
        "compiled": False,
        "rows": {},
    }
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            # A queue holds less than the training images, four fifths of all: so many that it
            # has lightly's size.
            pixels = images(5 * (QUEUE + 2 * batch_size) // 4 + 1 if method == "moco" else IMAGES)
            run = started(method, batch_size, "resnet18", False, folder, pixels=pixels)
            entrants = {"coview": whole(run), "coview bare": bare(run)}
            if peers:
                entrants["lightly"], entrants["lightly bare"] = lightly(method, batch_size)
            seconds = side_by_side.alternate(entrants, rounds)
        ratios = [side_by_side.compared(seconds, "coview", "coview bare")]
        if peers:
            ratios += [
                side_by_side.compared(seconds, "lightly", "lightly bare"),
                side_by_side.compared(seconds, "coview", "lightly"),
            ]
        document["rows"][method] = {"ratios": ratios, "seconds": seconds}
        side_by_side.write("step", document)
        print(method, json.dumps(ratios, indent=1), flush=True)


def count_operations(methods: list[str], batch_size: int, backbone: str | None) -> None:
    """Count what one step dispatches beyond the bare step, and where the host would wait."""
    import torch._inductor.config

    torch._inductor.config.cpp.enable_kernel_profile = True
    document: dict[str, Any] = {**side_by_side.facts(), "backbone": backbone}
    document |= {"summary": {}, "which": {}}
    for method in methods:
        for compiled in (False, True):
            name = f"{method}, {'compiled' if compiled else 'eager'}"
            found = counted(method, compiled, batch_size, backbone)
            document["summary"][name], document["which"][name] = found
            print(name, document["summary"][name], flush=True)
            side_by_side.write("step-operations", document)


def counted(
    method: str, compiled: bool, batch_size: int, backbone: str | None
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the counts of one method, and how many of which operation are beyond the bare step.

    Compilation and queues settle in the steps before.
    """
    import torch

    from coview.testing.synchronisation import Synchronisations

    torch._dynamo.reset()
    with tempfile.TemporaryDirectory() as folder:
        run = started(method, batch_size, backbone, compiled, folder)
        step, least = whole(run), bare(run)
        for _ in range(3):
            step(), least()
        ours, theirs = operations(step), operations(least)
        with Synchronisations() as seen:
            step()
    differences = {name: ours.get(name, 0) - theirs.get(name, 0) for name in {*ours, *theirs}}
    beyond = {name: count for name, count in differences.items() if count}
    counts = {
        "step": sum(ours.values()),
        "bare": sum(theirs.values()),
        "beyond bare": sum(beyond.values()),
        "host waits": len(seen.found),
    }
    return counts, dict(sorted(beyond.items(), key=lambda item: -item[1]))


def operations(step: STEP) -> dict[str, int]:
    """Return how often each operation is dispatched, or each compiled loop run.

    Read from the profiler, since a dispatch mode would have compiled functions run
    as they are written. An operation that is made of others counts as those, one
    with a kernel of its own as one; views of a tensor and memory launch nothing.
    """
    from collections import Counter

    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    counts: Counter[str] = Counter()
    waiting = [event for event in profiled.events() if event.cpu_parent is None]
    while waiting:
        event = waiting.pop()
        name = event.name.removeprefix("aten::")
        if "cpp_fused" in name or name.startswith("triton_"):
            counts["compiled loop"] += 1
        elif name == event.name or _is_made_of_others(name):
            waiting.extend(event.cpu_children)
        elif not _launches_nothing(name):
            counts[name] += 1
    return dict(counts)


@functools.cache
def _overloads(name: str) -> list[str]:
    import torch

    registered = torch._C._dispatch_get_all_op_names()
    return [one for one in registered if one.split(".")[0] == f"aten::{name}"]


@functools.cache
def _is_made_of_others(name: str) -> bool:
    import torch

    key = "CompositeImplicitAutograd"
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return any(has(one, key) and not has(one, "CPU") for one in _overloads(name))


@functools.cache
def _launches_nothing(name: str) -> bool:
    import torch

    if name.startswith("empty") or name in ("detach", "_unsafe_view", "resolve_conj"):
        return True
    schemas = list(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))
    returns = [r.alias_info for schema in schemas[:1] for r in schema.returns]
    return any(info is not None and not info.is_write for info in returns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="time", choices=("time", "count"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help='"all": every one')
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--backbone", default="resnet18", help='"preset": each method\'s own')
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    if options.what == "time":
        side_by_side.steady_allocator()
        time_steps(options.methods, options.batch_size, options.rounds, not options.no_peers)
        return
    methods = options.methods
    if methods == ["all"]:
        from memory import methods as every

        methods = every()
    backbone = None if options.backbone == "preset" else options.backbone
    count_operations(methods, options.batch_size, backbone)


if __name__ == "__main__":
    main()
