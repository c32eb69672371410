"""Views and encoder built again from what an exported file says of them.

Most backbones need neither: a standardised image goes in. Where the views are
pieces of an image, or each has a network of its own, the file names the two
components and their settings, and they are built as the run built them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
from torch import nn

from coview.errors import CoviewError
from coview.plan import Plan
from coview.registry import find, kind_of_role
from coview.settings import plain, structure

if TYPE_CHECKING:
    from coview.backbones import BackboneSpec
    from coview.resolve import Resolved

PLAN = ("dataset_size", "channels", "image_size", "mean", "std", "batch_size")
"""What of a plan decides how views and encoder are built."""


def parts_of(resolved: Resolved, plan: Plan) -> dict[str, Any]:
    """Return, as plain values, what :func:`rebuilt` needs."""
    found: dict[str, Any] = {"plan": {name: plain(getattr(plan, name)) for name in PLAN}}
    for role in ("views", "encoder"):
        part = resolved.part(role)
        settings = plain(attrs.asdict(part.settings, recurse=False))
        name = part.name.rpartition(":")[2]
        found[role] = {"use": f"{part.package}:{name}", "settings": settings}
    return found


def rebuilt(parts: Mapping[str, Any], backbone: BackboneSpec) -> tuple[nn.Module, nn.Module]:
    """Build views and encoder again.

    Args:
        parts: as :func:`parts_of` gave them.
        backbone: what the encoder builds its trunk (or trunks) from.

    Returns:
        The encoder's backbone, with fresh weights, and the views.

    Raises:
        RequestError: a package that provides one of them is not installed.
        CoviewError: it does not take these settings any more.
    """
    facts = parts["plan"]
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    plan = Plan(**known, backbone=backbone)
    views = build_part("views", parts["views"], plan)
    encoder = build_part("encoder", parts["encoder"], attrs.evolve(plan, layout=views.layout))
    return encoder.backbone(), views


def build_part(role: str, part: Mapping[str, Any], plan: Plan) -> Any:
    """Build one component as :func:`parts_of` described it."""
    factory = find(kind_of_role(role), part["use"]).load()
    settings, problems = structure(factory.Settings, part["settings"], role)
    if problems:
        raise CoviewError("; ".join(problems))
    return factory(settings, plan)
