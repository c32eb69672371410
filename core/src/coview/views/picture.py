"""A picture of images beside their views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from coview.components import Component, ViewsComponent, declared
from coview.data.base import ImageData
from coview.data.loader import read_batches, read_whole
from coview.data.picking import evenly
from coview.data.splits import part as few
from coview.errors import RequestError
from coview.plan import Plan
from coview.recipes.resolve import Part, Resolved
from coview.records import Batch, Step
from coview.views.sheet import Cell, draw_sheet, save_sheet


def draw_views(
    resolved: Resolved, data: ImageData, path: Path, images: int = 8, draws: int = 2, seed: int = 0
) -> tuple[int, int]:
    """Write a PNG with one row per image: the image first, then its views at their own sizes.

    Args:
        resolved: the recipe, whose views component is built; of a mixture, each one.
        data: the data set, of whose training images some are drawn, of as many classes
            as there are.
        path: path of the PNG.
        images: number of images.
        draws: number of times that the views are drawn.
        seed: random seed.

    Returns:
        The number of images (fewer than asked for if the data set is small) and of
        columns.
    """
    plan = Plan(
        dataset_size=len(data.train),
        channels=data.channels,
        image_size=data.size,
        mean=data.mean,
        std=data.std,
        fit=data.fit,
    )
    rows = evenly(data.train, images)
    chosen = next(read_batches(data.train, [rows]))
    if chosen.ndim != 4:
        raise RequestError("Only views of images can be drawn, not views of signals.")
    parts = resolved.parts["views"]
    columns, titles = [chosen.float() / 255], ["original"]
    for part in parts:
        views = part.factory(part.settings, plan)
        batch = Batch(chosen, rows, _fields(part, data, rows))
        if data.train.whole is not None:
            pixels, extents = next(read_whole(data.train, [rows]))
            batch = attrs.evolve(batch, images=pixels, extents=extents)
        for number in range(draws):
            step = Step(number=number, total_steps=draws, seed=seed, component="views")
            crops = views.generate_views(batch=batch, step=step).crops
            columns += [_pictured(views, view, crop) for view, crop in enumerate(crops)]
            below = [part.name] * (len(parts) > 1) + [f"draw {number + 1}"] * (draws > 1)
            titles += _titles(crops, below)
    titles = [_sized(title, column) for title, column in zip(titles, columns, strict=True)]
    cells = [[Cell(picture) for picture in pictures] for pictures in zip(*columns, strict=True)]
    save_sheet(draw_sheet(titles, cells), path)
    return len(rows), len(columns)


def _fields(part: Part, data: ImageData, rows: Tensor) -> dict[str, Any]:
    """Return what else of the images a views component asks for."""
    split = few(data.train, rows)
    names = declared(part.factory, Component, "needs_fields")
    fields = {name: split.field(name) for name in names}
    if missing := [name for name, values in fields.items() if values is None]:
        raise RequestError(
            f"views {part.name!r} need {', '.join(missing)}, which {data.name} does not have."
        )
    return fields


def _titles(crops: Sequence[Tensor], below: Sequence[str]) -> list[str]:
    """Return a title for each view, with lines below; one smaller than others is a small crop."""
    largest = max(crop.shape[-1] for crop in crops)
    kinds = ("view" if crop.shape[-1] == largest else "small crop" for crop in crops)
    return ["\n".join([f"{kind} {view}", *below]) for view, kind in enumerate(kinds, 1)]


def _sized(title: str, pictures: Tensor) -> str:
    first, *below = title.splitlines()
    height, width = pictures.shape[-2:]
    return "\n".join([first, f"{height} x {width}", *below])


def _pictured(views: Any, view: int, crop: Tensor) -> Tensor:
    """Return a crop as people see it, in [0, 1].

    The views' own method ``pictured`` makes it if there is one; else the
    standardisation is undone.
    """
    seen: Tensor | None = declared(views, ViewsComponent, "pictured")(view, crop)
    if seen is not None:
        return seen
    channels = crop.shape[1]
    normalization = declared(views, ViewsComponent, "normalization")
    mean, std = normalization or ((0.0,) * channels, (1.0,) * channels)
    return crop * crop.new_tensor(std).view(-1, 1, 1) + crop.new_tensor(mean).view(-1, 1, 1)
