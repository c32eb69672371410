"""The standard chain for several views at once, with every parameter drawn on the device."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from coview.nn.compile import compilable, compiled, compiling_views
from coview.views import noted
from coview.views.allocator import keep_freed_memory
from coview.views.backends.fused import parameters as draws
from coview.views.backends.fused.parameters import (
    Aim,
    Drawn,
    Prepared,
    Rows,
    Size,
    prepare,
    prepare_crop,
)
from coview.views.backends.fused.render import Order, changed, finish, geometry
from coview.views.backends.fused.resample import aims
from coview.views.backends.fused.whole import Whole
from coview.views.operations import Crop, Description, Jitter, is_idle, structure

CACHED_PIXELS = 2**18
"""Pixels of a view processed at a time on a CPU, few enough to stay in its cache."""


Columns = Sequence[Sequence[Description]]


@attrs.frozen(eq=False)
class Parameters:
    """The parameters drawn for a batch.

    Attributes:
        drawn: parameters of each operation, (V, B) each; see :func:`.parameters.draw`.
        orders: order of each jitter's four steps, by operation and view.
    """

    drawn: tuple[Drawn, ...]
    orders: dict[int, list[Order]]


class Fused:
    """A crop and a flip in one resampling, then colour, blur and standardisation.

    The flip is done with the crop wherever it stands in the order, because what
    follows a crop commutes with mirroring. On a CPU a few images at a time go
    through the whole chain; on other devices all rows of all views do.

    Args:
        views: the operations of each view, which may differ only in what they draw:
            at most one crop, before all but a flip; at most one flip; any
            standardisation last.
        compile: whether to compile the drawing and the loops over pixels; None: if
            the run compiles.
        dtype: number type of the views.

    A class derived from it draws the same numbers and paints the pixels in its own way, for
    a :class:`FusedBackend` whose ``kind`` it is.
    """

    @staticmethod
    def aim(crop: Crop, box: Drawn, flipped: Tensor | None, size: tuple[int, int]) -> Prepared:
        """Return what :meth:`paint` needs to know of crops (V, B) of images of one size."""
        return aims(crop, box, flipped, size)

    def __init__(
        self,
        views: Sequence[Sequence[Description]],
        compile: bool | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.views = tuple(tuple(view) for view in views)
        self.compile = compile
        self.dtype = dtype
        first = self.views[0]
        # For each operation, its description for each view.
        self.columns = tuple(tuple(view[k] for view in self.views) for k in range(len(first)))
        # How many uniform numbers each operation needs per row; 0 if it never changes anything.
        self.numbers = tuple(
            0 if all(map(is_idle, column)) else draws.needs(column[0]) for column in self.columns
        )
        self.crop = next((op for op in first if isinstance(op, Crop)), None)

    @property
    def structure(self) -> tuple[object, ...]:
        """Equal for two that :meth:`joined` can combine."""
        return (type(self), *map(structure, self.views[0]), self.compile, self.dtype)

    @classmethod
    def joined(cls, parts: Sequence[Fused]) -> Fused:
        """Return parts of equal structure as one that makes all their views."""
        views = [view for part in parts for view in part.views]
        return cls(views, parts[0].compile, parts[0].dtype)

    def __call__(
        self,
        images: Tensor | Whole,
        generator: torch.Generator,
        seed: int,
        rank: int,
        world_size: int,
    ) -> tuple[Tensor, ...]:
        """Make every view.

        Args:
            images: (B, C, H, W) uint8, or float in [0, 1]; or images at their own sizes,
                from which a crop is cut.
            generator: on the images' device, in the same state on every process.
            seed: determines the orders of colour operations.
            rank: number of this process.
            world_size: number of processes that share the global batch.

        Returns:
            One (B, C, h, w) tensor per view.
        """
        rows = Rows(len(images), rank, world_size)
        uniform = rows.uniform(sum(self.numbers), len(self.views), generator)
        if noted.wanted():
            self._note(images, uniform, seed)
        with compiled(compiling_views() if self.compile is None else self.compile):
            if isinstance(images, Whole):
                sizes = images.sizes(uniform.device)
                drawn = drawn_from(self.columns, self.numbers, uniform, sizes)
                prepared = prepared_for(self.columns, drawn, sizes, self.aim)
            else:
                size = (images.shape[-2], images.shape[-1])
                prepared = prepared_from(self.columns, self.numbers, uniform, size, self.aim)
            return self.paint(images, prepared, self._orders(seed))

    def draw(
        self, rows: Rows, generator: torch.Generator, seed: int, size: tuple[int, ...]
    ) -> Parameters:
        """Draw the parameters of every view for this process's rows.

        Args:
            rows: this process's rows of the global batch.
            generator: draws the parameters of each image.
            seed: determines the orders of a whole batch.
            size: height and width of the images.
        """
        uniform = rows.uniform(sum(self.numbers), len(self.views), generator)
        height, width = size
        drawn = drawn_from(self.columns, self.numbers, uniform, (height, width))
        return Parameters(drawn, self._orders(seed))

    def render(self, images: Tensor, parameters: Parameters) -> tuple[Tensor, ...]:
        """Make every view of images (B, C, H, W) with the given parameters."""
        size = (images.shape[-2], images.shape[-1])
        with compiled(compiling_views() if self.compile is None else self.compile):
            prepared = prepared_for(self.columns, parameters.drawn, size, self.aim)
            return self.paint(images, prepared, parameters.orders)

    def _note(self, images: Tensor | Whole, uniform: Tensor, seed: int) -> None:
        """Keep what these numbers mean, for someone who looks at the views."""
        if isinstance(images, Whole):
            size: Size = images.sizes(uniform.device)
        else:
            size = images.shape[-2], images.shape[-1]
        drawn = drawn_from(self.columns, self.numbers, uniform, size)
        noted.keep(noted.Note(self.columns, drawn, self._orders(seed), size[1]))

    def _orders(self, seed: int) -> dict[int, list[Order]]:
        """Return the orders of a batch, drawn on the host."""
        return {
            k: draws.orders(column, seed + k)
            for k, column in enumerate(self.columns)
            if self.numbers[k] and isinstance(column[0], Jitter) and not column[0].by_sample
        }

    def paint(
        self, images: Tensor | Whole, prepared: Sequence[Prepared], orders: dict[int, list[Order]]
    ) -> tuple[Tensor, ...]:
        """Make every view of images from the parameters of every row.

        Args:
            images: see :meth:`__call__`.
            prepared: for each operation its parameters (V, B, ...); see
                :func:`.parameters.prepare` and :func:`.parameters.prepare_crop`.
            orders: by operation, each view's order of a jitter's steps.
        """
        count, pixels = len(images), images.pixels if isinstance(images, Whole) else images
        height, width = pixels.shape[-2:]
        size = (height, width) if self.crop is None else (self.crop.size, self.crop.size)
        views = range(len(self.views))
        shape = (len(views), count, pixels.shape[1], *size)
        area, on_cpu = size[0] * size[1], pixels.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        out = torch.empty(shape, dtype=self.dtype, device=pixels.device)
        most = images.at_a_time() if isinstance(images, Whole) else count
        step = max(1, CACHED_PIXELS // area) if on_cpu else most
        together = not on_cpu or len(views) * count * area <= CACHED_PIXELS
        in_range = not pixels.is_floating_point()
        for start in range(0, count, step):
            own = slice(start, start + step)
            source = images[own]
            if in_range and isinstance(source, Tensor):
                source = source.float().mul_(1 / 255)
            for part in [views] if together else [range(v, v + 1) for v in views]:
                self._some(source, in_range, prepared, orders, part, own, out)
        return out.unbind(0)

    def _some(
        self,
        source: Tensor | Whole,
        in_range: bool,
        prepared: Sequence[Prepared],
        orders: dict[int, list[Order]],
        views: range,
        own: slice,
        out: Tensor,
    ) -> None:
        """Make some views of some images."""
        part, operations = slice(views.start, views.stop), self.views[0]
        chosen = [{n: v[part, own].flatten(0, 1) for n, v in one.items()} for one in prepared]
        theirs = {k: every[part] for k, every in orders.items()}
        x = geometry(source, operations, chosen, len(views))
        x = changed(x, operations, chosen, theirs)
        finish(x, operations[-1], in_range, out[part, own])


def drawn_from(
    columns: Columns, numbers: Sequence[int], uniform: Tensor, size: Size
) -> tuple[Drawn, ...]:
    """Return what is drawn for each operation; empty for those not used.

    Args:
        columns: for each operation, its description for each view.
        numbers: how many uniform numbers each operation needs.
        uniform: (sum of numbers, V, B) in [0, 1).
        size: height and width of the images, or of each.
    """
    parts = uniform.split(list(numbers))
    return tuple(
        draws.draw(column, own, size) if count else {}
        for column, own, count in zip(columns, parts, numbers, strict=True)
    )


def prepared_for(columns: Columns, drawn: Sequence[Drawn], size: Size, aim: Aim) -> list[Prepared]:
    """Return the parameters for the loops over pixels, from what was drawn."""
    return [
        prepare_crop(columns, k, drawn, size, aim)
        if isinstance(column[0], Crop)
        else prepare(column, own)
        for k, (column, own) in enumerate(zip(columns, drawn, strict=True))
    ]


@compilable()
def prepared_from(
    columns: Columns, numbers: Sequence[int], uniform: Tensor, size: tuple[int, int], aim: Aim
) -> list[Prepared]:
    """Return the parameters for the loops over pixels, from uniform numbers, as one graph."""
    return prepared_for(columns, drawn_from(columns, numbers, uniform, size), size, aim)
