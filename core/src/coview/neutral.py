"""The neutral elements: a target and a source of negatives that add nothing.

With them a recipe names only what matters to its method.
"""

from __future__ import annotations

import attrs
from torch import nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Negatives, Targets


class Shared(nn.Module):
    """Target: the online projections themselves, gradient and all.

    The views that are keys must be encoded by the online network too, and no
    view may be its own positive: its key would be the query itself.
    """

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
                "target 'shared' takes its keys from the online network, but the views encode "
                f"only {list(layout.queries)} as queries and need {list(layout.keys)} as keys: "
                "let every view be a query (views.symmetric = true), or use another target."
            )
        if any(query == key for query, key in layout.pairs):
            raise RequestError(
                "target 'shared' would compare a view with itself, since these views make one "
                "view an image: use a memory bank as target, or views that make two."
            )

    @hookimpl
    def encode_targets(self, encoded: Encoded) -> Targets:
        """Return the projections of the key slots, (N, d), gradient flowing."""
        slots = dict.fromkeys(key for _, key in encoded.pairs)
        return Targets(
            {slot: encoded.projections[slot] for slot in slots},
            {slot: encoded.identities[slot] for slot in slots},
        )


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
