"""Which space queries live in, and which queries a loss gets.

An encoder may make queries that are not of the space of its projections and keys: scores of
prototypes, say (``queries_are``). A loss that compares queries with keys number by number
(``same_space``) gets the projections in their place.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from coview.components import EncoderComponent, LossComponent, declared
from coview.errors import PluginError, RequestError
from coview.method.relay import BuiltComponent
from coview.plan import Notice
from coview.records import Encoded, Targets


def matched(built: Mapping[str, BuiltComponent], notice: Notice) -> list[BuiltComponent]:
    """Return the components, with each loss told whether its queries are projections.

    Args:
        built: all components of a method, by key.
        notice: called with a sentence for each loss that gets projections.

    Raises:
        RequestError: no loss takes the queries that the encoder makes.
    """
    encoder = built["encoder"]
    are: str = declared(encoder.module, EncoderComponent, "queries_are")
    losses = [part for part in built.values() if "loss" in part.roles]
    given = [part for part in losses if are and compares(part)]
    if given and len(given) == len(losses):
        names = ", ".join(part.name for part in given)
        raise RequestError(
            f"The queries of {encoder.label} are {are}, and no loss takes them: {names} "
            f"compares projections with keys. Use another encoder (--use encoder=projection), or "
            f"add a loss that takes {are} (--use loss=NAME,{','.join(p.name for p in given)})."
        )
    for part in given:
        notice(
            f"loss {part.name!r} compares projections with keys; the {are} that encoder "
            f"{encoder.name!r} makes of them are left to the other losses"
        )
    return [attrs.evolve(part, on_projections=part in given) for part in built.values()]


def compares(loss: BuiltComponent) -> bool:
    """Return whether a loss compares queries with keys number by number."""
    return bool(declared(loss.module, LossComponent, "same_space"))


def refuse_unlike(
    encoder: BuiltComponent, loss: BuiltComponent, encoded: Encoded, targets: Targets
) -> None:
    """Refuse queries of another width than their keys before a loss that compares the two.

    Raises:
        PluginError: the encoder's queries are of another width, and it does not say what they are.
    """
    if loss.on_projections or not compares(loss):
        return
    for query, key in encoded.pairs:
        width, wanted = encoded.queries[query].shape[-1], targets.keys[key].shape[-1]
        if width != wanted:
            raise PluginError(
                f"{loss.label} compares queries with keys, but queries[{query}] of "
                f"{encoder.label} has width {width}, and keys[{key}] has width {wanted}. Use "
                "another loss or encoder. An encoder whose queries are not of the space of its "
                "projections must say what they are (queries_are)."
            )
