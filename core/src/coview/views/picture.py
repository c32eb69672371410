"""A picture of images beside their views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from coview.components import Component, ViewsComponent, declared
from coview.data.base import ImageData
from coview.data.loader import read_batches, read_whole
from coview.data.picking import evenly
from coview.data.splits import part as few
from coview.errors import RequestError
from coview.plan import Plan
from coview.recipes.resolve import Part, Resolved
from coview.records import Batch, Step
from coview.views.noted import Box, Fired, fired, noting
from coview.views.sheet import COLOURS, Cell, Colour


@attrs.frozen(eq=False)
class Drawn:
    """Images and the views that are made of them.

    Attributes:
        titles: above the columns: first the images, then views.
        rows: of each image, its cell and those of its views.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def draw_views(
    resolved: Resolved, data: ImageData, images: int = 8, draws: int = 2, seed: int = 0
) -> Drawn:
    """Return a row for each image: the image first, then its views at their own sizes.

    What was done to an image is written below a view, and its crop is outlined in the image in
    the colour of the view's frame, where the views' backend says what it drew.

    Args:
        resolved: the recipe, whose views component is built; of a mixture, each one.
        data: the data set, of whose training images some are drawn (fewer than asked for if it
            is small), of as many classes as there are.
        images: number of images.
        draws: number of times that the views are drawn.
        seed: random seed.
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
    batch = Batch(chosen, rows)
    if data.train.whole is not None:
        pixels, extents = next(read_whole(data.train, [rows]))
        batch = attrs.evolve(batch, images=pixels, extents=extents)
    columns = list(_columns(resolved, plan, data, batch, draws, seed))
    originals = [_original(batch, chosen, row) for row in range(len(rows))]
    # Whole images are larger than views, which are to be looked at.
    sides = [max(column.pictures.shape[-2:]) for column in columns]
    most = None if batch.extents is None else max(sides)
    return Drawn(
        (f"original\n{_size(originals)}", *(column.title for column in columns)),
        tuple(_line(image, columns, row, most) for row, image in enumerate(originals)),
    )


@attrs.frozen(eq=False)
class _Column:
    """One view of every image.

    Attributes:
        title: lines above it.
        pictures: (N, C, H, W) in [0, 1].
        done: what was done to each image; None where it is not known.
    """

    title: str
    pictures: Tensor
    done: Sequence[Fired | None]


def _columns(
    resolved: Resolved, plan: Plan, data: ImageData, batch: Batch, draws: int, seed: int
) -> Iterator[_Column]:
    parts, rows = resolved.parts["views"], batch.indices
    for part in parts:
        views = part.factory(part.settings, plan)
        own = attrs.evolve(batch, fields=_fields(part, data, rows))
        for number in range(draws):
            step = Step(number=number, total_steps=draws, seed=seed, component="views")
            with noting() as notes:
                crops = views.generate_views(batch=own, step=step).crops
            below = [part.name] * (len(parts) > 1) + [f"draw {number + 1}"] * (draws > 1)
            titles = _titles(crops, below)
            for view, (title, crop) in enumerate(zip(titles, crops, strict=True)):
                done = [fired(notes, view, row) for row in range(len(rows))]
                yield _Column(title, _pictured(views, view, crop), done)


def _line(
    image: Tensor, columns: Sequence[_Column], row: int, most: int | None
) -> tuple[Cell, ...]:
    """Return an image's cell, with its crops outlined, and those of its views."""
    cells, outlines = [], []
    for number, column in enumerate(columns):
        colour, done = COLOURS[number % len(COLOURS)], column.done[row]
        cells.append(_cell(column.pictures[row], done, colour))
        if done is not None and done.box is not None:
            outlines.append((colour, done.box))
    return (_outlined(image, outlines, most), *cells)


def _original(batch: Batch, squares: Tensor, row: int) -> Tensor:
    """Return the image that crops are cut from, (C, H, W) in [0, 1]."""
    if batch.extents is None:
        return squares[row].float() / 255
    start, height, width = batch.extents[row].tolist()
    pixels = batch.images[start : start + height * width]
    return pixels.view(height, width, -1).permute(2, 0, 1).float() / 255


def _outlined(image: Tensor, outlines: Sequence[tuple[Colour, Box]], most: int | None) -> Cell:
    """Return an image with the crops in it, of at most so many pixels a side."""
    scale = min(1.0, most / max(image.shape[-2:])) if most else 1.0
    if scale < 1:
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = resize(image, size, antialias=True)
    boxes = [(colour, *(value * scale for value in box)) for colour, box in outlines]
    return Cell(image, boxes=tuple(boxes))  # type: ignore[arg-type]


def _cell(picture: Tensor, done: Fired | None, colour: Colour) -> Cell:
    if done is None:
        return Cell(picture)
    return Cell(picture, done.words, None if done.box is None else colour)


def _size(images: Sequence[Tensor]) -> str:
    sizes = {tuple(image.shape[-2:]) for image in images}
    if len(sizes) > 1:
        return "their own sizes"
    height, width = sizes.pop()
    return f"{height} x {width}"


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
    titles = []
    for view, crop in enumerate(crops, 1):
        height, width = crop.shape[-2:]
        kind = "view" if width == largest else "small crop"
        titles.append("\n".join([f"{kind} {view}", f"{height} x {width}", *below]))
    return titles


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
