"""Conversion of descriptions to kornia's augmentations, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import kornia.augmentation as kornia
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.views.chain import Chain, refuse_other_types
from coview.views.operations import (
    KORNIA_LUMA,
    NEUTRAL,
    Blur,
    Crop,
    Description,
    Flip,
    Grey,
    Jitter,
    Range,
    Solarize,
    ViewBackend,
    is_idle,
)

Operation = Callable[[Tensor], Tensor]


class Clamp:
    """Clamp to [0, 1], as 8-bit images are: bicubic resampling overshoots."""

    batched = True

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), clamped."""
        return images.clamp(0, 1)


class KorniaBackend(ViewBackend):
    """kornia's augmentations, operation by operation."""

    @staticmethod
    def chain(
        descriptions: Sequence[Any], last: Any, compile: bool | None, dtype: torch.dtype
    ) -> Chain:
        """Return the chain; operations of probability 0 are left out."""
        refuse_other_types("kornia", dtype)
        active = [one for one in descriptions if not is_idle(one)]
        return Chain([*(made for one in active for made in as_kornia(one)), last])


def as_kornia(description: Description) -> list[Operation]:
    """Return kornia's augmentations for a description.

    Raises:
        RequestError: kornia has no equivalent.
    """
    makers: dict[type, Callable[[Any], Operation]] = {
        Crop: _crop,
        Flip: lambda d: kornia.RandomHorizontalFlip(p=d.p),
        Jitter: _jitter,
        Grey: lambda d: kornia.RandomGrayscale(rgb_weights=torch.tensor(d.luma), p=d.p),
        # Gaussian, whichever kind was asked for: Pillow's blur approximates that.
        Blur: lambda d: kornia.RandomGaussianBlur((d.taps, d.taps), d.sigma, p=d.p),
        # Ranges around one half and around zero; of width 0, so nothing is drawn.
        Solarize: lambda d: kornia.RandomSolarize(thresholds=0.0, additions=0.0, p=d.p),
    }
    made = [makers[type(description)](description)]
    bicubic = isinstance(description, Crop) and description.interpolation == "bicubic"
    return [*made, Clamp()] if bicubic else made


def _crop(crop: Crop) -> Operation:
    if crop.antialias:
        raise RequestError(
            "kornia resizes crops without antialiasing: remove views.antialias, or use "
            "views.backend = fused or torchvision."
        )
    return kornia.RandomResizedCrop(
        (crop.size, crop.size),
        scale=crop.scale,
        ratio=crop.ratio,
        resample=crop.interpolation,
        align_corners=crop.align_corners,
    )


def _jitter(jitter: Jitter) -> Operation:
    if jitter.order != "batch":
        raise RequestError(
            "kornia draws one order of colour operations per batch: remove views.jitter_order, "
            "or use views.backend = fused."
        )
    return kornia.ColorJitter(*jitter.ranges, p=jitter.p, order=jitter.fixed)


def flat(modules: Iterable[Operation]) -> Iterator[Operation]:
    """Yield the parts of kornia's and torch's sequences that run them one after the other."""
    for module in modules:
        plain = type(module) is nn.Sequential
        if type(module) is kornia.ImageSequential and not module.random_apply:
            plain = not module.same_on_batch and not module.keepdim
        if plain:
            assert isinstance(module, nn.Module)
            yield from flat(module.children())
        else:
            yield module


def described(module: Any) -> Description | None:
    """Return the description of one of kornia's augmentations of RGB images, or None.

    An augmentation of another class, or with an option that descriptions lack, has
    none: kornia itself runs it.
    """
    readers: dict[type, Callable[[Any], Description | None]] = {
        kornia.RandomResizedCrop: _read_crop,
        kornia.RandomHorizontalFlip: lambda m: Flip(m.p),
        kornia.ColorJitter: _read_jitter,
        kornia.RandomGrayscale: _read_grey,
        kornia.RandomGaussianBlur: _read_blur,
        kornia.RandomSolarize: _read_solarize,
    }
    if type(module) not in readers or module.keepdim:
        return None
    # The crop's p applies to the whole batch, the others' to each image.
    by_image = type(module) is not kornia.RandomResizedCrop
    if module.same_on_batch or (module.p_batch if by_image else module.p) != 1:
        return None
    return readers[type(module)](module)


def _read_crop(module: Any) -> Description | None:
    flags, drawn = module.flags, module._param_generator
    height, width = flags["size"]
    kind = flags["resample"].name.lower()
    odd = kind not in ("bilinear", "bicubic") or flags["cropping_mode"] != "slice"
    if odd or height != width or height < 2 or module.p_batch != 1:
        return None
    scale, ratio = _pair(drawn.scale), _pair(drawn.ratio)
    return Crop(height, scale, ratio, kind, align_corners=flags["align_corners"])


def _read_jitter(module: Any) -> Description | None:
    names = ("brightness", "contrast", "saturation", "hue")
    brightness, contrast, saturation, hue = (
        _range(getattr(module, name), neutral) for name, neutral in zip(names, NEUTRAL, strict=True)
    )
    ranges = (brightness, contrast, saturation, hue)
    return Jitter(ranges, module.p, KORNIA_LUMA, fixed=module._fixed_order)


def _read_grey(module: Any) -> Description | None:
    own = module.rgb_weights
    return Grey(module.p, KORNIA_LUMA if own is None else tuple(map(float, own)))


def _read_blur(module: Any) -> Description | None:
    flags = module.flags
    size = flags["kernel_size"]
    height, width = (size, size) if isinstance(size, int) else size
    reflected = flags["border_type"].name.lower() == "reflect"
    if height != width or height % 2 == 0 or not reflected:
        return None
    return Blur(module.p, _pair(module._param_generator.sigma), height)


def _read_solarize(module: Any) -> Description | None:
    (threshold, *_), (addition, *_) = module._param_generator.samplers
    halves = _range(threshold, 0.5) == (0.5, 0.5) and _range(addition, 0.0) == (0.0, 0.0)
    return Solarize(module.p) if halves else None


def _pair(values: Any) -> Range:
    low, high = (float(value) for value in values)
    return low, high


def _range(value: Any, centre: float) -> Range:
    """Read kornia's ranges: a pair, or a half-width around a centre."""
    if isinstance(value, (tuple, list)) or (isinstance(value, Tensor) and value.ndim):
        return _pair(value)
    low = centre - float(value)
    return (max(0.0, low) if centre else low), centre + float(value)
