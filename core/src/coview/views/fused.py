"""The standard chain for several views at once, every parameter drawn on the device."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from coview.views import draws
from coview.views.draws import Drawn, Rows
from coview.views.kernels import EAGER, Kernels
from coview.views.operations import Crop, Description, Jitter, Standardize, is_idle, structure
from coview.views.pixels import Order, changed, finish, geometry
from coview.views.rows import Prepared, prepare, prepare_crop

CACHED_PIXELS = 2**18
"""Pixels of a view worked on at a time on a CPU: what they need stays in its cache."""


@attrs.frozen(eq=False)
class Parameters:
    """What was drawn for a batch.

    Attributes:
        drawn: of each operation, (V, B) each; see :func:`coview.views.draws.draw`.
        orders: of each jitter's four steps, by operation and view.
    """

    drawn: tuple[Drawn, ...]
    orders: dict[int, list[Order]]


class Fused:
    """A crop and a flip in one resampling, then colour, blur and standardisation.

    The flip is done with the crop wherever it stands: what follows a crop
    commutes with a mirror. On a CPU a few images at a time go through the whole
    chain; on other devices all rows of all views do.

    Args:
        views: for each view its operations, equal in all but what they draw: at
            most one crop, before all but a flip; at most one flip; a standardisation last.
        kernels: the pixel loops.
        dtype: of what comes out.
    """

    def __init__(
        self,
        views: Sequence[Sequence[Description]],
        kernels: Kernels = EAGER,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.views = tuple(tuple(view) for view in views)
        self.kernels = kernels
        self.dtype = dtype
        first = self.views[0]
        # By operation: the description of each view.
        self.columns = tuple(tuple(view[k] for view in self.views) for k in range(len(first)))
        self.used = tuple(not all(map(is_idle, column)) for column in self.columns)
        self.crop = next((op for op in first if isinstance(op, Crop)), None)

    @property
    def structure(self) -> tuple[object, ...]:
        """Equal where two can be made one by :meth:`joined`."""
        return (*map(structure, self.views[0]), self.kernels, self.dtype)

    @classmethod
    def joined(cls, parts: Sequence[Fused]) -> Fused:
        """Return all views of parts of equal structure as one."""
        views = [view for part in parts for view in part.views]
        return cls(views, parts[0].kernels, parts[0].dtype)

    def __call__(
        self, images: Tensor, generator: torch.Generator, seed: int, rank: int, world_size: int
    ) -> tuple[Tensor, ...]:
        """Make every view.

        Args:
            images: (B, C, H, W) uint8, or float in [0, 1].
            generator: on the images' device, in the same state on every process.
            seed: decides the orders of colour operations.
            rank: this process's place among ``world_size``.
            world_size: number of processes that share the global batch.

        Returns:
            One (B, C, h, w) a view.
        """
        rows = Rows(len(images), rank, world_size)
        return self.render(images, self.draw(rows, generator, seed, tuple(images.shape[-2:])))

    def draw(
        self, rows: Rows, generator: torch.Generator, seed: int, size: tuple[int, ...]
    ) -> Parameters:
        """Draw the parameters of every view for this process's rows.

        Args:
            rows: which images of the global batch.
            generator: gives all that is by image.
            seed: gives the orders that are by batch.
            size: height and width of the images.
        """
        counts = [draws.needs(c[0]) * u for c, u in zip(self.columns, self.used, strict=True)]
        uniform = rows.uniform(sum(counts), len(self.views), generator).split(counts)
        height, width = size
        drawn = tuple(
            draws.draw(column, numbers, (height, width)) if used else {}
            for column, numbers, used in zip(self.columns, uniform, self.used, strict=True)
        )
        orders = {
            k: draws.orders(column, seed + k)
            for k, column in enumerate(self.columns)
            if self.used[k] and isinstance(column[0], Jitter) and "position" not in drawn[k]
        }
        return Parameters(drawn, orders)

    def render(self, images: Tensor, parameters: Parameters) -> tuple[Tensor, ...]:
        """Make every view of images (B, C, H, W) with the given parameters."""
        count, channels, height, width = images.shape
        prepared = self._prepared(parameters, (height, width))
        size = (height, width) if self.crop is None else (self.crop.size, self.crop.size)
        views = range(len(self.views))
        shape = (len(views), count, channels, *size)
        out = torch.empty(shape, dtype=self.dtype, device=images.device)
        area, on_cpu = size[0] * size[1], images.device.type == "cpu"
        step = max(1, CACHED_PIXELS // area) if on_cpu else count
        together = not on_cpu or len(views) * count * area <= CACHED_PIXELS
        for start in range(0, count, step):
            own = slice(start, start + step)
            source = images[own]
            if not source.is_floating_point():
                source = source.float().mul_(1 / 255)
            for part in [views] if together else [range(v, v + 1) for v in views]:
                self._render(source, prepared, parameters, part, own, out, images)
        return out.unbind(0)

    def _render(
        self,
        source: Tensor,
        prepared: Sequence[Prepared],
        parameters: Parameters,
        views: range,
        own: slice,
        out: Tensor,
        images: Tensor,
    ) -> None:
        """Make some views of some images."""
        part, operations = slice(views.start, views.stop), self.views[0]
        chosen = [{n: v[part, own].flatten(0, 1) for n, v in one.items()} for one in prepared]
        orders = {k: every[part] for k, every in parameters.orders.items()}
        x = geometry(source, operations, chosen, len(views))
        x = changed(x, operations, chosen, orders, self.kernels)
        finish(x, operations[-1], not images.is_floating_point(), out[part, own])

    def _prepared(self, parameters: Parameters, size: tuple[int, int]) -> list[Prepared]:
        made: list[Prepared] = []
        for k, (column, used) in enumerate(zip(self.columns, self.used, strict=True)):
            if isinstance(column[0], Crop):
                made.append(prepare_crop(self.columns, k, parameters.drawn, size))
            elif used and not isinstance(column[0], Standardize):
                made.append(prepare(column, parameters.drawn[k]))
            else:
                made.append({})
        return made
