"""The queue of past keys."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor, nn

from coview.distributed import gather
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import unit
from coview.plan import Plan
from coview.records import Negatives, Step, Targets
from coview.settings import ge, gt, setting


class Queue(nn.Module):
    """First in, first out: the keys of past steps (He et al. 2020, section 3.1).

    Keys are kept as unit vectors; the queue starts with random ones (released
    code). It is read before it takes in a step's keys, so that a positive is
    never its own negative. It is shared by all key views, a step enqueueing
    the keys of all of them, or each view has one of its own (``per_view``).
    The oldest leave first, wrapping at any batch size.

    SwAV's support queue (Caron et al. 2020, section 4.1) is this one, with a
    queue a view, begun at a later epoch, and given to the loss only once every
    row is a real key (``once_full``); until then the loss gets no part from it.

    A queue holds no more than the data set less one batch (size is reduced,
    and said so): beyond that it would hold the query's own image again.

    Attributes:
        rows: (K, d) unit vectors; (views, K, d) with ``per_view``.
        pointer: 0-dim int64, the row that is written next.
    """

    rows: Tensor
    pointer: Tensor

    @attrs.frozen
    class Settings:
        """The paper's value."""

        size: int = setting(65536, "keys kept; with per_view, of each key view", gt(0))
        dim: int | None = setting(None, "width of a key; none: the encoder's", gt(0))
        per_view: bool = setting(False, "whether each key view has a queue of its own")
        from_epoch: float = setting(0.0, "the epoch (from 0) that keys are taken in from", ge(0))
        once_full: bool = setting(
            False, "give nothing until all rows are keys; else the first ones are random"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        dim = settings.dim or plan.dim
        if plan.dim and dim != plan.dim:
            raise RequestError(
                f"negatives 'queue' keeps vectors of width {dim}, but the encoder gives "
                f"{plan.dim}: leave negatives.dim out, or set encoder.dim = {dim}."
            )
        if dim < 1:
            raise RequestError("A queue needs a plan with dim, the width of a key.")
        if settings.per_view and plan.layout is None:
            raise RequestError("A queue for each view needs a plan with the views' layout.")
        self.views = plan.layout.keys if settings.per_view and plan.layout else ()
        size = _allowed(settings.size, plan)
        shape = (len(self.views), size, dim) if settings.per_view else (size, dim)
        self.register_buffer("rows", unit(torch.randn(shape)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.first_step = math.ceil(settings.from_epoch * plan.steps_per_epoch)
        keys = len(plan.layout.keys) if plan.layout and not settings.per_view else 1
        # Known from the step's number alone: no counter to read back from the device.
        filling = math.ceil(size / (plan.batch_size * keys))
        self.ready_step = self.first_step + (filling if settings.once_full else 0)

    @hookimpl
    def draw_negatives(self, targets: Targets, step: Step) -> Negatives | None:
        """Return the queue itself (K, d), uncopied, for every key slot; nothing before its time."""
        if step.number < self.ready_step:
            return None
        vectors = dict.fromkeys(targets.keys, self.rows)
        if self.views:
            vectors = {slot: self.rows[self._place(slot)] for slot in targets.keys}
        return Negatives(vectors, dict.fromkeys(targets.keys), normalized=True)

    @hookimpl
    def update_target(self, targets: Targets, step: Step) -> None:
        """Take in this step's keys of all processes, over the oldest."""
        if step.number < self.first_step:
            return
        size = self.rows.shape[-2]
        keys = {slot: gather(rows) for slot, rows in targets.keys.items()}
        if not self.views:
            keys = {0: torch.cat(list(keys.values()))}
        # As many for each queue, so they go to the same places of all.
        count = min(len(next(iter(keys.values()))), size)
        places = (self.pointer + torch.arange(count, device=self.rows.device)) % size
        for slot, rows in keys.items():
            own = self.rows[self._place(slot)] if self.views else self.rows
            own.index_copy_(0, places, unit(rows[-count:]).to(own.dtype))
        self.pointer.add_(count).remainder_(size)

    def _place(self, slot: int) -> int:
        if slot not in self.views:
            raise RequestError(
                f"negatives 'queue' keeps one queue for each of the key views {list(self.views)}, "
                f"and the target gives key slot {slot}: set negatives.per_view = false."
            )
        return self.views.index(slot)


def _allowed(size: int, plan: Plan) -> int:
    most = plan.dataset_size - plan.batch_size
    if plan.dataset_size == 0 or size <= most:
        return size
    most = max(most, plan.batch_size)
    if size > most:
        plan.notice(
            f"the queue keeps {most} keys instead of {size}: with {plan.dataset_size} training "
            "images it would hold the query's own image again"
        )
    return min(size, most)
