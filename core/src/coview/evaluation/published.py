"""The protocols that methods published: those of weights, and those of a method by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from coview.errors import CoviewError, PluginError, RequestError, unknown
from coview.recipes.protocols import GENERIC, WAYS, FineTuning, Protocol, SupportVectors
from coview.recipes.recipe import AFTERWARDS, Use, find_recipe, method_names
from coview.settings import plain, structure

if TYPE_CHECKING:
    from coview.recipes.resolve import Resolved

OWN = "paper"
"""The name of the protocol that belongs to the weights' own method."""


def protocols_of(resolved: Resolved) -> dict[str, Any]:
    """Return a recipe's protocols as plain values, to be kept with its weights."""
    found = {table: resolved.part(table) for table in AFTERWARDS}
    return {
        table: {"use": part.name, **plain(attrs.asdict(part.settings))}
        for table, part in found.items()
        if part.name != "none"
    }


def find_probe(name: str, meta: Mapping[str, Any]) -> Protocol | SupportVectors:
    """Return a linear probe.

    Args:
        name: of a method; ``paper``: that of the weights' own.
        meta: of the exported backbone.

    Raises:
        RequestError: there is no such method, or it published none.
        PluginError: the method's package cannot give it.
    """
    use = _find("probe", name, meta)
    if use.name != "none":
        probe: Protocol | SupportVectors = _structured("probe", use)
        return probe
    of = repr(meta["method"]) if name == OWN else repr(name)
    raise RequestError(
        f"No published linear probe is known for {of}. Name one: --protocol "
        f"{', '.join(_publishing('probe'))}."
    )


def find_finetuning(name: str | None, meta: Mapping[str, Any], labels: str) -> FineTuning:
    """Return settings for fine-tuning with a share of the labels.

    Args:
        name: of a method; ``paper``: that of the weights' own; None: that too,
            or the core's choice where none was published (its ``source`` says so).
        meta: of the exported backbone.
        labels: as ``--labels`` has it; 1 % may have rates of its own.

    Raises:
        RequestError, PluginError: as :func:`find_probe`.
    """
    use = _find("finetune", name or OWN, meta)
    if use.name != "none":
        found: FineTuning = _structured("finetune", use)
        return found.for_labels(labels)
    if name is None:
        source = f"{GENERIC.source}: none is published for {meta['method']!r}"
        return attrs.evolve(GENERIC, source=source).for_labels(labels)
    raise RequestError(
        f"No published fine-tuning is known for {meta['method'] if name == OWN else name!r}. "
        f"Name one: --protocol {', '.join(_publishing('finetune'))}."
    )


def _find(table: str, name: str, meta: Mapping[str, Any]) -> Use:
    if name == OWN:
        if "published" in meta:
            kept = dict(meta["published"].get(table, {"use": "none"}))
            return Use(kept.pop("use"), **kept)
        name = meta["method"]
        if name not in method_names():
            return Use("none")
    elif name.rpartition(":")[2] not in method_names():
        others = ("grid", OWN) if table == "probe" else (OWN,)
        raise RequestError(unknown("protocol", name, (*others, *_publishing(table))))
    use: Use = getattr(find_recipe(name), table)
    return use


def _structured(table: str, use: Use) -> Any:
    if use.name not in WAYS[table]:
        raise CoviewError(unknown(f"way to {table}", use.name, WAYS[table]))
    made, problems = structure(WAYS[table][use.name], use.settings, table)
    if problems:
        raise CoviewError("; ".join(problems))
    return made


def _publishing(table: str) -> list[str]:
    """Return the methods that published one; a package that is broken publishes nothing."""
    found = []
    for name in method_names():
        try:
            if getattr(find_recipe(name), table).name != "none":
                found.append(name)
        except (PluginError, RequestError):
            continue
    return found
