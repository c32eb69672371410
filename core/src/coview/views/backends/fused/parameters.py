"""Drawing the parameters of a batch and preparing them for the loops over pixels.

The tensors are small, (V, B, ...) each, and are computed once per batch, however
few images then go through the chain at a time. An image that an operation skips
gets parameters that change nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from coview.nn.constants import constant
from coview.views.backends.fused.blur import box_taps_of, taps_of
from coview.views.backends.fused.colour import hue_offsets
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
    reach,
)

TRIES = 10
Drawn = dict[str, Tensor]
"""Parameters of one operation, by name, (V, B) each."""


@attrs.frozen
class Rows:
    """This process's rows of the global batch.

    Attributes:
        count: number of images of this process.
        rank: number of this process.
        world_size: number of processes.
    """

    count: int
    rank: int = 0
    world_size: int = 1

    def uniform(self, numbers: int, views: int, generator: torch.Generator) -> Tensor:
        """Return this process's uniform numbers in [0, 1), (numbers, views, count)."""
        shape = (numbers, views, self.count * self.world_size)
        drawn = torch.rand(shape, generator=generator, device=generator.device)
        return drawn[..., self.rank * self.count : (self.rank + 1) * self.count]


def needs(description: Description) -> int:
    """Return how many uniform numbers an operation needs per row."""
    if isinstance(description, Jitter):
        return 9 if description.by_sample else 5
    counts: dict[type, int] = {Crop: 2 * TRIES + 2, Flip: 1, Grey: 1, Blur: 2, Solarize: 1}
    return counts.get(type(description), 0)


Size = tuple[int, int] | tuple[Tensor, Tensor]
"""Height and width of all images, or (B,) each of images at their own sizes."""


def draw(views: Sequence[Any], uniform: Tensor, size: Size) -> Drawn:
    """Draw the parameters of one operation.

    Args:
        views: the operation's description for each view, all of one type.
        uniform: (needs, V, B) in [0, 1).
        size: height and width of the images that it is applied to.

    Returns:
        By name: ``top``, ``left``, ``height``, ``width`` of a crop, in pixels;
        ``factors`` (4, V, B) of a jitter and, if each image has its own order, the
        ``position`` (4, V, B) of the four in it; ``sigma`` of a blur; ``on``, if the
        operation has a probability.
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
    """Return each view's order of the four, without those that never change anything.

    Drawn from the seed on the host, so that Python can branch on it without waiting
    for the device.
    """
    source = random.Random(seed)
    idle = {k for k in range(4) if all(v.ranges[k] == (NEUTRAL[k],) * 2 for v in views)}
    drawn = [source.sample(range(4), 4) if v.fixed is None else v.fixed for v in views]
    return [tuple(k for k in order if k not in idle) for order in drawn]


def boxes(views: Sequence[Crop], uniform: Tensor, size: Size) -> Drawn:
    """Draw crops as torchvision's ``RandomResizedCrop.get_params`` does, ten tries at once."""
    height, width = size
    area = _between([v.scale for v in views], uniform[:TRIES]) * (height * width)
    logs = [(math.log(v.ratio[0]), math.log(v.ratio[1])) for v in views]
    ratio = _between(logs, uniform[TRIES : 2 * TRIES]).exp()
    tall, wide = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    other = central(views, size, uniform.device)
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


def central(views: Sequence[Crop], size: Size, device: torch.device) -> list[Tensor | float]:
    """Return top, left, height and width of the largest central part of an allowed ratio."""
    height, width = size
    if not isinstance(height, Tensor) or not isinstance(width, Tensor):
        middle = [central_box(v.ratio, int(height), int(width)) for v in views]
        return [by_view([float(box[k]) for box in middle], device) for k in range(4)]
    least, most = (by_view([pick(v.ratio) for v in views], device) for pick in (min, max))
    own = width / height
    tall = torch.where(own < least, (width / least).round(), height)
    wide = torch.where(own > most, (height * most).round(), width)
    return [((height - tall) / 2).floor(), ((width - wide) / 2).floor(), tall, wide]


def _between(ranges: Sequence[tuple[float, float]], uniform: Tensor) -> Tensor:
    low = by_view([low for low, _ in ranges], uniform.device)
    span = by_view([high - low for low, high in ranges], uniform.device)
    return uniform * span + low


def by_view(values: Sequence[float], device: torch.device) -> Tensor | float:
    """Return one number if all views agree, else a (V, 1) tensor, copied to the device once."""
    if len(set(values)) == 1:
        return values[0]
    return constant(values, device).unsqueeze(1)


Prepared = dict[str, Tensor]
STEPS = ("brightness", "contrast", "saturation")


def prepare(column: Sequence[Any], drawn: Drawn) -> Prepared:
    """Return the parameters of one operation other than a crop.

    Args:
        column: the operation's description for each view.
        drawn: see :func:`draw`; empty if the operation is not used.

    Returns:
        Empty if the operation is not used. For a jitter ``brightness``, ``contrast``
        and ``saturation`` (V, B, 1, 1), ``hue`` (V, B, 3, 1) and perhaps ``position``
        (V, B, 4); for grey-scale ``keep`` (V, B, 1, 1), 0 where the image becomes grey;
        for a blur ``taps`` (V, B, taps); for a solarisation ``threshold`` (V, B, 1, 1);
        for a flip ``on`` (V, B).
    """
    if not drawn:
        return {}
    on = drawn["on"]
    if isinstance(column[0], Jitter):
        return _jitter(drawn, on)
    if isinstance(column[0], Grey):
        return {"keep": (~on).float()[..., None, None]}
    if isinstance(column[0], Solarize):
        return {"threshold": torch.where(on, 0.5, 2.0)[..., None, None]}
    if isinstance(column[0], Blur):
        weights = box_taps_of if column[0].kind == "pillow" else taps_of
        return {"taps": weights(drawn["sigma"], on, max(map(reach, column)))}
    return {"on": on}


def _jitter(drawn: Drawn, on: Tensor) -> Prepared:
    *factors, hue = (torch.where(on, drawn["factors"][k], n) for k, n in enumerate(NEUTRAL))
    made = {name: f[..., None, None] for name, f in zip(STEPS, factors, strict=True)}
    made["hue"] = hue_offsets(hue)
    if "position" in drawn:
        made["position"] = drawn["position"].movedim(0, -1)
    return made


Aim = Callable[[Crop, Drawn, Tensor | None, Any], Prepared]
"""From a crop, its box, which rows are flipped and the images' size to what resampling needs."""


def prepare_crop(
    columns: Sequence[Sequence[Any]], at: int, drawn: Sequence[Drawn], size: Size, aim: Aim
) -> Prepared:
    """Return a crop's parameters, which include the flip wherever it stands in the order.

    Args:
        columns: for each operation, its description for each view.
        at: index of the crop.
        drawn: what was drawn for each operation; empty for those not used.
        size: height and width of the images.
        aim: what makes of a box in images of one size what resampling needs.
    """
    box = dict(drawn[at])
    flip = next((k for k, c in enumerate(columns) if isinstance(c[0], Flip)), None)
    flipped = None if flip is None else drawn[flip].get("on")
    if flip is not None and flipped is not None and flip < at:
        # A crop of the mirrored image is the mirrored crop of this image's other side.
        box["left"] = torch.where(flipped, size[1] - box["left"] - box["width"], box["left"])
    each_its_own = isinstance(size[0], Tensor)
    return (boxed if each_its_own else aim)(columns[at][0], box, flipped, size)


def boxed(crop: Crop, box: Drawn, flipped: Tensor | None, size: Any) -> Prepared:
    """Return the box, and perhaps which rows are flipped: all that cutting single images needs."""
    return box if flipped is None else {**box, "flipped": flipped}
