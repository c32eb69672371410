"""What each hook returns, checked where it crosses from one package to another.

A record that does not hold what it promises would fail later, in a package that is not at
fault. In a run only the first step is checked; the conformance kit checks every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pluggy
import torch
from torch import Tensor

from coview.components import TargetComponent, declared
from coview.distributed import active
from coview.errors import PluginError
from coview.hookspecs import ROLE_HOOKS
from coview.method.relay import BuiltComponent
from coview.method.spaces import refuse_unlike
from coview.plan import Layout
from coview.records import Batch, Encoded, Negatives, Targets, Views

_ROLE_OF = {hook: role for role, hook in ROLE_HOOKS.items()}


class Border:
    """Calls hooks, checks what they return, and names the component that made a wrong record.

    Args:
        components: all of a method's components; wrappers from the innermost on.
        layout: the views that the views component promised; None: not known.
        manager: the hooks that the components are registered with, by their keys.
    """

    def __init__(
        self,
        components: Sequence[BuiltComponent],
        layout: Layout | None,
        manager: pluggy.PluginManager,
    ) -> None:
        self._layout, self._manager = layout, manager
        self._of = {role: [c for c in components if role in c.roles] for role in ROLE_HOOKS}
        self._wraps = [c for c in components if "wrap" in c.roles]

    def call(self, hook: str, **given: Any) -> Any:
        """Call a role's hook and return its record.

        Raises:
            PluginError: the record is wrong.
        """
        if hook == "compute_loss":
            for loss in self._of["loss"]:
                refuse_unlike(self._of["encoder"][0], loss, given["encoded"], given["targets"])
        try:
            record = getattr(self._manager.hook, hook)(**given)
        except Exception as error:
            # A wrapper may have failed on a record that was wrong before it.
            if (wrong := self._before_wrappers(hook, given)) is None:
                raise
            raise PluginError(wrong) from error
        if problems := self.problems(hook, record, given):
            raise PluginError(
                self._before_wrappers(hook, given)
                or _sentence(self._makers(hook, record, given), self._around(hook), problems)
            )
        return record

    def problems(self, hook: str, record: Any, given: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with a record that a hook returned for what it was given."""
        if hook == "generate_views":
            found = _of_type(record, Views) or _views(record, given["batch"], self._layout)
        elif hook == "encode":
            found = _of_type(record, Encoded) or _encoded(record, given["views"])
        elif hook == "encode_targets":
            passing = any(
                declared(c.module, TargetComponent, "passes_gradient") for c in self._of["target"]
            )
            found = _of_type(record, Targets) or _targets(record, given["encoded"], passing)
        elif hook == "draw_negatives":
            found = [line for part in record for line in _part(part, given["targets"])]
        else:
            found = _loss(record)
        return list(found)

    def _before_wrappers(self, hook: str, given: Mapping[str, Any]) -> str | None:
        """Return who made a record wrong that wrappers had in hand, or None if it is not found.

        The hook is called again, without wrappers at first, then with one more at a time. Other
        processes would wait for that in vain, so several do without it.
        """
        wraps = self._around(hook)
        if not wraps or active():
            return None
        for count in range(len(wraps) + 1):
            others = [self._manager.get_plugin(wrap.key) for wrap in wraps[count:]]
            try:
                record = self._manager.subset_hook_caller(hook, others)(**given)
            except Exception:
                return None  # nothing was wrong with what it was given
            if problems := self.problems(hook, record, given):
                makers = [wraps[count - 1]] if count else self._makers(hook, record, given)
                return _sentence(makers, [], problems)
        return None

    def _around(self, hook: str) -> list[BuiltComponent]:
        return [wrap for wrap in self._wraps if hasattr(wrap.module, hook)]

    def _makers(self, hook: str, record: Any, given: Mapping[str, Any]) -> list[BuiltComponent]:
        """Return the components of a role; of several negatives, those whose part is wrong."""
        makers = self._of[_ROLE_OF[hook]]
        if hook != "draw_negatives" or len(record) != len(makers):
            return makers
        return [
            maker
            for maker, part in zip(makers, record, strict=True)
            if list(_part(part, given["targets"]))
        ]


def _sentence(
    makers: Sequence[BuiltComponent], around: Sequence[BuiltComponent], problems: Sequence[str]
) -> str:
    who = " or ".join(maker.label for maker in makers)
    wraps = ", ".join(wrap.label for wrap in around)
    who += f" (or {wraps}, which may wrap it)" if wraps else ""
    return f"{who} made a wrong record: {'; '.join(problems)}."


def _part(part: Any, targets: Targets) -> list[str] | Iterator[str]:
    return _of_type(part, Negatives) or _negatives(part, targets)


def _of_type(record: Any, wanted: type) -> list[str]:
    if isinstance(record, wanted):
        return []
    name = wanted.__name__
    return [f"{'an' if name[0] in 'AEIOU' else 'a'} {name} is wanted, not {_kind(record)}"]


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
    drawn: dict[Any, Any] = {s: (v, part.identities.get(s)) for s, v in part.vectors.items()}
    for place, one in {**drawn, **part.by_pair}.items():
        name = f"{'by_pair' if isinstance(place, tuple) else 'vectors'}[{place}]"
        if not isinstance(one, tuple) or len(one) != 2:
            yield f"{name} must be a tuple of vectors and identities, not {_kind(one)}"
            continue
        vectors, whose = one
        if not isinstance(vectors, Tensor) or vectors.ndim not in (2, 3):
            yield f"{name} must be (K, d) or (N, K, d), not {_shape(vectors)}"
            continue
        if key is not None and (vectors.shape[-1], vectors.device) != (key.shape[-1], key.device):
            yield (
                f"{name} has width {vectors.shape[-1]} on {vectors.device}, but keys have width "
                f"{key.shape[-1]} on {key.device}"
            )
        if whose is not None and tuple(whose.shape) != tuple(vectors.shape[:-1]):
            yield f"identities[{place}] must be {tuple(vectors.shape[:-1])}, not {_shape(whose)}"


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
