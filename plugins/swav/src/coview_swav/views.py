"""Crops of several sizes: a few large ones, and many small ones that cost little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from coview.errors import RequestError
from coview.plan import Plan
from coview.settings import between, ge, gt, increasing, setting
from coview.views import Augmentation, CropViews, positives

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
            f"'{attribute.name}' must be whole pixels above 0 or a share between 0 and 1: {value}"
        )


def _each_range(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    for item in value if isinstance(value[0], tuple) else (value,):
        increasing(0, 1)(instance, attribute, item)


class MultiCropViews(CropViews):
    """Groups of crops, each with a size, a count and a scale (Caron et al. 2020, section 3.2).

    The views are the crops of the first group, then those of the second, and
    so on. The first ``keys`` views are what targets encode (and what codes are
    computed of); all views are queries, so that small crops predict and are
    never predicted. ``keys = 0`` makes every view a key.

    A setting marked "a value or one for each group" takes both; three groups
    of sizes (none, none, 96) are how DINO gives its two large crops different
    blur. Crops of equal size meet in one backbone call where the encoder's
    ``norm_views`` lets them.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """SwAV's values; see :class:`coview.views.Augmentation`."""

        size: int | float | tuple[int | float | None, ...] | None = setting(  # type: ignore[assignment]
            (None, SMALL_SHARE),
            "pixels a side, a value or one for each group; none: 7/8 of the loader's size, all "
            "of it up to 128; below 1: a share of the first group's (3/7: 96 where it is 224)",
            _each(_pixels_or_share),
        )
        count: int | tuple[int, ...] = setting(
            (2, 6), "crops an image, a value or one for each group", _each(gt(0))
        )
        crop_scale: tuple[float, float] | tuple[tuple[float, float], ...] = setting(  # type: ignore[assignment]
            ((0.14, 1.0), (0.05, 0.14)),
            "share of the image's area that a crop covers, from and to; a pair or one for each "
            "group",
            _each_range,
        )
        blur_p: float | tuple[float, ...] = setting(  # type: ignore[assignment]
            0.5, "probability of Gaussian blur, a value or one for each group", _each(between(0, 1))
        )
        solarize_p: float | tuple[float, ...] = setting(  # type: ignore[assignment]
            0.0,
            "probability of inverting pixels above half, a value or one for each group",
            _each(between(0, 1)),
        )
        keys: int = setting(2, "views, from the first, that targets encode; 0: all", ge(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(augmentations(settings, plan.image_size), plan)
        everyone = self.layout.queries
        keys = everyone[: settings.keys] if settings.keys else everyone
        self.layout = attrs.evolve(self.layout, keys=keys, pairs=positives(everyone, keys))


def augmentations(settings: MultiCropViews.Settings, image_size: int) -> list[Augmentation]:
    """Return the augmentation of every view, group by group.

    Raises:
        RequestError: lists of different lengths.
    """
    values = {name: _grouped(name, getattr(settings, name)) for name in GROUPED}
    lengths = {name: len(value) for name, value in values.items() if value is not None}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"views.{name} has {length}" for name, length in lengths.items())
        raise RequestError(f"multi-crop needs one value for each group of crops, but {listed}.")
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
    """Return a list with a value for each group, or None for one value for all of them."""
    if not isinstance(value, tuple):
        return None
    if name == "crop_scale" and not isinstance(value[0], tuple):
        return None
    return value
