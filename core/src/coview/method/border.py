"""What each hook returns, checked where it crosses from one package to another.

A record that does not hold what it promises would fail later, in a package that is not at
fault. In a run only the first step is checked; the conformance kit checks every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from coview.components import TargetComponent, declared
from coview.errors import PluginError
from coview.method.relay import BuiltComponent
from coview.plan import Layout
from coview.records import Batch, Encoded, Negatives, Targets, Views


class Border:
    """Checks records, and names the component that made a wrong one.

    Args:
        components: all of a method's components.
        layout: the views that the views component promised; None: not known.
    """

    def __init__(self, components: Mapping[str, BuiltComponent], layout: Layout | None) -> None:
        self._layout = layout
        self._of = {
            role: [c for c in components.values() if role in c.roles]
            for role in ("views", "encoder", "target", "negatives", "loss")
        }
        wraps = [c.label for c in components.values() if "wrap" in c.roles]
        self._wrapped = f" (or {', '.join(wraps)}, which may wrap it)" if wraps else ""

    def views(self, views: Any, batch: Batch) -> None:
        """Check what ``generate_views`` returned."""
        self._hold("views", _of_type(views, Views) or _views(views, batch, self._layout))

    def encoded(self, encoded: Any, views: Views) -> None:
        """Check what ``encode`` returned."""
        self._hold("encoder", _of_type(encoded, Encoded) or _encoded(encoded, views))

    def targets(self, targets: Any, encoded: Encoded) -> None:
        """Check what ``encode_targets`` returned."""
        passing = any(
            declared(c.module, TargetComponent, "passes_gradient") for c in self._of["target"]
        )
        self._hold("target", _of_type(targets, Targets) or _targets(targets, encoded, passing))

    def negatives(self, negatives: tuple[Any, ...], targets: Targets) -> None:
        """Check what every ``draw_negatives`` returned."""
        for part in negatives:
            self._hold("negatives", _of_type(part, Negatives) or _negatives(part, targets))

    def loss(self, loss: Any) -> None:
        """Check what ``compute_loss`` returned."""
        self._hold("loss", _loss(loss))

    def _hold(self, role: str, problems: Iterator[str] | list[str]) -> None:
        found = list(problems)
        if found:
            labels = " or ".join(component.label for component in self._of[role])
            raise PluginError(f"{labels}{self._wrapped} made a wrong record: {'; '.join(found)}.")


def _of_type(record: Any, wanted: type) -> list[str]:
    if isinstance(record, wanted):
        return []
    return [f"a {wanted.__name__} is wanted, not {_kind(record)}"]


def _kind(thing: Any) -> str:
    return "None" if thing is None else f"a {type(thing).__name__}"


def _views(views: Views, batch: Batch, layout: Layout | None) -> Iterator[str]:
    rows, device = len(batch.indices), batch.images.device
    for number, crop in enumerate(views.crops):
        name = f"crop {number}"
        yield from _tensor(name, crop, rows, device)
        if isinstance(crop, Tensor) and not crop.is_floating_point():
            yield f"{name} must be floating point, not {crop.dtype}"
    for name, which in (("queries", views.queries), ("keys", views.keys)):
        if wrong := [view for view in which if not 0 <= view < len(views.crops)]:
            yield f"{name} name views {wrong}, of {len(views.crops)}"
    for query, key in views.pairs:
        if query not in views.queries or key not in views.keys:
            yield f"the pair ({query}, {key}) is not of a query and a key"
    if layout is None:
        return
    if len(views.crops) != layout.count:
        yield f"there are {len(views.crops)} crops, but the layout has {layout.count} views"
        return
    if (views.queries, views.keys, views.pairs) != (layout.queries, layout.keys, layout.pairs):
        yield "queries, keys and pairs are not those of the layout"
    for number, crop in enumerate(views.crops):
        promised = (layout.channels[number], *layout.sizes[number])
        if isinstance(crop, Tensor) and crop.ndim == 4 and tuple(crop.shape[1:]) != promised:
            yield f"crop {number} is {tuple(crop.shape[1:])}, but the layout says {promised}"


def _encoded(encoded: Encoded, views: Views) -> Iterator[str]:
    device = views.crops[0].device
    if not encoded.queries:
        yield "there are no queries"
    for name in ("queries", "projections"):
        for slot, rows in getattr(encoded, name).items():
            yield from _rows(f"{name}[{slot}]", rows, device)
    for slot, rows in encoded.queries.items():
        yield from _identities(f"[{slot}]", encoded.identities.get(slot), rows)
        if isinstance(rows, Tensor) and torch.is_grad_enabled() and not rows.requires_grad:
            yield f"queries[{slot}] must carry gradient, or the encoder is not trained"
    for query, _ in encoded.pairs:
        if query not in encoded.queries:
            yield f"a pair names query slot {query}, of {sorted(encoded.queries)}"
    widths = {rows.shape[-1] for rows in encoded.queries.values() if isinstance(rows, Tensor)}
    if len(widths) > 1:
        yield f"queries must have one width, not {sorted(widths)}"


def _targets(targets: Targets, encoded: Encoded, passing: bool) -> Iterator[str]:
    # Queries may be scores of prototypes, and so of another width than what is compared.
    query = next(iter(encoded.projections.values()), next(iter(encoded.queries.values())))
    for slot, rows in targets.keys.items():
        name = f"keys[{slot}]"
        yield from _rows(name, rows, query.device, query.shape[-1])
        yield from _identities(f"[{slot}]", targets.identities.get(slot), rows)
        if isinstance(rows, Tensor) and rows.requires_grad and not passing:
            yield f"{name} carries gradient, which a target must declare (passes_gradient = True)"
    for slot in dict.fromkeys(key for _, key in encoded.pairs):
        if slot not in targets.keys:
            yield f"a pair names key slot {slot}, of {sorted(targets.keys)}"


def _negatives(part: Negatives, targets: Targets) -> Iterator[str]:
    key = next(iter(targets.keys.values()), None)
    for slot, vectors in part.vectors.items():
        name = f"vectors[{slot}]"
        if not isinstance(vectors, Tensor) or vectors.ndim not in (2, 3):
            yield f"{name} must be (K, d) or (N, K, d), not {_shape(vectors)}"
            continue
        if key is not None and (vectors.shape[-1], vectors.device) != (key.shape[-1], key.device):
            yield (
                f"{name} has width {vectors.shape[-1]} on {vectors.device}, but keys have width "
                f"{key.shape[-1]} on {key.device}"
            )
        whose = part.identities.get(slot)
        if whose is not None and tuple(whose.shape) != tuple(vectors.shape[:-1]):
            yield f"identities[{slot}] must be {tuple(vectors.shape[:-1])}, not {_shape(whose)}"


def _loss(loss: Any) -> Iterator[str]:
    if not isinstance(loss, Tensor):
        yield f"a loss must be a tensor, not {_kind(loss)}"
    elif loss.ndim or not loss.is_floating_point():
        yield f"a loss must be one number, (), not {_shape(loss)} {loss.dtype}"
    elif torch.is_grad_enabled() and not loss.requires_grad:
        yield "the loss must carry gradient, or nothing is trained"


def _tensor(name: str, value: Any, rows: int, device: torch.device) -> Iterator[str]:
    if not isinstance(value, Tensor):
        yield f"{name} must be a tensor, not {_kind(value)}"
    elif not value.ndim or len(value) != rows:
        yield f"{name} must have {rows} rows, not the shape {_shape(value)}"
    elif value.device != device:
        yield f"{name} is on {value.device}, but the batch on {device}"


def _rows(name: str, value: Any, device: torch.device, width: int | None = None) -> Iterator[str]:
    if not isinstance(value, Tensor) or value.ndim != 2 or not value.is_floating_point():
        yield f"{name} must be (N, d) floating point, not {_shape(value)}"
    elif value.device != device:
        yield f"{name} is on {value.device}, not on {device}"
    elif width is not None and value.shape[-1] != width:
        yield f"{name} has width {value.shape[-1]}, but projections have {width}"


def _identities(where: str, value: Any, rows: Any) -> Iterator[str]:
    if value is None:
        yield f"identities{where} is missing"
    elif not isinstance(value, Tensor) or value.dtype != torch.int64:
        yield f"identities{where} must be an int64 tensor, not {_shape(value)}"
    elif isinstance(rows, Tensor) and tuple(value.shape) != tuple(rows.shape[:1]):
        yield f"identities{where} must be {tuple(rows.shape[:1])}, not {_shape(value)}"


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else _kind(value)
