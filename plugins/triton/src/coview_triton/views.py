"""The fused chain, painted by kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import attrs
import torch
import triton
from torch import Tensor

from coview.nn.constants import constant
from coview.views.backends.fused.parameters import Drawn, Prepared, boxed
from coview.views.backends.fused.plan import Fused
from coview.views.backends.fused.render import Order
from coview.views.backends.fused.whole import Whole
from coview.views.operations import Blur, Crop, Flip, Grey, Jitter, Solarize, Standardize
from coview_triton.passes import BOX, Reading, blurred, painted
from coview_triton.reading import CROPPED, CROPPED_BICUBIC
from coview_triton.resizing import resized

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether kernels run in Triton's interpreter, which takes tensors on the CPU."""

COLOURS = (Jitter, Grey, Solarize, Standardize)
"""What one pass can do to the pixels that it has read, in this order."""


@attrs.define
class Stage:
    """One pass over the pixels: how they are read, and what is done to them.

    Attributes:
        blur: number of the blur, among the operations, that it reads through; None: it
            reads the images (the first stage), or what the stage before has painted.
        colours: number of each colour operation, by its type.
    """

    blur: int | None = None
    colours: dict[type, int] = attrs.Factory(dict)


def stages(operations: Sequence[Any], used: Sequence[bool]) -> list[Stage]:
    """Return the passes that do the operations, as few as their order allows."""
    made = [Stage()]
    for k, operation in enumerate(operations):
        kind = type(operation)
        if not used[k] or kind in (Crop, Flip):
            continue
        if kind is Blur:
            made.append(Stage(blur=k))
            continue
        if any(COLOURS.index(one) >= COLOURS.index(kind) for one in made[-1].colours):
            made.append(Stage())
        made[-1].colours[kind] = k
    return made


class Painted(Fused):
    """The fused chain, painted by Triton's kernels on a GPU; elsewhere as it is.

    Images of one or three channels; others, and whole images whose crops are not
    antialiased, are painted as the fused chain does.
    """

    @staticmethod
    def aim(crop: Crop, box: Drawn, flipped: Tensor | None, size: tuple[int, int]) -> Prepared:
        """Return the boxes and flips themselves: by them the kernels cut."""
        return boxed(crop, box, flipped, size)

    def paint(
        self,
        images: Tensor | Whole,
        prepared: Sequence[Prepared],
        orders: dict[int, list[Order]],
    ) -> tuple[Tensor, ...]:
        """Make every view, as :meth:`coview.views.backends.fused.plan.Fused.paint` does."""
        pixels = images.pixels if isinstance(images, Whole) else images
        if not self._able(images):
            return super().paint(images, self._aimed(images, prepared), orders)
        count, channels, views = len(images), pixels.shape[1], len(self.views)
        height, width = pixels.shape[-2:]
        size = (height, width) if self.crop is None else (self.crop.size, self.crop.size)
        most = images.at_a_time() if isinstance(images, Whole) else count
        parts = []
        with torch.cuda.device(pixels.device) if pixels.is_cuda else nullcontext():
            for start in range(0, count, most):
                own = slice(start, start + most)
                chosen = [{n: v[:, own] for n, v in one.items()} for one in prepared]
                made = self._through(images[own], chosen, orders, size)
                parts.append(made.view(views, -1, channels, *size))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).unbind(0)

    def _able(self, images: Tensor | Whole) -> bool:
        pixels = images.pixels if isinstance(images, Whole) else images
        if not (pixels.is_cuda or INTERPRETED) or pixels.shape[1] not in (1, 3):
            return False
        return isinstance(images, Tensor) or (self.crop is not None and self.crop.antialias)

    def _aimed(self, images: Tensor | Whole, prepared: Sequence[Prepared]) -> list[Prepared]:
        """Return the parameters as the fused chain needs them."""
        made = []
        for column, own in zip(self.columns, prepared, strict=True):
            box = dict(own)
            if isinstance(column[0], Crop) and isinstance(images, Tensor):
                size = (images.shape[-2], images.shape[-1])
                box = Fused.aim(column[0], box, box.pop("flipped", None), size)
            made.append(box)
        return made

    def _through(
        self,
        images: Tensor | Whole,
        chosen: Sequence[Prepared],
        orders: dict[int, list[Order]],
        size: tuple[int, int],
    ) -> Tensor:
        """Return all views of some images, (V x n, C, h, w)."""
        operations = self.views[0]
        used = [bool(own) or isinstance(operations[k], Standardize) for k, own in enumerate(chosen)]
        reading = self._reading(images, self._box(images, chosen))
        clamp = isinstance(images, Tensor) and images.is_floating_point()
        plan = stages(operations, used)
        for stage in plan:
            if stage.blur is not None:
                pillow = getattr(operations[stage.blur], "kind", "") == "pillow"
                reading = blurred(reading, chosen[stage.blur]["taps"].flatten(0, 1), pillow)
            colours = {
                kind: (operations[k], chosen[k], orders.get(k)) for kind, k in stage.colours.items()
            }
            dtype = self.dtype if stage is plan[-1] else torch.float32
            reading = painted(reading, colours, size, clamp, dtype)
        return reading.source

    def _box(self, images: Tensor | Whole, chosen: Sequence[Prepared]) -> dict[str, Tensor]:
        """Return each row's crop and whether it is flipped; without a crop, all of the image."""
        shape = (len(self.views), len(images))
        device = images.pixels.device if isinstance(images, Whole) else images.device
        by_kind = {type(op): own for op, own in zip(self.views[0], chosen, strict=True)}
        if self.crop is not None:
            box = dict(by_kind[Crop])
        else:
            assert isinstance(images, Tensor)
            ends = (0.0, 0.0, float(images.shape[-2]), float(images.shape[-1]))
            box = {name: constant((end,), device) for name, end in zip(BOX, ends, strict=False)}
            if by_kind.get(Flip):
                box["flipped"] = by_kind[Flip]["on"]
        box.setdefault("flipped", constant((0.0,), device))
        return {name: value.float().expand(shape) for name, value in box.items()}

    def _reading(self, images: Tensor | Whole, box: dict[str, Tensor]) -> Reading:
        """Return how the first pass reads the images."""
        if self.crop is not None and self.crop.antialias:
            return Reading(resized(images, self.crop, box), box)
        assert isinstance(images, Tensor)
        bicubic = self.crop is not None and self.crop.interpolation == "bicubic"
        how = CROPPED_BICUBIC if bicubic else CROPPED
        corners = self.crop is not None and self.crop.align_corners
        return Reading(images.contiguous(), box, how.value, corners)
