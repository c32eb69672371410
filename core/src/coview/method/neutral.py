"""The neutral elements: a target and a source of negatives that add nothing.

With them a recipe names only what matters to its method.
"""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Negatives, Targets


class OnlineTarget(nn.Module):
    """The base of targets whose keys are the online network's own projections.

    The views that are keys must be encoded by the online network too, and no
    view may be its own positive: its key would be the query itself. A subclass
    gives its name and what its user may do instead, for messages, may change a
    key on its way, and says whether keys pass gradient back.
    """

    name = ""
    instead = ""
    passes_gradient = False

    @attrs.frozen
    class Settings:
        """None."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        layout = plan.layout
        if layout is None:
            return
        if not set(layout.keys) <= set(layout.queries):
            raise RequestError(
                f"target {self.name!r} takes its keys from the online network, but the views "
                f"encode only {list(layout.queries)} as queries and need {list(layout.keys)} as "
                "keys: let every view be a query (views.symmetric = true), or use another target."
            )
        if any(query == key for query, key in layout.pairs):
            raise RequestError(
                f"target {self.name!r} would compare a view with itself, since these views make "
                f"one view an image: use {self.instead}views that make two."
            )

    def key(self, projection: Tensor) -> Tensor:
        """Return the key that a projection (N, d) becomes."""
        return projection

    @hookimpl
    def encode_targets(self, encoded: Encoded) -> Targets:
        """Return the projections of the key slots, (N, d)."""
        slots = dict.fromkeys(key for _, key in encoded.pairs)
        return Targets(
            {slot: self.key(encoded.projections[slot]) for slot in slots},
            {slot: encoded.identities[slot] for slot in slots},
        )


class Shared(OnlineTarget):
    """Target: the online projections themselves, gradient and all."""

    name = "shared"
    instead = "a memory bank as target, or "
    passes_gradient = True


class NoNegatives(nn.Module):
    """Negatives: none."""

    @attrs.frozen
    class Settings:
        """None."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()

    @hookimpl
    def draw_negatives(self) -> Negatives | None:
        """Return nothing, so that the loss gets no part from here."""
        return None
