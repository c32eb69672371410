"""Drawing a digit: at a place, a size and an angle of its own, and in colour."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Pixels per side of a drawing."""
SIZES = (14.0, 26.0)
"""Smallest and largest digit, in pixels per side of its own square."""
ANGLE = 15.0
"""Largest rotation to either side, in degrees."""
CONTRAST = 0.4
"""Smallest distance of a digit's colour from its background's, where black to white is 1."""


def moved(digits: Tensor, random: np.random.RandomState) -> Tensor:
    """Draw each digit once, anywhere that its ink stays within the picture, on black.

    Args:
        digits: (N, 8, 8) float in [0, 1].
        random: draws size, angle and place, each uniformly.

    Returns:
        (N, 32, 32) float in [0, 1].
    """
    count = len(digits)
    scale = random.uniform(*SIZES, count) / SIDE
    angle = np.deg2rad(random.uniform(-ANGLE, ANGLE, count))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = scale[:, None, None] * np.stack([cos, -sin, sin, cos], 1).reshape(count, 2, 2)
    corners = turned @ _corners(digits)  # of the ink, about the picture's middle
    lowest, highest = -1 - corners.min(2), 1 - corners.max(2)
    place = lowest + (highest - lowest) * random.uniform(size=(count, 2))
    # For each pixel of the picture, the place in the digit that is seen there.
    back = np.linalg.inv(turned)
    seen = np.concatenate([back, -back @ place[:, :, None]], 2)
    grid = F.affine_grid(torch.from_numpy(seen).float(), [count, 1, SIDE, SIDE], False)
    # Cubic enlargement first: sampled from 8 pixels, strokes would show their pixels.
    large = F.interpolate(digits[:, None].float(), SIDE, mode="bicubic", align_corners=False)
    return F.grid_sample(large.clamp(0, 1), grid, align_corners=False)[:, 0]


def _corners(digits: Tensor) -> np.ndarray:
    """Return the corners (N, 2, 4), x above y, of the box of each digit's ink, in [-1, 1]."""
    inked = digits.numpy() > 0
    boxes = []
    for across in (inked.any(1), inked.any(2)):
        side = across.shape[1]
        first, last = across.argmax(1), side - across[:, ::-1].argmax(1)
        boxes.append(np.stack([first, last], 1) * 2 / side - 1)
    x, y = boxes
    return np.stack([x[:, [0, 1, 0, 1]], y[:, [0, 0, 1, 1]]], 1)


def coloured(shapes: Tensor, random: np.random.RandomState) -> Tensor:
    """Paint each shape in one random colour on another, never too alike to be seen.

    Args:
        shapes: (N, H, W) float in [0, 1]: how much of the digit covers a pixel.
        random: draws the colours, uniformly in RGB.

    Returns:
        (N, 3, H, W) float in [0, 1].
    """
    count = len(shapes)
    front, back = random.uniform(size=(count, 3)), random.uniform(size=(count, 3))
    while (alike := _distance(front, back) < CONTRAST).any():
        front[alike] = random.uniform(size=(int(alike.sum()), 3))
    digit, ground = (torch.from_numpy(c).float()[:, :, None, None] for c in (front, back))
    return ground + (digit - ground) * shapes[:, None]


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first - second, axis=1) / math.sqrt(3)
