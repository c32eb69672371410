"""The standard chain for several views at once, every parameter drawn on the device."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from coview.views import draws
from coview.views.blur import taps_of
from coview.views.draws import Drawn, Rows
from coview.views.kernels import EAGER, Kernels
from coview.views.operations import (
    NEUTRAL,
    Blur,
    Crop,
    Description,
    Flip,
    Grey,
    Jitter,
    Solarize,
    Standardize,
    is_idle,
    reach,
    structure,
)
from coview.views.resample import resample

CACHED_PIXELS = 2**18
"""Pixels of a view worked on at a time on a CPU: what they need stays in its cache."""

Chosen = tuple[Drawn, ...]


@attrs.frozen(eq=False)
class Parameters:
    """What was drawn for a batch.

    Attributes:
        drawn: of each operation, (V, B) each; see :func:`coview.views.draws.draw`.
        orders: of each jitter's four steps, by operation and view.
    """

    drawn: Chosen
    orders: dict[int, list[tuple[int, ...]]]


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
        count, channels, *size = images.shape
        if self.crop is not None:
            size = [self.crop.size] * 2
        shape = (len(self.views), count, channels, *size)
        out = torch.empty(shape, dtype=self.dtype, device=images.device)
        on_cpu = images.device.type == "cpu"
        step = max(1, CACHED_PIXELS // (size[0] * size[1])) if on_cpu else count
        everyone = range(len(self.views))
        for start in range(0, count, step):
            own = slice(start, start + step)
            source = images[own]
            in_range = not source.is_floating_point()
            scaled = source.float().mul_(1 / 255) if in_range else source
            together = (
                not on_cpu or len(everyone) * len(source) * size[0] * size[1] <= CACHED_PIXELS
            )
            for views in [everyone] if together else [range(v, v + 1) for v in everyone]:
                parts = out[views.start : views.stop, own]
                self._render(scaled, in_range, parameters, views, own, parts)
        return out.unbind(0)

    def _render(
        self,
        source: Tensor,
        in_range: bool,
        parameters: Parameters,
        views: range,
        own: slice,
        out: Tensor,
    ) -> None:
        """Make some views of some images (n, C, H, W) float, and put them into ``out``."""
        chosen = tuple(
            {
                name: value[..., views.start : views.stop, own].flatten(-2)
                for name, value in drawn.items()
            }
            for drawn in parameters.drawn
        )
        x = self._geometry(source, chosen, len(views)).contiguous()
        for k, column in enumerate(self.columns):
            if self.used[k] and not isinstance(column[0], (Crop, Flip, Standardize)):
                orders = parameters.orders.get(k, [])[views.start : views.stop]
                x = self._changed(x, column, chosen[k], orders)
        self._finish(x.view(len(views), -1, *x.shape[1:]), in_range, out)

    def _geometry(self, source: Tensor, chosen: Chosen, views: int) -> Tensor:
        """Crop and flip: (n, C, H, W) to (views x n, C, h, w), which may be written to."""
        kinds = [type(column[0]) for column in self.columns]
        flips = Flip in kinds and self.used[kinds.index(Flip)]
        flipped = chosen[kinds.index(Flip)]["on"] if flips else None
        if self.crop is None:
            # Other views, or the caller, need the source as it is.
            many = source.repeat(views, 1, 1, 1)
            if flipped is None:
                return many
            return torch.where(flipped[:, None, None, None], many.flip(-1), many)
        at = kinds.index(Crop)
        box = dict(chosen[at])
        if flipped is not None and kinds.index(Flip) < at:
            # The crop is of the mirrored image: of the other side of this one, then mirrored.
            mirrored = source.shape[-1] - box["left"] - box["width"]
            box["left"] = torch.where(flipped, mirrored, box["left"])
        made = []
        for v in range(views):
            part = slice(v * len(source), (v + 1) * len(source))
            own = {name: value[part] for name, value in box.items()}
            mirror = None if flipped is None else flipped[part]
            made.append(resample(source, self.crop, own, mirror))
        x = made[0] if views == 1 else torch.cat(made)
        # Bicubic overshoots; what comes after works on [0, 1], as on 8 bits.
        return x.clamp_(0, 1) if self.crop.interpolation == "bicubic" else x

    def _changed(
        self, x: Tensor, column: Sequence[Description], drawn: Drawn, orders: list[tuple[int, ...]]
    ) -> Tensor:
        """Apply one operation to x (n, C, h, w)."""
        operation, on = column[0], drawn["on"]
        flat = x.flatten(2)
        if isinstance(operation, Blur):
            widest = max(reach(blur) for blur in column if isinstance(blur, Blur))
            x = self.kernels.blur(x, taps_of(drawn["sigma"], on, widest))
        elif isinstance(operation, Grey):
            keep = (~on).to(x.dtype)[:, None, None]
            self.kernels.desaturate_(flat, keep, operation.luma)
        elif isinstance(operation, Solarize):
            self.kernels.solarize_(flat, on[:, None, None])
        elif isinstance(operation, Jitter):
            self._jitter(flat, operation, drawn, orders)
        return x

    def _jitter(
        self, x: Tensor, jitter: Jitter, drawn: Drawn, orders: list[tuple[int, ...]]
    ) -> None:
        chosen = [torch.where(drawn["on"], drawn["factors"][k], n) for k, n in enumerate(NEUTRAL)]
        factors = torch.stack(chosen)[:, :, None, None]
        if "position" in drawn:
            position = drawn["position"][:, :, None, None]
            self.kernels.jitter_each_(x, factors, position, jitter.luma)
            return
        rows = len(x) // len(orders)
        kernels, coloured = self.kernels, x.shape[1] == 3
        for view, order in enumerate(orders):
            own = slice(view * rows, (view + 1) * rows)
            part, factor = x[own], factors[:, own]
            for step in order:
                if step == 0:
                    kernels.brighten_(part, factor[0])
                elif step == 1:
                    kernels.contrast_(part, factor[1], jitter.luma)
                elif step == 2 and coloured:
                    kernels.saturate_(part, factor[2], jitter.luma)
                elif step == 3 and coloured:
                    kernels.rotate_hue_(part, factor[3])

    def _finish(self, x: Tensor, in_range: bool, out: Tensor) -> None:
        """Put x (V, n, C, h, w) into ``out``, standardised where that is the last operation."""
        last = self.columns[-1][0]
        if not isinstance(last, Standardize):
            out.copy_(x)
            return
        if last.clamp and not in_range:
            x = x.clamp_(0, 1)
        if all(m == 0 for m in last.mean) and all(s == 1 for s in last.std):
            out.copy_(x)
            return
        shift, scale = affine(last, x.device)
        torch.addcmul(shift, x, scale, out=out)


@functools.lru_cache(maxsize=64)
def affine(to: Standardize, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return shift and scale, (C, 1, 1) each, copied to a device once."""
    shift = [-mean / std for mean, std in zip(to.mean, to.std, strict=True)]
    scale = [1 / std for std in to.std]
    both = torch.tensor([shift, scale], device=device)[:, :, None, None]
    return both[0], both[1]
