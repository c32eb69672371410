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
    """A first-in, first-out queue of the keys of past steps (He et al. 2020, section 3.1).

    Keys are kept as unit vectors; the queue starts with random ones (released
    code). It is read before it takes in a step's keys, so that a positive is never
    its own negative. All key views share one queue, which takes in the keys of all
    of them, or each has its own (``per_view``). The oldest keys are overwritten
    first, with any batch size.

    SwAV's support queue (Caron et al. 2020, section 4.1) is this one with a queue
    per view, which starts at a later epoch and is used in the loss only once every
    row is a real key (``once_full``).

    Rows of different kinds (images and places, images and texts; the encoder's ``slots``) are
    kept in a queue for each kind. Where a target gives rows to remember instead of its keys
    (the mean of an image's places), those are queued.

    A queue is limited to the size of the data set minus one batch: a larger one
    would hold the query's own image again. If the size is reduced, the run says so.

    Attributes:
        rows: (K, d) unit vectors; (queues, K, d) with ``per_view`` or several kinds.
        pointer: 0-dim int64, the row to write next.
    """

    rows: Tensor
    pointer: Tensor

    @attrs.frozen
    class Settings:
        """The paper's value."""

        size: int = setting(65536, "number of keys kept (with per_view: per key view)", gt(0))
        dim: int | None = setting(None, "width of a key; none: the encoder's width", gt(0))
        per_view: bool = setting(False, "keep a separate queue for each key view")
        from_epoch: float = setting(0.0, "first epoch (from 0) whose keys are queued", ge(0))
        once_full: bool = setting(
            False, "use the queue only once it is full of keys, not with random rows before"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        dim = settings.dim or plan.dim
        if plan.dim and dim != plan.dim:
            raise RequestError(
                f"negatives 'queue' keeps vectors of width {dim}, but the encoder's have width "
                f"{plan.dim}: remove negatives.dim, or set encoder.dim = {dim}."
            )
        if dim < 1:
            raise RequestError("A queue needs a plan with dim (the width of a key).")
        if settings.per_view and plan.layout is None:
            raise RequestError("A queue for each view needs a plan with the views' layout.")
        self.places = _places(settings.per_view, plan)
        size, queues = _allowed(settings.size, plan), len(set(self.places.values()))
        shape = (queues, size, dim) if self.places else (size, dim)
        self.register_buffer("rows", unit(torch.randn(shape)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.first_step = math.ceil(settings.from_epoch * plan.steps_per_epoch)
        slots = len(self.places) or (len(plan.layout.keys) if plan.layout else 1)
        keys = slots // queues if queues else slots
        # Known from the step number alone, so no counter is read back from the device.
        filling = math.ceil(size / (plan.batch_size * keys))
        self.ready_step = self.first_step + (filling if settings.once_full else 0)

    @hookimpl
    def draw_negatives(self, targets: Targets, step: Step) -> Negatives | None:
        """Return the queue (K, d) itself for every key slot, not a copy; None until it is ready."""
        if step.number < self.ready_step:
            return None
        vectors = dict.fromkeys(targets.keys, self.rows)
        if self.places:
            vectors = {slot: self.rows[self._place(slot)] for slot in targets.keys}
        return Negatives(vectors, dict.fromkeys(targets.keys), normalized=True)

    @hookimpl
    def update_target(self, targets: Targets, step: Step) -> None:
        """Overwrite the oldest keys with this step's keys of all processes."""
        if step.number < self.first_step:
            return
        size, queued = self.rows.shape[-2], self._queued(targets)
        counts = {len(rows) for rows in queued.values()}
        if len(counts) > 1:
            raise RequestError(
                f"negatives 'queue' takes as many rows for each kind, not {sorted(counts)}: let "
                "the encoder give one row an image to remember (Targets.remembered)."
            )
        # Each queue gets the same number of keys, so they go to the same rows in all.
        count = min(counts.pop(), size)
        places = (self.pointer + torch.arange(count, device=self.rows.device)) % size
        for place, rows in queued.items():
            own = self.rows[place] if self.places else self.rows
            own.index_copy_(0, places, unit(rows[-count:]).to(own.dtype))
        self.pointer.add_(count).remainder_(size)

    def _queued(self, targets: Targets) -> dict[int, Tensor]:
        """Return what each queue takes in, of all processes."""
        found: dict[int, list[Tensor]] = {}
        for slot, keys in {**targets.keys, **targets.remembered}.items():
            place = self._place(slot) if self.places else 0
            found.setdefault(place, []).append(gather(keys))
        return {place: torch.cat(rows) for place, rows in found.items()}

    def _place(self, slot: int) -> int:
        if slot not in self.places:
            raise RequestError(
                f"negatives 'queue' keeps queues for the key slots {list(self.places)}, but the "
                f"target gives key slot {slot}: set negatives.per_view = false."
            )
        return self.places[slot]


def _places(per_view: bool, plan: Plan) -> dict[int, int]:
    """Return the number of each key slot's queue; empty: all share one."""
    if per_view and plan.layout:
        return {view: place for place, view in enumerate(plan.slots or plan.layout.keys)}
    kinds = list(dict.fromkeys(plan.slots.values()))
    return {slot: kinds.index(kind) for slot, kind in plan.slots.items()} if len(kinds) > 1 else {}


def _allowed(size: int, plan: Plan) -> int:
    most = plan.dataset_size - plan.batch_size
    if plan.dataset_size == 0 or size <= most:
        return size
    most = max(most, plan.batch_size)
    if size > most:
        plan.notice(
            f"the queue keeps {most} keys instead of {size}: with only {plan.dataset_size} "
            "training images, a longer one would hold the query's own image again"
        )
    return min(size, most)
