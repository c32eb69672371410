"""Keys become their nearest neighbours among past keys."""

from __future__ import annotations

from collections.abc import Generator

import attrs
import torch
from torch import Tensor, nn

from coview.distributed import gather
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import unit
from coview.plan import Plan
from coview.records import Step, Targets
from coview.settings import gt, one_of, setting


class NearestNeighbours(nn.Module):
    """Replaces each key by the nearest row of a support set (Dwibedi et al. 2021, section 3.2).

    It wraps the target, whichever that is, so that an image's positive is another image that
    is like it. The support set is a first-in, first-out queue of past keys, which starts with
    random unit vectors; it is read before it takes in a step's keys, so that a key is never
    its own neighbour. Neighbours pass no gradient. A queue of negatives still takes in the
    keys themselves.

    Attributes:
        support: (K, d) unit vectors.
        pointer: 0-dim int64, the row to write next.
    """

    support: Tensor
    pointer: Tensor

    @attrs.frozen
    class Settings:
        """The paper's values."""

        size: int = setting(98304, "number of past keys among which neighbours are found", gt(0))
        takes: str = setting(
            "first", "the views whose keys it takes in: the first, or all", one_of("first", "all")
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.dim < 1:
            raise RequestError("A support set needs a plan with dim (the width of a key).")
        self.settings = settings
        self.register_buffer("support", unit(torch.randn(settings.size, plan.dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @hookimpl(wrapper=True)
    def encode_targets(self, step: Step) -> Generator[None, Targets, Targets]:
        """Return the neighbours (N, d) of the target's keys, and the keys as what is remembered.

        Logs ``neighbour_similarity``, the mean cosine of a key and its neighbour.
        """
        targets = yield
        keys = {slot: rows.detach() for slot, rows in targets.keys.items()}
        near, found = {}, {}
        for slot, rows in keys.items():
            near[slot], found[slot] = self._nearest(rows)
        step.log("neighbour_similarity", torch.cat(list(near.values())).mean())
        return attrs.evolve(targets, keys=found, remembered={**keys, **targets.remembered})

    @hookimpl
    def update_target(self, targets: Targets) -> None:
        """Overwrite the oldest rows with this step's keys of all processes."""
        slots = sorted(targets.keys)
        taken = slots[:1] if self.settings.takes == "first" else slots
        size = len(self.support)
        rows = torch.cat([gather(targets.remembered[slot]) for slot in taken])[-size:]
        places = (self.pointer + torch.arange(len(rows), device=rows.device)) % size
        self.support.index_copy_(0, places, unit(rows).to(self.support.dtype))
        self.pointer.add_(len(rows)).remainder_(size)

    def _nearest(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosine (N,) of keys (N, d) and their neighbours, and the neighbours (N, d)."""
        support = self.support.to(keys.dtype)
        similarity, place = (unit(keys) @ support.T).max(dim=1)
        return similarity, support[place]
