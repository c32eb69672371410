"""Small colour images cut from photographs that scikit-image and scikit-learn bring along."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SKIMAGE = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry")
SKIMAGE_TOO = ("retina", "rocket")
SKLEARN = ("china", "flower")
SIDE, SMALLEST, CELL = 64, 64, 96
"""Pixels of an image, and of the smallest and the largest square that is cut."""
EVERY = 4
"""A cell of so many is for testing: no pixel is in images of both parts."""


def write(folder: Path, train: int = 260, test: int = 60, seed: int = 0) -> None:
    """Write ``train/CLASS/N.png`` and ``test/CLASS/N.png``; a class is a photograph.

    Args:
        folder: where to; made if it is missing.
        train, test: images of each photograph.
        seed: of the places and sizes of what is cut.
    """
    generator = np.random.default_rng(seed)
    for name, pixels in photographs():
        height, width = (length // CELL for length in pixels.shape[:2])
        cells = [divmod(number, width) for number in range(height * width)]
        for split, count in (("train", train), ("test", test)):
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            own = [cell for cell in cells if (sum(cell) % EVERY == 0) == (split == "test")]
            for number in range(count):
                top, left = (CELL * at for at in own[generator.integers(len(own))])
                area = pixels[top : top + CELL, left : left + CELL]
                cut(area, generator).save(place / f"{number:03}.png")


def photographs() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield names and pixels, (height, width, 3)."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    for name in (*SKIMAGE, *SKIMAGE_TOO):
        yield name.split("_")[0], getattr(data, name)()
    for name in SKLEARN:
        yield name, load_sample_image(f"{name}.jpg")


def cut(area: NDArray[np.uint8], generator: np.random.Generator) -> Image.Image:
    """Return a square of any place and size, made small."""
    side = int(generator.integers(SMALLEST, CELL + 1))
    top, left = (int(start) for start in generator.integers(0, CELL - side + 1, 2))
    square = Image.fromarray(area[top : top + side, left : left + side])
    return square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
