"""Items of a user's data set: which part is the image, and whether it changes from call to call."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from coview.seeds import derived_seed, generators_kept, seed_generators

READS = 3
"""How often each sampled item is read: a flip of one in two is missed by 8 items in 2e-5 cases."""


@attrs.frozen
class Item:
    """An item of a data set, taken apart.

    Attributes:
        image: the image, or the first of several views of it.
        label: the label, or None.
        views: number of views of the image that the item holds; 1: the image itself.
    """

    image: Any
    label: Any
    views: int = 1

    @classmethod
    def of(cls, item: Any) -> Item:
        """Take apart an image, ``(image, label, ...)``, ``[view, view]`` or ``([...], label)``."""
        if not isinstance(item, (tuple, list)) or not len(item):
            return cls(item, None)
        first, label = item[0], item[1] if len(item) > 1 else None
        if isinstance(first, (tuple, list)) and len(first) and _is_image(first[0]):
            return cls(first[0], label, len(first))
        if len(item) > 1 and all(_is_image(part) for part in item):
            return cls(first, None, len(item))
        return cls(first, label)


def _is_image(thing: Any) -> bool:
    return isinstance(thing, Image.Image) or (
        isinstance(thing, (Tensor, np.ndarray)) and thing.ndim >= 2
    )


def without_transform(data: Any) -> tuple[Any, Any] | None:
    """Return a copy of a data set without its ``transform``, and the transform.

    None if it has none, or gives no single image without it.
    """
    transform = vars(data).get("transform") if hasattr(data, "__dict__") else None
    if not callable(transform):
        return None
    plain = copy.copy(data)
    plain.transform = None
    if "transforms" in vars(plain):
        plain.transforms = None  # torchvision's pair of this one and that of the labels
    try:
        item = Item.of(plain[0])
    except Exception:  # it cannot do without its transform
        return None
    return (plain, transform) if item.views == 1 and _is_image(item.image) else None


def changes(images: Dataset[Tensor], rows: Sequence[int]) -> bool:
    """Whether any of these images differs when it is read again."""
    with generators_kept():
        for row in rows:
            first = images[row]
            if any(not torch.equal(first, images[row]) for _ in range(READS - 1)):
                return True
    return False


@attrs.define(eq=False)
class Changing(Dataset[Tensor]):
    """Images that change from call to call, such that an epoch's seed decides what they are.

    They do as far as they draw from the global generators of Python, NumPy and torch.
    """

    images: Any
    seed: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        with generators_kept():
            seed_generators(derived_seed(self.seed, index, "item"))
            image: Tensor = self.images[index]
        return image

    def begin(self, seed: int) -> None:
        """Begin an epoch."""
        self.seed = seed


def begin_epoch(images: Any, seed: int) -> None:
    """Give images that change from call to call an epoch's seed; others need none."""
    while not isinstance(images, Changing) and hasattr(images, "dataset"):
        images = images.dataset
    if isinstance(images, Changing):
        images.begin(seed)
