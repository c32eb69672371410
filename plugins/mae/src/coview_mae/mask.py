"""Hide patches of views: a wrapper for any views component."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.distributed import rank, world_size
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Batch, Step, Views
from coview.settings import between, setting

VISIBLE, MASKED = "visible", "masked"
"""Names in ``Views.about``: numbers of patches in reading order, (B, n) int64, rising."""


class RandomMask(nn.Module):
    """Hide a random share of every query view's patches (He et al. 2022, section 3).

    Patches are drawn without replacement, as many of every image, so that an encoder can
    leave them out. Crops stay as they are; :attr:`coview.Views.about` says which patches are
    ``visible`` and which are ``masked``.
    """

    @attrs.frozen
    class Settings:
        """The paper's value."""

        ratio: float = setting(0.75, "share of the patches that are hidden", between(0, 1))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        patch: int | None = getattr(plan.encoder, "patch", None)
        if patch is None:
            raise RequestError(
                "Masks hide patches of a vision transformer, but this backbone has none: use "
                "--backbone mae-vit-base."
            )
        assert plan.layout is not None  # views are built before wrappers
        self._counts: dict[int, tuple[int, int]] = {}
        for view in plan.layout.queries:
            height, width = plan.layout.sizes[view]
            count = (height // patch) * (width // patch)
            visible = int(count * (1 - settings.ratio))
            if not 0 < visible < count:
                raise RequestError(
                    f"ratio = {settings.ratio} of wrap 'random-mask' leaves {visible} of the "
                    f"{count} patches of {patch} pixels: some must be visible and some hidden."
                )
            self._counts[view] = count, visible

    @hookimpl(wrapper=True)
    def generate_views(self, batch: Batch, step: Step) -> Iterator[Any]:
        """Add the patches' numbers to what the views component made."""
        views: Views = yield
        about: dict[str, dict[int, Tensor]] = {VISIBLE: {}, MASKED: {}}
        for view, (count, visible) in self._counts.items():
            order = _drawn(len(batch.indices), count, step)
            about[VISIBLE][view] = order[:, :visible].sort().values
            about[MASKED][view] = order[:, visible:].sort().values
        return attrs.evolve(views, about={**views.about, **about})  # type: ignore[return-value]


def _drawn(rows: int, count: int, step: Step) -> Tensor:
    """Return a random order of each row's patches; rows are those of this process."""
    generator = step.generator
    noise = torch.rand(rows * world_size(), count, generator=generator, device=generator.device)
    return noise[rank() * rows : (rank() + 1) * rows].argsort(dim=1)
