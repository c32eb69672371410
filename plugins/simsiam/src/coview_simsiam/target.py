"""The network itself, as a constant."""

from __future__ import annotations

import attrs
from torch import nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Targets


class StopGradient(nn.Module):
    """Keys are the online projections, without gradient (Chen & He 2021, section 3).

    Both views' projections are constants where they are keys; the encoder
    learns through the predictions of the same views. It has no state.
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
                "target 'stop-gradient' takes its keys from the online network, but the views "
                f"encode only {list(layout.queries)} as queries and need {list(layout.keys)} as "
                "keys: let every view be a query (views.symmetric = true), or use another target."
            )
        if any(query == key for query, key in layout.pairs):
            raise RequestError(
                "target 'stop-gradient' would compare a view with itself, since these views make "
                "one view an image: use views that make two."
            )

    @hookimpl
    def encode_targets(self, encoded: Encoded) -> Targets:
        """Return the projections of the key slots, (N, d), cut from the graph."""
        slots = dict.fromkeys(key for _, key in encoded.pairs)
        return Targets(
            {slot: encoded.projections[slot].detach() for slot in slots},
            {slot: encoded.identities[slot] for slot in slots},
        )
