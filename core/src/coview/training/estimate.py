"""How long a run will take, and how much memory: measured on a few images before it starts."""

from __future__ import annotations

import copy
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from coview.components import TargetComponent, ViewsComponent, declared
from coview.data.whole import Buffer
from coview.distributed import active
from coview.training import threads

ENOUGH = 0.4
"""Seconds that a probe takes at least, unless it has all images of a step."""
PROBE = 2**15
"""Pixels of the smallest probe: with fewer, starting each operation is what is measured."""
PASSES, LONG = 3, 1.0
"""Passes of which the shortest counts; seconds of one that is not repeated."""
SMALL_STEP = 2**21
"""Pixels of a step's views up to which a step takes moments and fits everywhere."""
BATCHES = {True: 3, False: 2}
"""Batches of whole images at once: in use and copied, and on a CPU also decoded."""
COPIES = 4
"""Of the parameters: weights, gradients and an optimiser's two moments."""


@attrs.frozen
class Estimate:
    """What a run will need for its backbone and whole images; heads and views come on top.

    Attributes:
        step_seconds: for the forward and backward passes of a step.
        bytes: what a step keeps in memory, with weights, gradients and moments, and batches of
            whole images.
        steps: number of steps that are left.
        crowded: a sentence if other programs made it slower than it could be, else empty.
    """

    step_seconds: float
    bytes: int
    steps: int
    crowded: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of training in all."""
        return self.step_seconds * self.steps

    def __str__(self) -> str:
        return f"about {duration(self.step_seconds)} a step, {duration(self.seconds)} in all"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: ``0.25 s``, ``40 s``, ``3 minutes``, ``9 days``."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a step may take on a device; None: unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        # What is free at this moment would leave out what the system caches.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 4 // 5
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None


def is_small(run: Any) -> bool:
    """Return whether a step is so small that there is nothing to estimate."""
    layout = run.method.components["views"].layout
    pixels = sum(height * width for height, width in layout.sizes)
    return bool(pixels * run.plan.local_batch_size <= SMALL_STEP)


def estimate(run: Any) -> Estimate:
    """Run the backbone forward and backward on random images of the views' sizes.

    Weights, buffers and random numbers stay as they are.

    Args:
        run: a :class:`coview.training.run.Run` that is built.
    """
    device = run.device
    before = threads.use()
    seconds, kept = _image(run)
    each, crowded = run.plan.local_batch_size * run.plan.accumulate, threads.crowded(before, device)
    if crowded and not active():
        with threads.using(1):
            alone = duration(_image(run)[0] * each)
        crowded += (
            ", so the estimate is worth little. With one thread a step takes about "
            f"{alone}: --threads 1"
        )
    weights = sum(p.numel() * p.element_size() for p in run.method.parameters())
    return Estimate(
        step_seconds=seconds * each,
        bytes=round(kept * run.plan.local_batch_size) + COPIES * weights + buffers(run),
        steps=run.last_step - run.step,
        crowded=crowded,
    )


def _image(run: Any) -> tuple[float, float]:
    """Return the seconds that a step takes for each image, and the bytes that it keeps."""
    layout, device = run.method.components["views"].layout, run.device
    network = copy.deepcopy(run.method.encoder.trunk).train()
    seconds, kept = 0.0, 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for shapes, count in _inputs(run, layout.queries).items():
            each, saved = _per_image(network, shapes, run)
            seconds, kept = seconds + count * each, kept + count * saved
        if declared(run.method.components["target"], TargetComponent, "backbone")() is not None:
            network.requires_grad_(False)
            for shapes, count in _inputs(run, layout.keys).items():
                seconds += count * _per_image(network, shapes, run)[0]
    return seconds, kept


def buffers(run: Any) -> int:
    """Return the bytes of the batches of whole images that lie in the device's memory at once."""
    whole = run.data.train.whole
    if whole is None or isinstance(whole, Buffer):  # kept in memory: there is no other copy
        return 0
    images: int = run.plan.local_batch_size * run.plan.accumulate
    count: int = BATCHES[run.device.type == "cpu"] * images
    bytes_: float = count * run.data.mean_pixels * run.data.channels
    return round(bytes_)


Shapes = tuple[tuple[int, ...], ...]
"""(C, H, W) of each crop, or (C, T) of each signal, that a network takes at once."""


def _inputs(run: Any, used: Sequence[int]) -> Counter[Shapes]:
    """Return what the network is given for an image in a step, and how often.

    Most networks take one crop. One that joins a network for each view takes all views.
    """
    views = run.method.components["views"]
    layout = views.layout
    if declared(views, ViewsComponent, "takes") == "signals":  # a row of samples has no height
        return Counter(((layout.channels[view], layout.sizes[view][1]),) for view in used)
    shapes = [(layout.channels[view], *layout.sizes[view]) for view in used]
    if declared(views, ViewsComponent, "normalization") is None:
        side = run.plan.image_size
        image = torch.zeros(1, run.plan.channels, side, side, dtype=torch.uint8, device=run.device)
        # Patches are encoded one by one, and only averaged by what is exported.
        joins = type(run.method.encoder.backbone()) is type(run.method.encoder.trunk)
        if joins and len(views.evaluation_views(image).crops) > 1:
            return Counter([tuple(shapes)])
    return Counter((shape,) for shape in shapes)


def _per_image(network: nn.Module, shapes: Shapes, run: Any) -> tuple[float, float]:
    """Return seconds and saved bytes for each image, from as few as tell."""

    def random(count: int) -> list[Tensor]:
        return [torch.rand(count, *shape, device=run.device) for shape in shapes]

    most = run.plan.local_batch_size
    _pass(network, random(min(2, most)), run)  # it prepares
    count = min(max(2, PROBE // sum(math.prod(shape[1:]) for shape in shapes)), most)
    while True:
        seconds, saved = _best(network, random(count), run)
        if seconds >= ENOUGH or count >= most or active():  # processes must do the same passes
            return seconds / count, saved / count
        count = min(4 * count, most)


def _best(network: nn.Module, images: Sequence[Tensor], run: Any) -> tuple[float, int]:
    """Return the shortest of a few passes: another program may have had the processor in one."""
    seconds, saved = _pass(network, images, run)
    for _ in range(PASSES - 1):
        if seconds > LONG and not active():
            break
        seconds = min(seconds, _pass(network, images, run)[0])
    return seconds, saved


def _pass(network: nn.Module, images: Sequence[Tensor], run: Any) -> tuple[float, int]:
    """Return the seconds of a forward and backward pass, and the bytes kept in between."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    began = _now(run.device)
    with saved_tensors_hooks(keep, lambda tensor: tensor), run.method.autocast():
        rows = network(*images)
    if rows.requires_grad:
        rows.float().sum().backward()
    seconds = _now(run.device) - began
    network.zero_grad()
    return seconds, sum(size for place, size in saved.items() if place not in own)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
