"""The card of a weight file: which network it holds, and what input that network expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from coview.data.values import Reading, recorded
from coview.plan import Plan
from coview.recipes.recipe import AFTERWARDS
from coview.recipes.resolve import GIVEN, Resolved
from coview.settings import plain
from coview.weights.own import code_of, is_own

PLAN = ("dataset_size", "channels", "image_size", "mean", "std", "batch_size")
"""The attributes of a plan that decide how views and encoder are built."""


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _heads(values: Any) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


@attrs.frozen(kw_only=True)
class WeightCard:
    """The description that is written next to a backbone's tensors.

    Attributes:
        method: the method that trained it; ``timm:NAME`` for timm's weights.
        backbone: a registered or timm name, or the class of a module that was passed in.
        given: the backbone is the user's own, so no installed name can build it again.
        code: what made it, ``file.py:function`` or ``module:function``; None: it was a Python
            object. Nothing is imported because a file of weights says so.
        settings: the backbone's settings, as plain values
            (:class:`coview.recipes.tables.BackboneSettings`).
        channels: channels of the images.
        image_size: pixels per side that the loader delivers.
        size: pixels per side that the network sees, the centre of those.
        mean: mean of each channel, subtracted from images in [0, 1].
        std: standard deviation of each channel; the difference is divided by it.
        heads: attention heads in each block of a transformer, which tensor shapes do not
            reveal; None: unknown.
        parts: views and encoder, if the backbone cannot be built without them
            (:func:`parts_of`); None: it can.
        reading: what the values in image files mean (background, orientation, range), as in
            training; None: the file is older than this attribute; empty: nothing is known.
        holdout: share of the images that training left out where there is no test split;
            None: the usual one.
        published: the protocols by which the method's authors evaluated weights
            (:func:`protocols_of`); None: the file is older than this attribute.
    """

    method: str = ""
    backbone: str = ""
    given: bool = False
    code: str | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    channels: int = 3
    image_size: int = 0
    size: int = 0
    mean: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    std: tuple[float, ...] = attrs.field(default=(), converter=_floats)
    heads: tuple[int, ...] | None = attrs.field(default=None, converter=_heads)
    parts: Mapping[str, Any] | None = None
    published: Mapping[str, Any] | None = None
    reading: Mapping[str, str] | None = None
    holdout: float | None = None

    @classmethod
    def of(cls, values: WeightCard | Mapping[str, Any]) -> WeightCard:
        """Return a card from plain values; those that a later version added are left out."""
        if isinstance(values, WeightCard):
            return values
        known = {field.name for field in attrs.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def loading(self) -> dict[str, Any]:
        """Return the settings of the data by which images are loaded as they were in training.

        A run that held nothing out is measured with the usual share of its images.
        """
        known: dict[str, Any] = {} if self.reading == {} else dict(recorded(self.reading))
        if self.holdout:
            known["holdout"] = self.holdout
        return {"size": self.image_size, "channels": self.channels, **known}

    def values(self) -> Reading:
        """Return what the values of a file mean to this backbone."""
        known = {} if self.reading == {} else recorded(self.reading)
        return attrs.evolve(Reading(), **known)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as written to files, without those that are None."""
        values = attrs.asdict(self, recurse=False)
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if value is not None
        }


def card_of(resolved: Resolved, plan: Plan, reading: Mapping[str, str] | None = None) -> WeightCard:
    """Return the card of the backbone that a run exports, as far as the recipe knows it.

    Args:
        resolved: the run's recipe.
        plan: the run's plan.
        reading: how the run's images were read (:attr:`coview.data.base.ImageData.reading`).
    """
    part = resolved.part("backbone")
    loaded = code_of(part)
    return WeightCard(
        method=resolved.recipe.name,
        backbone=part.name.removeprefix(GIVEN),
        given=is_own(part),
        code=None if loaded is None else loaded.name,
        settings=attrs.asdict(part.settings),
        channels=plan.channels,
        image_size=plan.image_size,
        parts=parts_of(resolved, plan),
        published=protocols_of(resolved),
        reading=reading,
        holdout=resolved.data.holdout,
    )


def parts_of(resolved: Resolved, plan: Plan) -> dict[str, Any]:
    """Return plain values from which a recipe's views and encoder can be built again."""
    found: dict[str, Any] = {"plan": {name: plain(getattr(plan, name)) for name in PLAN}}
    for role in ("views", "encoder"):
        part = resolved.part(role)
        settings = plain(attrs.asdict(part.settings, recurse=False))
        name = part.name.rpartition(":")[2]
        use = part.name if is_own(part) else f"{part.package}:{name}"
        found[role] = {"use": use, "settings": settings}
    return found


def protocols_of(resolved: Resolved) -> dict[str, Any]:
    """Return a recipe's published protocols as plain values."""
    found = {table: resolved.part(table) for table in AFTERWARDS}
    return {
        table: {"use": part.name, **plain(attrs.asdict(part.settings))}
        for table, part in found.items()
        if part.name != "none"
    }
