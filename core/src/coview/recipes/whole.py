"""What training's crops are cut from: the image itself, or its centre at one size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from coview.components import ViewsComponent, declared
from coview.errors import RequestError
from coview.recipes.tables import DEFAULT_SIZE, SMALL_IMAGE, SMALL_PRESETS, DataSettings


def fitted(
    data: DataSettings, parts: Mapping[str, Sequence[Any]], preset: str | None, problems: list[str]
) -> DataSettings:
    """Return the settings of the data with ``fit`` decided, and ``whole_side`` with it.

    Args:
        data: the settings as given.
        parts: the recipe's resolved parts, by table.
        preset: the preset that was applied, if any.
        problems: a sentence is added if the views cannot do what was asked for.
    """
    if data.fit == "square":
        return data
    size = data.size or (SMALL_IMAGE if preset in SMALL_PRESETS else DEFAULT_SIZE)
    if data.fit == "auto" and size <= SMALL_IMAGE:
        return attrs.evolve(data, fit="square")
    sides = {part.name: _least_side(part, size) for part in parts["views"]}
    known = [side for side in sides.values() if side is not None]
    unable = [name for name, side in sides.items() if side is None]
    if unable or not known or data.decoder == "gpu":
        if data.fit == "whole":
            problems.append(_why(unable))
        return attrs.evolve(data, fit="square")
    side = math.ceil(max(known)) if data.whole_side is None else data.whole_side
    return attrs.evolve(data, fit="whole", whole_side=side)


def _least_side(part: Any, size: int) -> float | None:
    if part.settings is None:
        return None  # reported with everything else
    try:
        found: float | None = declared(part.factory, ViewsComponent, "least_side")(
            part.settings, size
        )
    except RequestError:
        return None  # the views refuse these settings when they are built
    return found


def _why(unable: Sequence[str]) -> str:
    if not unable:
        return (
            "data.fit = whole needs data.decoder = cpu: the GPU's decoder gives images of one size."
        )
    return (
        f"data.fit = whole needs views that cut crops from images of any size with "
        f"views.backend = fused and the crop first; {', '.join(unable)} here does not: use "
        "data.fit = square."
    )
