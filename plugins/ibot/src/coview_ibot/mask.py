"""Hide blocks of patches: a wrapper for any views component."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.data.transfer import sent
from coview.distributed import rank
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Batch, Step, Views
from coview.settings import ge, increasing, setting

MASK = "mask"
"""Name in ``Views.about``: which patches are hidden, (B, rows, columns) bool."""
TRIES = 10
"""Attempts at a block, of which one that fits is taken."""


class BlockMask(nn.Module):
    """Hide blocks of patches of the key views that are queries too (Zhou et al. 2022, section 3).

    Each image of each view draws one of the ratios, then a share within its spread, and blocks
    as in BEiT (Bao et al. 2022, algorithm 1) until that share is hidden. With the ratios 0 and
    0.3, about half of the images have nothing hidden. Crops stay as they are;
    :attr:`coview.Views.about` has the masks.
    """

    @attrs.frozen
    class Settings:
        """The values of the released code's ViT-S with multi-crop views."""

        ratio: tuple[float, ...] = setting(
            (0.0, 0.3), "shares of the patches that are hidden; each image draws one"
        )
        spread: tuple[float, ...] = setting(
            (0.0, 0.2), "greatest distance of the share from each ratio"
        )
        aspect: tuple[float, float] = setting(
            (0.3, 1 / 0.3), "least and greatest aspect ratio of a block", increasing(0.01, 100)
        )
        from_epoch: float = setting(0.0, "first epoch (from 0) in which patches are hidden", ge(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        layout, patch = plan.layout, getattr(plan.encoder, "patch", None)
        assert layout is not None  # views are built before wrappers
        if patch is None:
            raise RequestError(
                "Masks hide patches of a vision transformer, but this backbone has none: use "
                "--backbone vit_small_patch16_224."
            )
        if len(settings.ratio) != len(settings.spread) or not settings.ratio:
            raise RequestError(
                f"wrap 'block-mask' needs a spread for each ratio, not {len(settings.spread)} for "
                f"{len(settings.ratio)}."
            )
        for ratio, spread in zip(settings.ratio, settings.spread, strict=True):
            if not 0 <= ratio - spread <= ratio + spread <= 1:
                raise RequestError(
                    f"wrap 'block-mask' would hide shares from {ratio - spread} to "
                    f"{ratio + spread}, which must be between 0 and 1."
                )
        self._settings = settings
        self._grids = {
            view: (layout.sizes[view][0] // patch, layout.sizes[view][1] // patch)
            for view in layout.keys
            if view in layout.queries
        }

    @hookimpl(wrapper=True)
    def generate_views(self, batch: Batch, step: Step) -> Iterator[Any]:
        """Add the masks to what the views component made."""
        views: Views = yield
        masks = {view: self._masks(view, len(batch.indices), step) for view in self._grids}
        # Drawn on the host; copying to the device does not wait for it.
        masks = {v: sent(m, batch.images.device) for v, m in masks.items()}
        return attrs.evolve(views, about={**views.about, MASK: masks})  # type: ignore[return-value]

    def _masks(self, view: int, rows: int, step: Step) -> Tensor:
        """Return this process's masks, which depend on a row's place in the global batch."""
        grid, begun = self._grids[view], step.number
        if begun < self._settings.from_epoch * step.steps_per_epoch:
            return torch.zeros(rows, *grid, dtype=torch.bool)
        made = []
        for row in range(rank() * rows, (rank() + 1) * rows):
            draw = Random(step.seed_for(f"{step.component}/{view}/{row}"))
            share = draw.choice(
                [
                    draw.uniform(ratio - spread, ratio + spread)
                    for ratio, spread in zip(
                        self._settings.ratio, self._settings.spread, strict=True
                    )
                ]
            )
            made.append(blocks(*grid, share * grid[0] * grid[1], self._settings.aspect, draw))
        return torch.tensor(made)


def blocks(
    rows: int, columns: int, most: float, aspect: tuple[float, float], draw: Random
) -> list[list[bool]]:
    """Return a mask (rows, columns) of blocks that hides at most ``most`` patches.

    A block has an area from a ninth of the image (or what the mask still lacks) on, is smaller
    than the image in both directions, and hides something new. When ten attempts in a row do
    not fit, the mask is done, even if it hides fewer.
    """
    mask = [[False] * columns for _ in range(rows)]
    count = 0
    least = (min(rows, columns) // 3) ** 2
    while count < most:
        for _ in range(TRIES):
            area = draw.uniform(least, most - count)
            shape = math.exp(draw.uniform(math.log(aspect[0]), math.log(aspect[1])))
            high, wide = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if high >= rows or wide >= columns:
                continue
            top, left = draw.randint(0, rows - high), draw.randint(0, columns - wide)
            inside = [(r, c) for r in range(top, top + high) for c in range(left, left + wide)]
            new = [(r, c) for r, c in inside if not mask[r][c]]
            if 0 < len(new) <= most - count:
                for r, c in new:
                    mask[r][c] = True
                count += len(new)
                break
        else:
            break
    return mask
