"""The memory bank: a row for every training image, target and source of negatives."""

from __future__ import annotations

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

    Attributes:
        rows: (n, d). They start uniform in (-s, s), s = 1 / sqrt(d / 3), so
            that their expected squared length is 1 (released code); a visited
            row has unit length.
    """

    rows: Tensor

    @attrs.frozen
    class Settings:
        """The paper's values."""

        momentum: float = setting(
            0.5, "share of the old row that is kept when its image is visited", between(0, 1)
        )
        draws: int = setting(4096, "negatives drawn for a query; 0: every other row", ge(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.dataset_size < 1 or plan.dim < 1:
            raise RequestError("A memory bank needs a plan with dataset_size and dim.")
        self.settings = settings
        bound = (3 / plan.dim) ** 0.5
        self.register_buffer(
            "rows", torch.empty(plan.dataset_size, plan.dim).uniform_(-bound, bound)
        )

    @hookimpl
    def encode_targets(self, views: Views, batch: Batch) -> Targets:
        """Return the images' rows for every key slot, (B, d), without gradient."""
        own = self.rows[batch.indices]
        return Targets(dict.fromkeys(views.keys, own), dict.fromkeys(views.keys, batch.indices))

    @hookimpl
    def draw_negatives(self, targets: Targets, batch: Batch, step: Step) -> Negatives:
        """Return (B, draws, d), a set for each query, or all rows (n, d) and who they are."""
        if self.settings.draws == 0:
            everyone = torch.arange(len(self.rows), device=self.rows.device)
            return Negatives(
                dict.fromkeys(targets.keys, self.rows), dict.fromkeys(targets.keys, everyone)
            )
        drawn = self.rows[self._draw(len(batch.indices), step)]
        return Negatives(dict.fromkeys(targets.keys, drawn), dict.fromkeys(targets.keys))

    @hookimpl
    def update_target(self, encoded: Encoded, batch: Batch) -> None:
        """Move the visited rows: row <- unit(momentum row + (1 - momentum) feature).

        With several query views the feature is their mean direction.
        """
        directions = [unit(rows) for rows in encoded.projections.values()]
        features = gather(unit(torch.stack(directions).mean(dim=0)))
        indices = gather(batch.indices)
        keep = self.settings.momentum
        moved = unit(keep * self.rows[indices] + (1 - keep) * features.to(self.rows.dtype))
        self.rows.index_copy_(0, indices, moved)

    def _draw(self, queries: int, step: Step) -> Tensor:
        """Draw for the global batch, take this process's part: (B, draws) row numbers."""
        drawn = torch.randint(
            len(self.rows),
            (queries * world_size(), self.settings.draws),
            generator=step.generator,
            device=self.rows.device,
        )
        return drawn[rank() * queries : (rank() + 1) * queries]
