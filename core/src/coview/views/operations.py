"""Descriptions of the standard operations: what a backend must do, and with which ranges.

A description holds distributions, and the backend draws from them. All operations
work on images in [0, 1]. Attributes in ``STATIC`` determine what is computed, the
others only what is drawn, so that views that differ only in those are made
together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

Operation = Callable[[Tensor], Tensor]
"""Anything that takes images and returns them changed."""


class ViewBackend:
    """What runs the standard augmentations (group ``coview.view_backends``)."""

    cuts_whole: ClassVar[bool] = False
    """Whether a chain that begins with a crop cuts it from images at their own sizes."""

    @staticmethod
    def chain(
        descriptions: Sequence[Any], last: Any, compile: bool | None, dtype: torch.dtype
    ) -> Any:
        """Return a :class:`coview.views.Chain` of the described operations.

        Args:
            descriptions: in their order (the classes below).
            last: what comes after them, the normalisation.
            compile: whether to compile; None: as the run does.
            dtype: number type of the views.

        Raises:
            RequestError: the backend cannot do one of them.
        """
        raise NotImplementedError


class OwnOperation:
    """What an operation in a chain may declare; a function or a transform declares nothing."""

    batched: bool = False
    """Called with the batch (B, C, H, W), not image by image; it should draw nothing."""

    description: Any = None
    """The standard operation that it is, for the fused backend; None: none of them."""


LUMA = (0.2989, 0.587, 0.114)
"""torchvision's luma weights."""

KORNIA_LUMA = (0.299, 0.587, 0.114)
"""kornia's luma weights; they differ from torchvision's by 1e-4 of the red channel."""

Range = tuple[float, float]


@attrs.frozen
class Crop:
    """A random part of the image, resized to ``size`` pixels per side.

    Area and aspect ratio are drawn as in torchvision: a share of the area, a
    log-uniform ratio, ten tries, then the largest central part of an allowed ratio.
    """

    size: int
    scale: Range
    ratio: Range
    interpolation: str = "bilinear"
    antialias: bool = False
    align_corners: bool = False


@attrs.frozen
class Flip:
    """Mirror horizontally with probability ``p``."""

    p: float


@attrs.frozen
class Jitter:
    """Brightness, contrast, saturation (factors) and hue (turns), in a random order.

    Attributes:
        ranges: smallest and largest value of each of the four.
        p: probability that an image is changed at all.
        luma: weights of the channels in a grey value.
        order: "batch": one order for all images of a view; "sample": one per image.
        fixed: the order, a subset of (0, 1, 2, 3), if it is not random.
    """

    ranges: tuple[Range, Range, Range, Range]
    p: float
    luma: tuple[float, ...] = LUMA
    order: str = "batch"
    fixed: tuple[int, ...] | None = None

    @property
    def by_sample(self) -> bool:
        """Whether each image draws its own order."""
        return self.order == "sample" and self.fixed is None


@attrs.frozen
class Grey:
    """Set every channel to the luma with probability ``p``."""

    p: float
    luma: tuple[float, ...] = LUMA


@attrs.frozen
class Blur:
    """Gaussian blur with probability ``p``.

    Attributes:
        p: probability.
        sigma: least and greatest standard deviation.
        taps: pixels that it spans, reflected at the border; ignored by Pillow's.
        kind: "gaussian"; or "pillow": three box blurs along each axis, with the border
            repeated, as Pillow's ``GaussianBlur`` does.
    """

    p: float
    sigma: Range
    taps: int
    kind: str = "gaussian"


@attrs.frozen
class Solarize:
    """Invert pixels of at least one half with probability ``p``."""

    p: float


@attrs.frozen
class Standardize:
    """Clamp to [0, 1], then subtract the mean and divide by the deviation of each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clamp: bool = True


Description = Crop | Flip | Jitter | Grey | Blur | Solarize | Standardize
DESCRIPTIONS = (Crop, Flip, Jitter, Grey, Blur, Solarize, Standardize)

STATIC: Mapping[type, tuple[str, ...]] = {
    Crop: ("size", "interpolation", "antialias", "align_corners"),
    Flip: (),
    Jitter: ("luma", "order", "fixed"),
    Grey: ("luma",),
    Blur: ("taps", "kind"),
    Solarize: (),
    Standardize: ("mean", "std", "clamp"),
}

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""The factors of brightness, contrast, saturation and hue that change nothing."""


def structure(description: Description) -> tuple[Any, ...]:
    """Return what must be equal for two views to be made together."""
    kind = type(description)
    return (kind, *(getattr(description, name) for name in STATIC[kind]))


def jitter_ranges(strength: tuple[float, float, float, float]) -> tuple[Range, Range, Range, Range]:
    """Return torchvision's ranges: 1 - s (not below 0) to 1 + s, and -h to h for hue."""
    *factors, hue = strength
    brightness, contrast, saturation = ((max(0.0, 1 - s), 1 + s) for s in factors)
    return brightness, contrast, saturation, (-hue, hue)


def is_idle(description: Description) -> bool:
    """Return whether the described operation never changes an image."""
    if isinstance(description, Jitter):
        still = all(r == (n, n) for r, n in zip(description.ranges, NEUTRAL, strict=True))
        return description.p == 0 or still
    return getattr(description, "p", 1.0) == 0


def central_box(ratio: Range, height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the largest central part of an allowed ratio."""
    own = width / height
    if own < min(ratio):
        box = round(width / min(ratio)), width
    elif own > max(ratio):
        box = height, round(height * max(ratio))
    else:
        box = height, width
    return (height - box[0]) // 2, (width - box[1]) // 2, *box


def reach(blur: Blur) -> int:
    """Return how many pixels a blur needs on each side; the weights of others are below 1e-6.

    Of Pillow's kind, it is what each of its three passes needs.
    """
    if blur.kind == "pillow":
        return math.floor((math.sqrt(4 * blur.sigma[1] ** 2 + 1) - 1) / 2) + 1
    return min(blur.taps // 2, math.ceil(5 * blur.sigma[1]))
