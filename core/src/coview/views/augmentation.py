"""The standard augmentations as settings, and the chain they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import kornia.augmentation as kornia
import torch
from torch import Tensor

from coview.settings import between, gt, increasing, one_of, setting
from coview.views.chain import Chain, Operation

OPERATIONS = ("crop", "flip", "jitter", "grey", "blur", "solarize")
# torchvision's luma weights; kornia's default rounds the first one.
LUMA = (0.2989, 0.587, 0.114)


def _known_operations(
    instance: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]
) -> None:
    names = tuple(value)
    if len(set(names)) != len(names) or not set(names) <= set(OPERATIONS):
        raise ValueError(f"'order' must name each of {', '.join(OPERATIONS)} once at most: {names}")


@attrs.frozen
class Augmentation:
    """Settings of the standard chain; derive yours and change the defaults.

    Colours and factors follow torchvision's ``ColorJitter``: brightness and
    contrast multiply, hue is a share of the colour circle. One order of the
    four is drawn for a batch (torchvision draws one for an image). Crops are
    resampled without antialiasing, as kornia does.
    """

    size: int | None = setting(
        None, "pixels a side of a view; none: 7/8 of the loader's size, all of it up to 128", gt(0)
    )
    crop_scale: tuple[float, float] = setting(
        (0.08, 1.0), "share of the image's area that a crop covers, from and to", increasing(0, 1)
    )
    crop_ratio: tuple[float, float] = setting(
        (0.75, 4 / 3), "aspect ratio of a crop, from and to", increasing(0.01, 100)
    )
    interpolation: str = setting(
        "bilinear", "how a crop is resampled", one_of("bilinear", "bicubic")
    )
    flip_p: float = setting(0.5, "probability of a horizontal flip", between(0, 1))
    jitter: tuple[float, float, float, float] = setting(
        (0.8, 0.8, 0.8, 0.2), "strength of brightness, contrast, saturation (>= 0), hue (<= 0.5)"
    )
    jitter_p: float = setting(0.8, "probability of colour jitter", between(0, 1))
    grey_p: float = setting(0.2, "probability of grey-scale", between(0, 1))
    blur_p: float = setting(0.5, "probability of Gaussian blur", between(0, 1))
    blur_sigma: tuple[float, float] = setting(
        (0.1, 2.0), "standard deviation of the blur in pixels, from and to", increasing(1e-3, 100)
    )
    blur_kernel: int | None = setting(
        None, "taps of the blur; none: a tenth of the view's size, made odd", gt(0)
    )
    solarize_p: float = setting(0.0, "probability of inverting pixels above half", between(0, 1))
    normalize: bool = setting(True, "subtract the data set's mean and divide by its deviation")
    order: tuple[str, ...] = setting(
        OPERATIONS, "the order of the operations; one left out is not done", _known_operations
    )

    def view_size(self, image_size: int) -> int:
        """Return pixels a side of a view of the loader's images."""
        return self.size or (image_size if image_size <= 128 else round(image_size * 7 / 8))

    def chain(self, size: int, channels: int, normalize: Operation) -> Chain:
        """Return the chain that makes one view, colour operations as the channels allow."""
        makers: dict[str, Callable[[], Operation | None]] = {
            "crop": lambda: self._crop(size),
            "flip": lambda: kornia.RandomHorizontalFlip(p=self.flip_p),
            "jitter": lambda: self._jitter(channels),
            "grey": lambda: self._grey(channels),
            "blur": lambda: self._blur(size),
            "solarize": self._solarize,
        }
        made = (makers[name]() for name in self.order)
        return Chain([*(operation for operation in made if operation is not None), normalize])

    def _crop(self, size: int) -> Operation:
        return kornia.RandomResizedCrop(
            (size, size),
            scale=self.crop_scale,
            ratio=self.crop_ratio,
            resample=self.interpolation,
            align_corners=False,
        )

    def _jitter(self, channels: int) -> Operation | None:
        if self.jitter_p == 0 or not any(self.jitter) or channels not in (1, 3):
            return None
        brightness, contrast, saturation, hue = self.jitter
        if channels == 1:
            saturation = hue = 0.0
        return kornia.ColorJitter(brightness, contrast, saturation, hue, p=self.jitter_p)

    def _grey(self, channels: int) -> Operation | None:
        if self.grey_p == 0 or channels != 3:
            return None
        return kornia.RandomGrayscale(rgb_weights=torch.tensor(LUMA), p=self.grey_p)

    def _blur(self, size: int) -> Operation | None:
        if self.blur_p == 0:
            return None
        taps = self.blur_kernel or max(3, size // 10)
        taps += 1 - taps % 2
        return kornia.RandomGaussianBlur((taps, taps), self.blur_sigma, p=self.blur_p)

    def _solarize(self) -> Operation | None:
        if self.solarize_p == 0:
            return None
        # kornia's ranges are centred on one half and on zero; zero width leaves those alone.
        return kornia.RandomSolarize(thresholds=0.0, additions=0.0, p=self.solarize_p)


class Normalize:
    """Clamp to [0, 1] (bicubic resampling overshoots), then standardise each channel."""

    batched = True

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], active: bool) -> None:
        self.mean, self.std = (mean, std) if active else ((0.0,) * len(mean), (1.0,) * len(std))

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float to the same, standardised."""
        scale = images.new_tensor(self.std).view(-1, 1, 1)
        shift = images.new_tensor(self.mean).view(-1, 1, 1)
        return (images.clamp(0, 1) - shift) / scale
