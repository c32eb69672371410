"""Settings of the standard augmentations, and the chain that they describe."""

from __future__ import annotations

import math
from typing import Any, Self

import attrs
import torch
from torch import Tensor

from coview.errors import nearest
from coview.nn.constants import like
from coview.registry import entries, find
from coview.settings import between, gt, increasing, one_of, setting
from coview.views.backends.fused.fusing import whether_compiled
from coview.views.chain import Chain
from coview.views.operations import (
    LUMA,
    Blur,
    Crop,
    Description,
    Flip,
    Grey,
    Jitter,
    Operation,
    Solarize,
    Standardize,
    ViewBackend,
    jitter_ranges,
)

__all__ = ["LUMA", "OPERATIONS", "Augmentation", "Normalize"]

OPERATIONS = ("crop", "flip", "jitter", "grey", "blur", "solarize")


def _known_backend(instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    names = [entry.name for entry in entries("view_backends")]
    if value.rpartition(":")[2] not in names:
        hint = nearest(value, names)
        raise ValueError(f"'backend' must be one of {', '.join(names)}: {value!r}.{hint}")


def _known_operations(
    instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]
) -> None:
    names = tuple(value)
    if len(set(names)) != len(names) or not set(names) <= set(OPERATIONS):
        raise ValueError(
            f"'order' must name each of {', '.join(OPERATIONS)} at most once, not {names}"
        )


@attrs.frozen
class Augmentation:
    """Settings of the standard chain; derive a class to change the defaults.

    Colour factors follow torchvision's ``ColorJitter``: brightness and contrast
    multiply, hue is a share of the colour circle. ``docs/views.md`` says what the
    backends have in common and where they differ.
    """

    size: int | None = setting(
        None, "view size in pixels; none: 7/8 of the loader's size, or all of it up to 128", gt(0)
    )
    crop_scale: tuple[float, float] = setting(
        (0.08, 1.0), "least and greatest share of the image's area in a crop", increasing(0, 1)
    )
    crop_ratio: tuple[float, float] = setting(
        (0.75, 4 / 3), "least and greatest aspect ratio of a crop", increasing(0.01, 100)
    )
    interpolation: str = setting("bilinear", "resampling of a crop", one_of("bilinear", "bicubic"))
    antialias: bool | None = setting(
        None,
        "filter crops that are shrunk, as Pillow does; none: those of whole images (data.fit)",
    )
    flip_p: float = setting(0.5, "probability of a horizontal flip", between(0, 1))
    jitter: tuple[float, float, float, float] = setting(
        (0.8, 0.8, 0.8, 0.2), "strength of brightness, contrast, saturation (>= 0), hue (<= 0.5)"
    )
    jitter_p: float = setting(0.8, "probability of colour jitter", between(0, 1))
    jitter_order: str = setting(
        "batch",
        "how often the random order of the four is drawn: for each view of a batch, or each sample",
        one_of("batch", "sample"),
    )
    grey_p: float = setting(0.2, "probability of grey-scale", between(0, 1))
    blur_p: float = setting(0.5, "probability of Gaussian blur", between(0, 1))
    blur_sigma: tuple[float, float] = setting(
        (0.1, 2.0), "least and greatest blur: standard deviation in pixels", increasing(1e-3, 100)
    )
    blur_kernel: int | None = setting(
        None, "taps of the blur; none: a tenth of the view's size, made odd", gt(0)
    )
    blur_kind: str = setting(
        "gaussian",
        "gaussian (torchvision's, of blur_kernel taps), or pillow (three box blurs, whose reach "
        "follows from the deviation)",
        one_of("gaussian", "pillow"),
    )
    solarize_p: float = setting(0.0, "probability of inverting pixels above half", between(0, 1))
    normalize: bool = setting(
        True, "subtract the data set's mean and divide by its standard deviation"
    )
    order: tuple[str, ...] = setting(
        OPERATIONS, "order of the operations; those left out are not applied", _known_operations
    )
    backend: str = setting(
        "fused",
        "implementation of the chain: fused (all views at once), kornia (operation by operation), "
        "torchvision (image by image), or one that a package provides",
        _known_backend,
    )
    compile: str = setting(
        "auto",
        "compile the fused chain: on, off, or auto (with --compile, and in long runs if a "
        "compiler is found)",
        one_of("auto", "on", "off"),
    )
    dtype: str = setting(
        "float32",
        "number type of the views",
        one_of("float32", "bfloat16", "float16"),
    )

    def view_size(self, image_size: int) -> int:
        """Return the size in pixels of a view, given the size of the loader's images."""
        return self.size or (image_size if image_size <= 128 else round(image_size * 7 / 8))

    def least_side(self, image_size: int) -> float | None:
        """Return how large images must be for their smallest crop to be no enlargement.

        The side is the square root of the area. None: crops are not cut from images of any
        size, as another operation comes first or the backend cannot.
        """
        before = self.order[: self.order.index("crop")] if "crop" in self.order else None
        able = self._backend().cuts_whole and before in ((), ("flip",))
        if not able or not self.crop_scale[0]:
            return None
        return self.view_size(image_size) / math.sqrt(self.crop_scale[0])

    def fitting(self, fit: str) -> Self:
        """Return these settings for crops of whole images or of squares: antialiased or not."""
        return self if self.antialias is not None else attrs.evolve(self, antialias=fit == "whole")

    def chain(self, size: int, channels: int, normalize: Operation, total_steps: int = 0) -> Chain:
        """Return the chain that makes one view, with the colour operations that the channels allow.

        Args:
            size: pixels per side of the view.
            channels: number of channels of the images.
            normalize: the last operation.
            total_steps: ignored since the run decides whether to compile; plugins for version
                0.1 pass it.

        Raises:
            RequestError: the backend does not support one of the settings.
        """
        descriptions = self.descriptions(size, channels)
        compile = whether_compiled(self.compile)
        dtype = getattr(torch, self.dtype)
        made: Chain = self._backend().chain(descriptions, normalize, compile, dtype)
        return made

    def descriptions(self, size: int, channels: int) -> list[Description]:
        """Return the operations in order, including those of probability 0."""
        made: dict[str, Description | None] = {
            "crop": self._crop(size),
            "flip": Flip(self.flip_p),
            "jitter": self._jitter(channels),
            "grey": Grey(self.grey_p) if channels == 3 else None,
            "blur": self._blur(size),
            "solarize": Solarize(self.solarize_p),
        }
        return [one for name in self.order if (one := made[name]) is not None]

    def _backend(self) -> type[ViewBackend]:
        found: type[ViewBackend] = find("view_backends", self.backend).load()
        return found

    def _crop(self, size: int) -> Crop:
        antialias = bool(self.antialias)
        return Crop(size, self.crop_scale, self.crop_ratio, self.interpolation, antialias)

    def _jitter(self, channels: int) -> Jitter | None:
        if channels not in (1, 3):
            return None
        brightness, contrast, saturation, hue = self.jitter
        if channels == 1:
            saturation = hue = 0.0
        ranges = jitter_ranges((brightness, contrast, saturation, hue))
        return Jitter(ranges, self.jitter_p, order=self.jitter_order)

    def _blur(self, size: int) -> Blur:
        taps = self.blur_kernel or max(3, size // 10)
        return Blur(self.blur_p, self.blur_sigma, taps + 1 - taps % 2, self.blur_kind)


class Normalize:
    """Clamp to [0, 1] (bicubic resampling overshoots), then standardise each channel."""

    batched = True

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], active: bool) -> None:
        self.mean, self.std = (mean, std) if active else ((0.0,) * len(mean), (1.0,) * len(std))

    @property
    def description(self) -> Standardize:
        """The description by which the fused chain replaces this operation."""
        return Standardize(self.mean, self.std)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float, standardised."""
        scale, shift = (like(v, images).view(-1, 1, 1) for v in (self.std, self.mean))
        return (images.clamp(0, 1) - shift) / scale
