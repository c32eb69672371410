"""A picture of images beside their views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize
from torchvision.utils import make_grid, save_image

from coview.components import ViewsComponent, declared
from coview.data.base import ImageData
from coview.data.loader import read_batches
from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.plan import Plan
from coview.recipes.resolve import Resolved
from coview.records import Batch, Step

CELL = 96
"""Pixels per side of a cell of the picture."""


def draw_views(
    resolved: Resolved, data: ImageData, path: Path, images: int = 8, draws: int = 2, seed: int = 0
) -> tuple[int, int]:
    """Write a PNG with one row per image: the image first, then its views.

    Args:
        resolved: the recipe, whose views component is built.
        data: the data set, whose first ``images`` training images are drawn.
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
    )
    part = resolved.part("views")
    views = part.factory(part.settings, plan)
    count = min(images, len(data.train))
    chosen = next(read_batches(data.train, [torch.arange(count)]))
    if chosen.ndim != 4:
        raise RequestError("Only views of images can be drawn, not views of signals.")
    batch = Batch(chosen, torch.arange(count))
    columns = [chosen.float() / 255]
    for number in range(draws):
        step = Step(number=number, total_steps=draws, seed=seed, component="views")
        crops = views.generate_views(batch=batch, step=step).crops
        columns += [_pictured(views, view, crop) for view, crop in enumerate(crops)]
    cells = torch.stack([_cell(column) for column in columns], dim=1).flatten(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as temporary:
            save_image(
                make_grid(cells, nrow=len(columns), padding=2, pad_value=1), temporary, "png"
            )
    except ValueError as error:
        raise CoviewError(f"{path} could not be written: {error}") from error
    return count, len(columns)


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


def _cell(images: Tensor) -> Tensor:
    """Convert images to cells of the picture: three channels, one size, in [0, 1]."""
    grey = (
        images if images.shape[1] == 3 else images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    )
    cells: Tensor = resize(grey, [CELL, CELL], antialias=True)
    return cells.clamp(0, 1)
