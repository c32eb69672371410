"""What fused views draw: every parameter of every view on the device, from one generator.

Rows are views (V) by images (B). Numbers are drawn for the global batch, of
which a process keeps its own rows, so that n processes see what one would.
Nothing here reads a value back, so the host never waits for the device.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.constants import constant
from coview.views.operations import (
    NEUTRAL,
    Blur,
    Crop,
    Description,
    Flip,
    Grey,
    Jitter,
    Solarize,
    central_box,
)

TRIES = 10
Drawn = dict[str, Tensor]
"""Parameters of one operation by name, (V, B) each."""


@attrs.frozen
class Rows:
    """The images of this process among those of the global batch.

    Attributes:
        count: of this process.
        rank: its place.
        world_size: number of processes.
    """

    count: int
    rank: int = 0
    world_size: int = 1

    def uniform(self, numbers: int, views: int, generator: torch.Generator) -> Tensor:
        """Return (numbers, views, count) in [0, 1)."""
        shape = (numbers, views, self.count * self.world_size)
        drawn = torch.rand(shape, generator=generator, device=generator.device)
        return drawn[..., self.rank * self.count : (self.rank + 1) * self.count]


def needs(description: Description) -> int:
    """Return how many uniform numbers an operation takes for a row."""
    if isinstance(description, Jitter):
        return 9 if description.by_sample else 5
    counts: dict[type, int] = {Crop: 2 * TRIES + 2, Flip: 1, Grey: 1, Blur: 2, Solarize: 1}
    return counts.get(type(description), 0)


def draw(views: Sequence[Any], uniform: Tensor, size: tuple[int, int]) -> Drawn:
    """Draw the parameters of one operation.

    Args:
        views: its description for each view; of one type.
        uniform: (needs, V, B) in [0, 1).
        size: height and width of the images that it meets.

    Returns:
        By name: ``top``, ``left``, ``height``, ``width`` of a crop, in pixels;
        ``factors`` (4, V, B) of a jitter and, for an order each, ``position`` (4, V, B)
        of its four; ``sigma`` of a blur; ``on``, where the operation has a probability.
    """
    if isinstance(views[0], Crop):
        return boxes(views, uniform, size)
    makers: dict[type, Callable[[], Drawn]] = {
        Jitter: lambda: _factors(views, uniform),
        Blur: lambda: {"sigma": _between([v.sigma for v in views], uniform[1])},
    }
    if not len(uniform):
        return {}
    on = {"on": uniform[0] < by_view([v.p for v in views], uniform.device)}
    return {**on, **makers.get(type(views[0]), dict)()}


def _factors(views: Sequence[Jitter], uniform: Tensor) -> Drawn:
    drawn = {
        "factors": torch.stack(
            [_between([v.ranges[k] for v in views], uniform[1 + k]) for k in range(4)]
        )
    }
    if len(uniform) == 9:
        drawn["position"] = uniform[5:].argsort(dim=0)
    return drawn


def orders(views: Sequence[Any], seed: int) -> list[tuple[int, ...]]:
    """Return the order of the four for each view, without those that never change anything.

    Drawn on the host, where the branches are: a seed is known without waiting.
    """
    source = random.Random(seed)
    idle = {k for k in range(4) if all(v.ranges[k] == (NEUTRAL[k],) * 2 for v in views)}
    drawn = [source.sample(range(4), 4) if v.fixed is None else v.fixed for v in views]
    return [tuple(k for k in order if k not in idle) for order in drawn]


def boxes(views: Sequence[Crop], uniform: Tensor, size: tuple[int, int]) -> Drawn:
    """Draw crops as torchvision's ``RandomResizedCrop.get_params`` does, ten tries at once."""
    height, width = size
    area = _between([v.scale for v in views], uniform[:TRIES]) * (height * width)
    logs = [(math.log(v.ratio[0]), math.log(v.ratio[1])) for v in views]
    ratio = _between(logs, uniform[TRIES : 2 * TRIES]).exp()
    tall, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    middle = [central_box(v.ratio, height, width) for v in views]
    other = [by_view([float(box[k]) for box in middle], uniform.device) for k in range(4)]
    tall = torch.where(found, tall.gather(0, first)[0], other[2])
    wide = torch.where(found, wide.gather(0, first)[0], other[3])
    down, right = uniform[2 * TRIES :]
    # A product may round up to the bound itself, hence the minimum.
    top = torch.minimum((down * (height - tall + 1)).floor(), height - tall)
    left = torch.minimum((right * (width - wide + 1)).floor(), width - wide)
    return {
        "top": torch.where(found, top, other[0]),
        "left": torch.where(found, left, other[1]),
        "height": tall,
        "width": wide,
    }


def _between(ranges: Sequence[tuple[float, float]], uniform: Tensor) -> Tensor:
    low = by_view([low for low, _ in ranges], uniform.device)
    span = by_view([high - low for low, high in ranges], uniform.device)
    return uniform * span + low


def by_view(values: Sequence[float], device: torch.device) -> Tensor | float:
    """Return one number where views agree, else a (V, 1) tensor, copied to a device once."""
    if len(set(values)) == 1:
        return values[0]
    return constant(values, device).unsqueeze(1)
