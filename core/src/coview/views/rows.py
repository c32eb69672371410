"""From what was drawn to what the loops over pixels take, for all rows before any pixel.

All of it is small, (V, B, ...) each: done once for a batch, however few images at
a time then go through the chain. A gate becomes a parameter that changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coview.views.blur import taps_of
from coview.views.colour import hue_offsets
from coview.views.draws import Drawn
from coview.views.operations import NEUTRAL, Blur, Flip, Grey, Jitter, Solarize, reach
from coview.views.resample import aims

Prepared = dict[str, Tensor]
STEPS = ("brightness", "contrast", "saturation")


def prepare(column: Sequence[Any], drawn: Drawn) -> Prepared:
    """Return the parameters of one operation that is no crop.

    Args:
        column: its description for each view.
        drawn: see :func:`coview.views.draws.draw`; nothing where it is not used.

    Returns:
        Nothing for what is not used; ``brightness``, ``contrast`` and ``saturation``
        (V, B, 1, 1), ``hue`` (V, B, 3, 1) and perhaps ``position`` (V, B, 4); ``keep``
        (V, B, 1, 1), 0 where a grey image is wanted; ``taps`` (V, B, taps); ``threshold``
        (V, B, 1, 1); ``on`` (V, B) of a flip.
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
        return {"taps": taps_of(drawn["sigma"], on, max(map(reach, column)))}
    return {"on": on}


def _jitter(drawn: Drawn, on: Tensor) -> Prepared:
    *factors, hue = (torch.where(on, drawn["factors"][k], n) for k, n in enumerate(NEUTRAL))
    made = {name: f[..., None, None] for name, f in zip(STEPS, factors, strict=True)}
    made["hue"] = hue_offsets(hue)
    if "position" in drawn:
        made["position"] = drawn["position"].movedim(0, -1)
    return made


def prepare_crop(
    columns: Sequence[Sequence[Any]], at: int, drawn: Sequence[Drawn], size: tuple[int, int]
) -> Prepared:
    """Return a crop's parameters; the flip, wherever it stands, is made part of it.

    Args:
        columns: by operation, its description for each view.
        at: which of them is the crop.
        drawn: of every operation; nothing for those that are not used.
        size: height and width of the images.
    """
    box = dict(drawn[at])
    flip = next((k for k, c in enumerate(columns) if isinstance(c[0], Flip)), None)
    flipped = None if flip is None else drawn[flip].get("on")
    if flip is not None and flipped is not None and flip < at:
        # The crop is of the mirrored image: of the other side of this one, then mirrored.
        box["left"] = torch.where(flipped, size[1] - box["left"] - box["width"], box["left"])
    return aims(columns[at][0], box, flipped, size)
