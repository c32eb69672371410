"""Crops of several sizes: a few large ones, and many small ones, which cost little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from coview.errors import RequestError
from coview.plan import Plan
from coview.settings import between, ge, gt, increasing, setting
from coview.views import Augmentation, CropViews, least_side, positives

GROUPED = ("size", "count", "crop_scale", "blur_p", "solarize_p")
"""Settings that may have a value for each group of crops."""

SMALL_SHARE = 3 / 7
"""A small crop's side as a share of a large one's: 96 of 224 pixels."""

Check = Callable[[Any, "attrs.Attribute[Any]", Any], Any]


def _each(check: Check) -> Check:
    """Apply a check to a value, or to every value of a list with one for each group."""

    def apply(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None:
                check(instance, attribute, item)

    return apply


def _pixels_or_share(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not (0 < value < 1 if isinstance(value, float) else value > 0):
        raise ValueError(
            f"'{attribute.name}' must be a whole number of pixels above 0, or a share between 0 "
            f"and 1, not {value}"
        )


def _each_range(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    for item in value if isinstance(value[0], tuple) else (value,):
        increasing(0, 1)(instance, attribute, item)


class MultiCropViews(CropViews):
    """Groups of crops, each with a size, a count and a scale (Caron et al. 2020, section 3.2).

    The views are the crops of the first group, then those of the second, and so on.
    The target encodes the first ``keys`` views (and codes are computed from them);
    all views are queries, so that small crops predict and are never predicted.
    ``keys = 0`` makes every view a key.

    A setting marked "one value, or one per group" takes both. DINO, for example,
    gives its two large crops different blur by three groups of sizes (none, none,
    96). Crops of equal size share a backbone call if the encoder's ``norm_views``
    allows it.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """SwAV's values; see :class:`coview.views.Augmentation`."""

        size: int | float | tuple[int | float | None, ...] | None = setting(  # type: ignore[assignment]
            (None, SMALL_SHARE),
            "crop size in pixels, one value, or one per group; none: 7/8 of the loader's size, or "
            "all of it up to 128; below 1: share of the first group's size (3/7 of 224 is 96)",
            _each(_pixels_or_share),
        )
        count: int | tuple[int, ...] = setting(
            (2, 6), "crops per image, one value, or one per group", _each(gt(0))
        )
        crop_scale: tuple[float, float] | tuple[tuple[float, float], ...] = setting(  # type: ignore[assignment]
            ((0.14, 1.0), (0.05, 0.14)),
            "least and greatest share of the image's area in a crop, one pair, or one per group",
            _each_range,
        )
        blur_p: float | tuple[float, ...] = setting(  # type: ignore[assignment]
            0.5, "probability of Gaussian blur, one value, or one per group", _each(between(0, 1))
        )
        solarize_p: float | tuple[float, ...] = setting(  # type: ignore[assignment]
            0.0,
            "probability of inverting pixels above half, one value, or one per group",
            _each(between(0, 1)),
        )
        keys: int = setting(2, "number of first views that the target encodes; 0: all", ge(0))

    @classmethod
    def least_side(cls, settings: Settings, image_size: int) -> float | None:
        """Return the side that the smallest crop of any group needs."""
        return least_side(augmentations(settings, image_size), image_size)

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(augmentations(settings, plan.image_size), plan)
        everyone = self.layout.queries
        keys = everyone[: settings.keys] if settings.keys else everyone
        self.layout = attrs.evolve(self.layout, keys=keys, pairs=positives(everyone, keys))


def augmentations(settings: MultiCropViews.Settings, image_size: int) -> list[Augmentation]:
    """Return the augmentation of every view, group by group.

    Raises:
        RequestError: lists have different lengths.
    """
    values = {name: _grouped(name, getattr(settings, name)) for name in GROUPED}
    lengths = {name: len(value) for name, value in values.items() if value is not None}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"views.{name} has {length}" for name, length in lengths.items())
        raise RequestError(f"multi-crop needs one value per group of crops, but {listed}.")
    groups = max(lengths.values(), default=1)
    common = {
        field.name: getattr(settings, field.name)
        for field in attrs.fields(Augmentation)
        if field.name not in GROUPED
    }
    common_size = Augmentation().view_size(image_size)
    made: list[Augmentation] = []
    for group in range(groups):
        own = {
            name: getattr(settings, name) if value is None else value[group]
            for name, value in values.items()
        }
        count, size = own.pop("count"), own.pop("size")
        if isinstance(size, float):
            whole = made[0].view_size(image_size) if made else common_size
            size = max(1, round(size * whole))
        made += [Augmentation(**common, **own, size=size)] * count
    return made


def _grouped(name: str, value: Any) -> tuple[Any, ...] | None:
    """Return a list with a value for each group, or None if there is one value for all."""
    if not isinstance(value, tuple):
        return None
    if name == "crop_scale" and not isinstance(value[0], tuple):
        return None
    return value
