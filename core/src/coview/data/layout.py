"""Images and labels in the layouts that people have them in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coview.data.decode import pixels
from coview.errors import RequestError

GREY_MODES = ("1", "L", "LA", "La", "I", "F")


def one_image(item: Any) -> Tensor:
    """Return the image of a data set's item as (1 or 3, H, W) uint8."""
    image = item[0] if isinstance(item, (tuple, list)) and len(item) else item
    if isinstance(image, Image.Image):
        try:
            return pixels(image, 1 if image.mode.startswith(GREY_MODES) else 3)
        except ValueError as error:
            raise RequestError(f"An image cannot be used: {error}.") from error
    if isinstance(image, (Tensor, np.ndarray)):
        return as_images(image[None])[0]
    raise RequestError(
        f"An item must be an image (tensor, array or PIL image), or a tuple that begins with "
        f"(image, label): the image is {type(image).__name__}."
    )


def as_images(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return images in any accepted layout as (N, 1 or 3, H, W) uint8.

    Where both readings are possible the channels of a tensor come first, those
    of an array last, as is the custom of either.
    """
    images = _as_tensor(values)
    if images.ndim == 3:
        images = images[:, None]
    first, last = (images.ndim == 4 and images.shape[d] in (1, 3) for d in (1, 3))
    if not (first or last) or 0 in images.shape[1:]:
        raise RequestError(
            f"Images must be of shape (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 "
            f"channels: {tuple(values.shape)}."
        )
    if last and not (first and isinstance(values, Tensor)):
        images = images.permute(0, 3, 1, 2)
    return _to_bytes(images).contiguous()


def _as_tensor(values: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        # torch takes neither negative strides nor, without a warning, read-only memory.
        return torch.from_numpy(np.require(values, requirements=("C", "W")))
    except (TypeError, ValueError) as error:
        raise RequestError(f"Images must be uint8 or float: these are {values.dtype}.") from error


def _to_bytes(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise RequestError(f"Images must be uint8, or float in [0, 1]: these are {kind}.")
    low, high = (images.min().item(), images.max().item()) if len(images) else (0, 0)
    # Written so that NaN is refused.
    if not 0 <= low <= high <= 1:
        raise RequestError(f"Float images must be in [0, 1]: these run from {low:g} to {high:g}.")
    return (images * 255).round().to(torch.uint8)


def numbered(
    labels: Iterable[Any], count: int, names: Any = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Number labels from 0 by their order.

    Args:
        labels: whole numbers from 0 or texts, one an image.
        count: of the images.
        names: of the classes, by label, if known.

    Returns:
        (count,) int64, and the name of each class.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (count,):
        raise RequestError(f"There must be one label an image, {count}: {values.shape}.")
    if values.dtype.kind not in "iubU" or (values.dtype.kind == "i" and (values < 0).any()):
        raise RequestError(
            "Labels must be whole numbers from 0, or texts; leave them out if there are none."
        )
    found, numbers = np.unique(values, return_inverse=True)
    named = names is not None and found.dtype.kind in "iu" and found[-1] < len(names)
    return torch.from_numpy(numbers).long(), tuple(str(names[v] if named else v) for v in found)
