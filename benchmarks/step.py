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


def images() -> Any:
    """Return noise that compresses to nothing and trains as well as anything for timing."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def started(method: str, batch_size: int, backbone: str, compiled: bool, folder: str) -> Any:
    """Return a run of the method's small preset at its first step."""
    from coview.configure import Changes
    from coview.training.start import Request, start

    changes = Changes(
        backbone=backbone, batch_size=batch_size, epochs=1000, set=OWN.get(method, {})
    )
    run = start(
        Request(
            method=method,
            data=images(),
            changes=changes,
            out=Path(folder) / f"{method}-{compiled}",
            evaluate=False,
            compile=compiled,
            on_collapse="ignore",
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


def lightly(method: str, batch_size: int) -> tuple[STEP, STEP]:
    """Return lightly's loop, a step at a time, and its own bare step."""
    import torch
    from torch.utils.data import DataLoader

    loop = {"simclr": _lightly_simclr, "moco": _lightly_moco, "byol": _lightly_byol}[method]
    transform, step, bare_step = loop()
    pictures = _Pictures(images(), transform)
    loader = DataLoader(
        pictures, batch_size, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()
    first, second = (torch.randn(batch_size, 3, SIDE, SIDE) for _ in range(2))
    return lambda: step(*next(batches)[0]), lambda: bare_step(first, second)


class _Pictures:
    """The images as PIL gives them, transformed."""

    def __init__(self, pixels: Any, transform: Any) -> None:
        from PIL import Image

        self.transform = transform
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index]), 0


def _resnet18() -> Any:
    from torch import nn
    from torchvision.models import resnet18

    network = resnet18(num_classes=1)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network


def _transform() -> Any:
    from lightly.transforms import SimCLRTransform

    return SimCLRTransform(input_size=SIDE, gaussian_blur=0.0, cj_strength=0.5)


def _descend(parameters: Any, loss: Any, optimizer: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _lightly_simclr() -> tuple[Any, Any, Any]:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from torch import nn
    from torch.optim import SGD

    network = nn.Sequential(_resnet18(), SimCLRProjectionHead(512, 512, 128))
    criterion, optimizer = NTXentLoss(temperature=0.5), SGD(network.parameters(), lr=0.06)

    def step(first: Any, second: Any) -> None:
        loss = criterion(network(first), network(second))
        _descend(network, loss, optimizer)

    def bare_step(first: Any, second: Any) -> None:
        optimizer.zero_grad()
        (network(first).sum() + network(second).sum()).backward()

    return _transform(), step, bare_step


def _lightly_moco() -> tuple[Any, Any, Any]:
    import copy

    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn
    from torch.optim import SGD

    network = nn.Sequential(_resnet18(), MoCoProjectionHead(512, 512, 128))
    momentum = copy.deepcopy(network)
    deactivate_requires_grad(momentum)
    criterion = NTXentLoss(temperature=0.1, memory_bank_size=(QUEUE, 128))
    optimizer = SGD(network.parameters(), lr=0.06)

    def step(first: Any, second: Any) -> None:
        update_momentum(network, momentum, 0.99)
        query = network(first)
        with torch.no_grad():
            key = momentum(second)
        _descend(network, criterion(query, key), optimizer)

    def bare_step(first: Any, second: Any) -> None:
        optimizer.zero_grad()
        with torch.no_grad():
            momentum(second)
        network(first).sum().backward()

    return _transform(), step, bare_step


def _lightly_byol() -> tuple[Any, Any, Any]:
    import copy

    import torch
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn
    from torch.optim import SGD

    network = nn.Sequential(_resnet18(), BYOLProjectionHead(512, 4096, 256))
    predictor = BYOLPredictionHead(256, 4096, 256)
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
        _descend(network, loss, optimizer)

    def bare_step(first: Any, second: Any) -> None:
        optimizer.zero_grad()
        targets(first, second)
        (predictor(network(first)).sum() + predictor(network(second)).sum()).backward()

    return _transform(), step, bare_step


def time_steps(methods: list[str], batch_size: int, rounds: int, peers: bool) -> None:
    """Time every method beside its bare step and lightly's; write each as it is done."""
    document: dict[str, Any] = {
        **side_by_side.facts(rounds),
        "design": f"resnet18 with a 3x3 stem, {SIDE} pixels, batches of {batch_size}, float32",
        "compiled": False,
        "rows": {},
    }
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            run = started(method, batch_size, "resnet18", False, folder)
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


def count_operations(methods: list[str], batch_size: int) -> None:
    """Count what one step dispatches beyond the bare step, and where the host would wait."""
    from coview.testing.synchronisation import Synchronisations

    summary: dict[str, Any] = {}
    for method in methods:
        for compiled in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                run = started(method, batch_size, "resnet18", compiled, folder)
                step, least = whole(run), bare(run)
                step(), step(), least(), least()
                ours, theirs = operations(step), operations(least)
                with Synchronisations() as seen:
                    step()
            name = f"{method}, {'compiled' if compiled else 'eager'}"
            summary[name] = {
                "step": sum(ours.values()),
                "bare": sum(theirs.values()),
                "beyond bare": sum(ours.values()) - sum(theirs.values()),
                "host waits": len(seen.found),
            }
            print(name, summary[name], flush=True)
            side_by_side.write("step-operations", {**side_by_side.facts(), "summary": summary})


def operations(step: STEP) -> dict[str, int]:
    """Return how often each operation is dispatched; views of a tensor launch nothing."""
    from collections import Counter

    from torch.utils._python_dispatch import TorchDispatchMode

    counts: Counter[str] = Counter()

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if not _is_view(func):
                counts[str(func)] += 1
            return func(*args, **(kwargs or {}))

    with Counting():
        step()
    return dict(counts)


@functools.cache
def _is_view(func: Any) -> bool:
    named = func.overloadpacket.__name__ in ("detach", "_unsafe_view", "alias")
    return named or any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="time", choices=("time", "count"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--detail", action="store_true", help="count: print every operation")
    options = parser.parse_args()
    if options.what == "time":
        side_by_side.steady_allocator()
        time_steps(options.methods, options.batch_size, options.rounds, not options.no_peers)
    elif options.detail:
        for method in options.methods:
            with tempfile.TemporaryDirectory() as folder:
                run = started(method, options.batch_size, "resnet18", False, folder)
                step, least = whole(run), bare(run)
                step(), least()
                ours, theirs = operations(step), operations(least)
            beyond = {k: n - theirs.get(k, 0) for k, n in ours.items() if n - theirs.get(k, 0)}
            print(method, sum(ours.values()), sum(theirs.values()))
            print(json.dumps(dict(sorted(beyond.items(), key=lambda kv: -kv[1])), indent=1))
    else:
        count_operations(options.methods, options.batch_size)


if __name__ == "__main__":
    main()
