"""The queue of past keys."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from coview.comparison import unit
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Negatives, Targets
from coview.settings import gt, setting
from coview.training.distributed import gather


class Queue(nn.Module):
    """First in, first out: the keys of past steps (He et al. 2020, section 3.1).

    Keys are kept as unit vectors; the queue starts with random ones (released
    code). It is read before it takes in a step's keys, so that a positive is
    never its own negative, and shared by all key views: a step enqueues the
    keys of all of them. The oldest leave first, wrapping at any batch size.

    A queue holds no more than the data set less one batch (size is reduced,
    and said so): beyond that it would hold the query's own image again.

    Attributes:
        rows: (K, d) unit vectors.
        pointer: 0-dim int64, the row that is written next.
    """

    rows: Tensor
    pointer: Tensor

    @attrs.frozen
    class Settings:
        """The paper's value."""

        size: int = setting(65536, "keys kept", gt(0))
        dim: int | None = setting(None, "width of a key; none: the encoder's", gt(0))

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
        size = _allowed(settings.size, plan)
        self.register_buffer("rows", unit(torch.randn(size, dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @hookimpl
    def draw_negatives(self, targets: Targets) -> Negatives:
        """Return the queue itself (K, d), uncopied, for every key slot."""
        return Negatives(
            dict.fromkeys(targets.keys, self.rows),
            dict.fromkeys(targets.keys),
            normalized=True,
        )

    @hookimpl
    def update_target(self, targets: Targets) -> None:
        """Take in this step's keys of all processes, over the oldest."""
        keys = torch.cat([unit(gather(rows)) for rows in targets.keys.values()])
        keys = keys[-len(self.rows) :].to(self.rows.dtype)
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.rows)
        self.rows.index_copy_(0, places, keys)
        self.pointer.add_(len(keys)).remainder_(len(self.rows))


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
