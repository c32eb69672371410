"""Negatives from the batch itself."""

from __future__ import annotations

import attrs
import torch
from torch import nn

from coview.distributed import gather
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Negatives, Targets
from coview.settings import one_of, setting


class InBatch(nn.Module):
    """The keys of the other images of the global batch (van den Oord et al. 2018, section 2.3).

    Gradient flows into them if the target allows it: the target ``shared`` gives
    SimCLR's 2(B - 1) negatives with gradient, gathered over all processes; a
    momentum target gives no gradient.
    """

    from_batch = True

    @attrs.frozen
    class Settings:
        """The keys that are used."""

        views: str = setting(
            "all",
            "all: keys of every view (SimCLR); key: only those of the compared key's view "
            "(MoCo v3)",
            one_of("all", "key"),
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings

    @hookimpl
    def draw_negatives(self, targets: Targets) -> Negatives:
        """Return the batch's keys (K, d) with identities; a loss leaves out the query's own."""
        vectors = {slot: gather(rows) for slot, rows in targets.keys.items()}
        identities = {slot: gather(rows) for slot, rows in targets.identities.items()}
        if self.settings.views == "all":
            every = torch.cat(list(vectors.values()))
            whose = torch.cat(list(identities.values()))
            vectors = dict.fromkeys(vectors, every)
            identities = dict.fromkeys(identities, whose)
        return Negatives(vectors, identities)
