"""What the values in a file mean: which become black and white, and what lies behind alpha.

Values of more than 8 bits have a range, which is a property of the whole set:
it is given (``data.range``) or taken from a sample, and never guessed file by
file, as then equal values would become different greys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

import attrs
import numpy as np
from PIL import ImageColor

from coview.errors import RequestError
from coview.recipes.tables import EARLIER, DataSettings

Values = np.ndarray[Any, Any]
PERCENTILES = (0.1, 99.9)
FILLED = 4
"""A range is taken as it is if a sample fills a quarter of it: 64 of the 256 greys."""
SAMPLED = 1 << 16
"""Values looked at in each image of a sample."""
MEANING = ("background", "orientation", "range")
"""The attributes that decide which pixels a file becomes."""


@attrs.frozen
class Reading:
    """How files become pixels.

    Attributes:
        background: a colour, or ``"drop"``: see :class:`coview.recipes.tables.DataSettings`.
        orientation: ``"apply"`` or ``"ignore"``.
        range: ``"dtype"`` or ``"LOW,HIGH"``; ``"auto"`` if no image of the sample told.
        max_pixels: largest image.
    """

    background: str = "white"
    orientation: str = "apply"
    range: str = "dtype"
    max_pixels: int = DataSettings().max_pixels

    @classmethod
    def of(cls, settings: DataSettings) -> Reading:
        """Return what the settings say, before any image is looked at.

        Raises:
            RequestError: the background is no colour.
        """
        made = cls(settings.background, settings.orientation, settings.range, settings.max_pixels)
        made.colour  # noqa: B018  # refuses unknown names
        made.window  # noqa: B018
        return made

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """The background's red, green and blue; None: alpha is dropped."""
        return None if self.background == "drop" else _colour(self.background)

    @property
    def window(self) -> tuple[float, float] | None:
        """The values that become black and white; None: the type decides."""
        return _window(self.range) if "," in self.range else None

    def plain(self) -> dict[str, str]:
        """Return what decides the pixels, as plain values: for packs, runs and weights."""
        return {name: getattr(self, name) for name in MEANING}


@cache
def _colour(name: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise RequestError(
            f"data.background must be drop, a colour's name or #RRGGBB, not {name!r}."
        ) from None


@cache
def _window(text: str) -> tuple[float, float]:
    low, high = map(float, text.split(","))
    if low >= high:
        raise RequestError(f"data.range must be LOW,HIGH with LOW below HIGH, not {text!r}.")
    return low, high


def recorded(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what was recorded by :meth:`Reading.plain`; None: by a version without it."""
    return {name: str((EARLIER if values is None else values)[name]) for name in MEANING}


def eight_bits(values: Values, reading: Reading | None = None) -> Values:
    """Return values as uint8; those that are uint8 stay as they are.

    Args:
        values: whole numbers or floats of any shape.
        reading: its range applies, and values beyond it are cut off; ``"dtype"``,
            and None: whole numbers are from 0 to 65535, floats from 0 to 1.

    Raises:
        ValueError: values are not numbers, or outside the range of their type.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "biuf":
        raise ValueError(f"its values are {values.dtype}, not numbers that a pixel can have")
    low, high = float(values.min()), float(values.max())
    window = None if reading is None else reading.window
    if window is None or values.dtype.kind == "b":
        top = natural(values.dtype)
        if reading is not None and reading.range == "auto" and _dark(low, high, top):
            raise ValueError(
                f"its values run from {low:g} to {high:g}, and the images that were sampled have "
                f"8 bits; --set data.range={low:g},{high:g} or measure or dtype says what they mean"
            )
        # Written so that NaN is refused.
        if not 0 <= low <= high <= top:
            raise ValueError(
                f"its values run from {low:g} to {high:g}, not within 0 to {top}; to use them: "
                f"--set data.range=LOW,HIGH"
            )
        window = (0, top)
    if not low <= high:
        raise ValueError("some of its values are not numbers (NaN)")
    return _scaled(values, *window)


def natural(dtype: np.dtype[Any]) -> int:
    """Return the value of a type that is white."""
    return 65535 if dtype.kind in "iu" else 1


def _dark(low: float, high: float, top: int) -> bool:
    """Return whether values fill too little of 0 to ``top``, or lie outside."""
    return high > low and not (low >= 0 and top / FILLED <= high <= top)


def _scaled(values: Values, low: float, high: float) -> Values:
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2:
        # Looked up: images are large, and floats of them eight times as large.
        numbers = np.arange(1 << 16).astype(np.uint16)
        table = _scaled(numbers.view(values.dtype.newbyteorder("=")).astype(np.float64), low, high)
        return table[values.astype(values.dtype.newbyteorder("="), copy=False).view(np.uint16)]
    part = (values.astype(np.float64) - low) * (255 / (high - low))
    return part.round().clip(0, 255).astype(np.uint8)


def settled(
    settings: DataSettings, sample: Callable[[], Iterable[Values]]
) -> tuple[Reading, tuple[str, ...]]:
    """Return how a set is read, once its range is known, and a sentence if it was measured.

    Args:
        settings: the user's settings.
        sample: gives the values of images of more than 8 bits, if there are any.
    """
    reading = Reading.of(settings)
    if reading.range not in ("auto", "measure"):
        return reading, ()
    parts = [part for part in islice(sample(), 64) if part.size]
    if not parts:
        return reading, ()
    values = np.concatenate([*_thinned(parts)])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    tops = {natural(part.dtype) for part in parts}
    if low == high or (reading.range == "auto" and not all(_dark(low, high, top) for top in tops)):
        return attrs.evolve(reading, range="dtype"), ()
    black, white = np.percentile(values, PERCENTILES)
    if black == white:
        black, white = low, high
    chosen = f"{black:g},{white:g}"
    return attrs.evolve(reading, range=chosen), (
        f"Values of {len(parts)} sampled images of more than 8 bits run from {low:g} to {high:g}; "
        f"{black:g} becomes black and {white:g} white ({PERCENTILES[0]} % and {PERCENTILES[1]} % "
        f"of them). To choose: --set data.range=LOW,HIGH",
    )


def _thinned(parts: Iterable[Values]) -> Iterator[Values]:
    for part in parts:
        flat = part.reshape(-1)
        yield flat[:: max(1, flat.size // SAMPLED)].astype(np.float64)
