"""The memory bank: a row for every training image, target and source of negatives."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import torch
from torch import Tensor, nn

from coview.comparison import unit
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Batch, Encoded, Negatives, Step, Targets, Views
from coview.settings import between, ge, setting
from coview.training.distributed import gather, rank, world_size


class MemoryBank(nn.Module):
    """One embedding an image, moved when the image is visited (Wu et al. 2018, section 3.2).

    As target it gives an image's own row, as it was before this step. As
    source of negatives it gives ``draws`` uniform draws with replacement for
    every query (the paper's noise; a draw may hit the positive, as in the
    released code), or, with ``draws = 0``, every other row (the full softmax).

    With ``per_view`` there is a bank for each view (CMC): a key is the image's
    row in the bank of the key's view, its negatives are rows of that bank, the
    same ones for every view, and a view's bank takes in that view's features.

    Attributes:
        rows: (n, d), with ``per_view`` (views, n, d). They start uniform in
            (-s, s), s = 1 / sqrt(d / 3), so that their expected squared length is 1
            (released code); a visited row has unit length.
    """

    rows: Tensor

    @attrs.frozen
    class Settings:
        """The paper's values."""

        momentum: float = setting(
            0.5, "share of the old row that is kept when its image is visited", between(0, 1)
        )
        draws: int = setting(4096, "negatives drawn for a query; 0: every other row", ge(0))
        per_view: bool = setting(False, "a bank for each view instead of one for all")

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.dataset_size < 1 or plan.dim < 1:
            raise RequestError("A memory bank needs a plan with dataset_size and dim.")
        self.settings = settings
        self.views = _views_with_banks(plan) if settings.per_view else ()
        shape = (plan.dataset_size, plan.dim)
        bound = (3 / plan.dim) ** 0.5
        rows = torch.empty(len(self.views), *shape) if settings.per_view else torch.empty(shape)
        self.register_buffer("rows", rows.uniform_(-bound, bound))

    def bank(self, view: int) -> Tensor:
        """Return the rows (n, d) that hold a view's features, not copied."""
        return self.rows[self.views.index(view)] if self.settings.per_view else self.rows

    @hookimpl
    def encode_targets(self, views: Views, batch: Batch) -> Targets:
        """Return the images' rows for every key slot, (B, d), without gradient."""
        own = self._by_view(views.keys, batch.indices)
        return Targets(own, dict.fromkeys(views.keys, batch.indices))

    @hookimpl
    def draw_negatives(self, targets: Targets, batch: Batch, step: Step) -> Negatives:
        """Return (B, draws, d), a set for each query, or all rows (n, d) and who they are."""
        if self.settings.draws == 0:
            everyone = torch.arange(self.rows.shape[-2], device=self.rows.device)
            return Negatives(
                {view: self.bank(view) for view in targets.keys},
                dict.fromkeys(targets.keys, everyone),
            )
        drawn = self._by_view(targets.keys, self._draw(len(batch.indices), step))
        return Negatives(drawn, dict.fromkeys(targets.keys))

    @hookimpl
    def update_target(self, encoded: Encoded, batch: Batch) -> None:
        """Move the visited rows: row <- unit(momentum row + (1 - momentum) feature).

        With several query views and one bank the feature is their mean direction.
        """
        indices = gather(batch.indices)
        directions = {view: unit(rows) for view, rows in encoded.projections.items()}
        if self.settings.per_view:
            for view in self.views:
                self._move(self.bank(view), indices, gather(directions[view]))
        else:
            mean = torch.stack(list(directions.values())).mean(dim=0)
            self._move(self.rows, indices, gather(unit(mean)))

    def _move(self, rows: Tensor, indices: Tensor, features: Tensor) -> None:
        keep = self.settings.momentum
        moved = unit(keep * rows[indices] + (1 - keep) * features.to(rows.dtype))
        rows.index_copy_(0, indices, moved)

    def _by_view(self, views: Iterable[int], numbers: Tensor) -> dict[int, Tensor]:
        """Return each view's rows at these numbers; taken once where all share a bank."""
        if not self.settings.per_view:
            return dict.fromkeys(views, self.rows[numbers])
        return {view: self.bank(view)[numbers] for view in views}

    def _draw(self, queries: int, step: Step) -> Tensor:
        """Draw for the global batch, take this process's part: (B, draws) row numbers."""
        drawn = torch.randint(
            self.rows.shape[-2],
            (queries * world_size(), self.settings.draws),
            generator=step.generator,
            device=self.rows.device,
        )
        return drawn[rank() * queries : (rank() + 1) * queries]


def _views_with_banks(plan: Plan) -> tuple[int, ...]:
    if plan.layout is None:
        raise RequestError("A memory bank for each view needs a plan with the views' layout.")
    if not set(plan.layout.keys) <= set(plan.layout.queries):
        raise RequestError(
            "target 'memory-bank' with per_view = true fills the bank of each key view with what "
            f"the online network makes of it, but the views encode only "
            f"{list(plan.layout.queries)} as queries and have {list(plan.layout.keys)} as keys."
        )
    return plan.layout.keys
