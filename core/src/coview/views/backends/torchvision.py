"""The standard chain by torchvision, image by image, as in the papers' code: the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision.transforms.v2 as tv
from PIL import ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from coview.errors import RequestError
from coview.views.chain import Chain, refuse_other_types
from coview.views.operations import (
    LUMA,
    Blur,
    Crop,
    Description,
    Flip,
    Grey,
    Jitter,
    Solarize,
    ViewBackend,
    is_idle,
)


class TorchvisionBackend(ViewBackend):
    """torchvision's transforms, image by image."""

    @staticmethod
    def chain(
        descriptions: Sequence[Any], last: Any, compile: bool | None, dtype: torch.dtype
    ) -> Chain:
        """Return the chain; operations of probability 0 are left out."""
        refuse_other_types("torchvision", dtype)
        return Chain([as_torchvision([one for one in descriptions if not is_idle(one)]), last])


def as_torchvision(descriptions: Sequence[Description]) -> Callable[[Tensor], Tensor]:
    """Return one transform of an image (C, H, W) in [0, 1]; each image draws its colour order."""
    return tv.Compose([step for one in descriptions for step in _steps(one)])


def _steps(description: Description) -> list[Any]:
    if getattr(description, "luma", LUMA) != LUMA or getattr(description, "fixed", None):
        raise RequestError(
            "torchvision uses its own luma weights and draws its own order of colour operations."
        )
    makers: dict[type, Callable[[Any], list[Any]]] = {
        Crop: _crop,
        Flip: lambda d: [tv.RandomHorizontalFlip(d.p)],
        Jitter: lambda d: [tv.RandomApply([tv.ColorJitter(*d.ranges)], d.p)],
        Grey: lambda d: [tv.RandomGrayscale(d.p)],
        Blur: lambda d: [tv.RandomApply([_blur(d)], d.p)],
        Solarize: lambda d: [tv.RandomSolarize(0.5, d.p)],
    }
    return makers[type(description)](description)


def _crop(crop: Crop) -> list[Any]:
    mode = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
    cropped = tv.RandomResizedCrop(
        crop.size, crop.scale, crop.ratio, mode[crop.interpolation], antialias=crop.antialias
    )
    # 8-bit images cannot overshoot; these can.
    clamp = [tv.Lambda(_clamped)] if crop.interpolation == "bicubic" else []
    return [cropped, *clamp]


def _blur(blur: Blur) -> Callable[[Tensor], Tensor]:
    if blur.kind == "gaussian":
        made: Callable[[Tensor], Tensor] = tv.GaussianBlur(blur.taps, blur.sigma)
        return made

    def by_pillow(image: Tensor) -> Tensor:
        low, high = blur.sigma
        sigma = low + (high - low) * float(torch.rand(()))
        blurred = tvf.to_pil_image(image).filter(ImageFilter.GaussianBlur(sigma))
        return tvf.pil_to_tensor(blurred).to(image) / 255

    return tv.Lambda(by_pillow)


def _clamped(image: Tensor) -> Tensor:
    return image.clamp(0, 1)
