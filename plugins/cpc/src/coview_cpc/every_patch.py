"""Negatives: every patch of the batch, once."""

from __future__ import annotations

import attrs
import torch
from torch import nn

from coview.distributed import gather, rank, world_size
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Negatives, Step
from coview.settings import ge, setting
from coview_cpc.encoder import EVERY_PATCH


class EveryPatch(nn.Module):
    """The other patches of the same image and of the other images of the global batch.

    The paper draws from all of them (van den Oord et al. 2018, section 3.3; Hénaff
    et al. 2019, section 2.1, names "other locations in the image and other
    images in the mini-batch"). A patch occurs once, however many offsets it is
    the target of; a loss leaves out the query's own target by its identity.
    ``in-batch`` with ``views = "key"`` has only the rows that an offset reaches.

    The negatives are the online network's outputs for the patches, with gradient.
    """

    @attrs.frozen
    class Settings:
        """The number of negatives."""

        draws: int = setting(
            0, "negatives drawn for each prediction, with replacement; 0: every patch", ge(0)
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings
        if plan.layout is not None and plan.layout.grid is None:
            raise RequestError(
                "negatives 'patches' are pieces of images, but these views are whole images: use "
                "negatives 'in-batch' instead."
            )

    @hookimpl
    def draw_negatives(self, encoded: Encoded, step: Step) -> Negatives:
        """Return all patches (K, d) and their identities by slot, or a set for each query."""
        every = gather(encoded.projections[EVERY_PATCH])
        whose = gather(encoded.identities[EVERY_PATCH])
        slots = [key for _, key in encoded.pairs]
        if self.settings.draws == 0:
            return Negatives(dict.fromkeys(slots, every), dict.fromkeys(slots, whose))
        drawn = {
            slot: self._draw(len(encoded.projections[slot]), len(every), step) for slot in slots
        }
        return Negatives(
            {slot: every[rows] for slot, rows in drawn.items()},
            {slot: whose[rows] for slot, rows in drawn.items()},
        )

    def _draw(self, queries: int, patches: int, step: Step) -> torch.Tensor:
        """Draw row numbers for the global batch; return this process's, (queries, draws)."""
        shape = (queries * world_size(), self.settings.draws)
        generator = step.generator
        drawn = torch.randint(patches, shape, generator=generator, device=generator.device)
        return drawn[rank() * queries : (rank() + 1) * queries]
