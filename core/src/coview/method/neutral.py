"""The defaults: a target that shares the online network, and no negatives.

With them, a recipe names only what matters to its method.
"""

from __future__ import annotations

import attrs
from torch import Tensor, nn

from coview.components import EncoderComponent, declared
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Negatives, Targets


class OnlineTarget(nn.Module):
    """Base class for targets whose keys are the online network's own projections.

    The online network must encode all views that are keys, and no view may be
    its own positive, since its key would be the query itself. Of an encoder whose
    slots are not views, each key slot must have projections that are not its
    queries too. A subclass sets, for messages, ``name`` and ``instead`` (what the
    user can do), may change keys (:meth:`key`), and says whether they pass
    gradient back.
    """

    name = ""
    instead = ""
    passes_gradient = False

    @attrs.frozen
    class Settings:
        """No settings."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        layout = plan.layout
        own_slots = plan.encoder and not declared(plan.encoder, EncoderComponent, "by_view")
        if layout is None or own_slots:
            return
        if not set(layout.keys) <= set(layout.queries):
            raise RequestError(
                f"target {self.name!r} takes its keys from the online network, which encodes only "
                f"views {list(layout.queries)}, but views {list(layout.keys)} are keys. Make every "
                "view a query (views.symmetric = true), or use another target."
            )
        if any(query == key for query, key in layout.pairs):
            raise RequestError(
                f"target {self.name!r} would compare a view with itself, since there is only one "
                f"view per image. Use {self.instead}views that make two."
            )

    def key(self, projection: Tensor) -> Tensor:
        """Return the key that a projection (N, d) becomes."""
        return projection

    @hookimpl
    def encode_targets(self, encoded: Encoded) -> Targets:
        """Return the projections of the key slots, (N, d)."""
        slots = dict.fromkeys(key for _, key in encoded.pairs)
        if missing := [slot for slot in slots if slot not in encoded.projections]:
            raise RequestError(
                f"target {self.name!r} takes its keys from the encoder's projections, which has "
                f"none of the key slots {missing}. Use another target (--use target=momentum)."
            )
        if any(encoded.queries.get(q) is encoded.projections[k] for q, k in encoded.pairs):
            raise RequestError(
                f"target {self.name!r} would compare the rows of a slot with themselves: the "
                "encoder's queries are its projections, and a pair names one slot twice. Use "
                "another target (--use target=momentum)."
            )
        return Targets(
            {slot: self.key(encoded.projections[slot]) for slot in slots},
            {slot: encoded.identities[slot] for slot in slots},
        )


class Shared(OnlineTarget):
    """The other views' own projections, through which gradient flows too."""

    name = "shared"
    instead = "a memory bank as target, or "
    passes_gradient = True


class NoNegatives(nn.Module):
    """No other images: for methods that compare only views of one image."""

    @attrs.frozen
    class Settings:
        """No settings."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()

    @hookimpl
    def draw_negatives(self) -> Negatives | None:
        """Return nothing: the loss gets no part from this source."""
        return None
