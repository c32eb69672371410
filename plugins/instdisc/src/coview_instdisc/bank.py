"""The memory bank: one row per training image, used as target and as negatives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.distributed import gather, rank, world_size
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import unit
from coview.plan import Plan
from coview.records import Batch, Encoded, Negatives, Step, Targets, Views
from coview.settings import between, ge, one_of, setting
from coview_instdisc.shares import Share, fresh, moved


class MemoryBank(nn.Module):
    """One embedding per image, updated when the image is visited (Wu et al. 2018, section 3.2).

    As target it gives an image's own row, as it was before this step. As negatives
    it gives ``draws`` uniform draws with replacement for every query (the paper's
    noise; a draw may hit the positive, as in the released code) or, with
    ``draws = 0``, every other row (the full softmax). With ``shared``, one set of
    draws serves all queries of the global batch: one matrix product, instead of
    fetching a row of the bank for each query and draw. This estimator differs from
    the paper's: it is unbiased too, but a draw affects all queries alike, so its
    noise does not average out over the batch.

    With ``per_view`` there is a bank for each view (CMC): a key is the image's row
    in the bank of the key's view, its negatives are rows of that bank (the same
    ones for every view), and each bank takes in the features of its view.

    A bank larger than ``shard_above`` is divided: each process keeps a block of its
    rows (:mod:`coview_instdisc.shares`), with the same results. A step then sends
    every requested row over the network, beside the features: (draws + key views)
    x d numbers per image of the global batch. A checkpoint gathers all rows on the
    first process's host, and can be loaded by any number of processes.

    Attributes:
        rows: (n, d), with ``per_view`` (views, n, d). They start uniform in
            (-s, s), s = 1 / sqrt(d / 3), so that their expected squared length is 1
            (released code); a visited row has unit length. In a divided bank, this
            process's block and a row of zeros.
        share: this process's share of a divided bank, else None.
        own_buffers: names of buffers that differ between processes, which
            DistributedDataParallel must leave alone.
    """

    by_view = True
    rows: Tensor

    @attrs.frozen
    class Settings:
        """The paper's values."""

        momentum: float = setting(
            0.5, "share of the old row that is kept when its image is visited", between(0, 1)
        )
        draws: int = setting(4096, "negatives drawn per query; 0: every other row", ge(0))
        shared: bool = setting(
            False,
            "use one set of draws for all queries: cheaper, but not the paper's estimator",
        )
        per_view: bool = setting(False, "keep a bank for each view instead of one for all")
        shard: str = setting(
            "auto",
            "divide the rows among processes: never, always, or auto (if above shard_above)",
            one_of("auto", "never", "always"),
        )
        shard_above: float = setting(4096.0, "largest bank in MiB that is not divided", ge(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.dataset_size < 1 or plan.dim < 1:
            raise RequestError("A memory bank needs a plan with dataset_size and dim.")
        self.settings = settings
        self.views = _views_with_banks(plan) if settings.per_view else ()
        banks = len(self.views) if settings.per_view else None
        self.share = _share(settings, plan, banks or 1)
        self.register_buffer("rows", fresh(banks, plan.dataset_size, plan.dim, self.share))
        self.own_buffers = () if self.share is None else ("rows",)
        self.images = plan.dataset_size

    def bank(self, view: int) -> Tensor:
        """Return the rows (n, d) of a view's features, without copying them."""
        return self.rows[self.views.index(view)] if self.settings.per_view else self.rows

    @hookimpl
    def encode_targets(self, views: Views, batch: Batch) -> Targets:
        """Return the images' rows for every key slot, (B, d), without gradient."""
        own = self._by_view(views.keys, batch.indices)
        return Targets(own, dict.fromkeys(views.keys, batch.indices))

    @hookimpl
    def draw_negatives(self, targets: Targets, batch: Batch, step: Step) -> Negatives:
        """Return a set per query (B, draws, d), or a shared one (draws, d), or all rows (n, d)."""
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

        With several query views and one bank, the feature is their mean direction.
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
        if self.share is None:
            rows.index_copy_(0, indices, moved(rows[indices], features, keep))
        else:
            self.share.move(rows, indices, features, keep)

    def _by_view(self, views: Iterable[int], numbers: Tensor) -> dict[int, Tensor]:
        """Return each view's rows at these numbers; read only once if all views share a bank."""
        if not self.settings.per_view:
            return dict.fromkeys(views, self._read(self.rows, numbers))
        return {view: self._read(self.bank(view), numbers) for view in views}

    def _read(self, rows: Tensor, numbers: Tensor) -> Tensor:
        if self.share is not None:
            return self.share.read(rows, numbers)
        # For whole rows, index_select takes half the time of indexing.
        return rows.index_select(0, numbers.flatten()).view(*numbers.shape, -1)

    def _draw(self, queries: int, step: Step) -> Tensor:
        """Draw row numbers for the global batch; return this process's, (B, draws).

        Shared draws, (draws,), are the same on every process.
        """
        sets = () if self.settings.shared else (queries * world_size(),)
        drawn = torch.randint(
            self.images,
            (*sets, self.settings.draws),
            generator=step.generator,
            device=self.rows.device,
        )
        return drawn[rank() * queries : (rank() + 1) * queries] if sets else drawn

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.share is not None:
            destination[f"{prefix}rows"] = self.share.whole(self.rows)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **named: Any
    ) -> None:
        rows = state_dict.get(f"{prefix}rows")
        if self.share is not None and rows is not None and rows.shape[-2] == self.images:
            state_dict = {**state_dict, f"{prefix}rows": self.share.part_of(rows)}
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)


def _share(settings: MemoryBank.Settings, plan: Plan, banks: int) -> Share | None:
    """Return this process's share, or None if each process keeps all rows."""
    if world_size() == 1 or settings.shard == "never":
        return None
    size = banks * plan.dataset_size * plan.dim * 4 / 2**20
    if settings.shard == "auto" and size <= settings.shard_above:
        return None
    if settings.draws == 0:
        raise RequestError(
            f"A memory bank of {size:.0f} MiB that is divided among processes cannot use every "
            "row as a negative: set target.draws to a number of draws, or target.shard = never "
            "to keep the bank whole."
        )
    return Share(plan.dataset_size)


def _views_with_banks(plan: Plan) -> tuple[int, ...]:
    if plan.layout is None:
        raise RequestError("A memory bank for each view needs a plan with the views' layout.")
    if not set(plan.layout.keys) <= set(plan.layout.queries):
        raise RequestError(
            "target 'memory-bank' with per_view = true fills the bank of each key view with the "
            f"online network's features, so every key view must also be a query; but the queries "
            f"are views {list(plan.layout.queries)} and the keys {list(plan.layout.keys)}."
        )
    return plan.layout.keys
