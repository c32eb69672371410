"""The data sets ``moved-digits`` and ``colour-digits``."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from coview.data.assemble import assemble
from coview.data.base import DataSettings, ImageData, Split
from coview.data.splits import digest, hold_out, part
from coview.errors import RequestError
from coview_digits.drawing import SIDE, coloured, moved

DRAWINGS = 3
"""Pictures of each digit."""
SEED = 0
"""Of the drawings; fixed, so that a set is the same everywhere."""


class _Drawn:
    """scikit-learn's 1,797 digits, each drawn three times; split by digit, not by drawing."""

    name: str
    channels: int
    version = 1  # of the drawings: part of the fingerprint

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Take no path: the digits come with scikit-learn."""
        if path is not None:
            raise RequestError(
                f"The data set {self.name} is drawn from scikit-learn's digits and takes no "
                f"path, but {path!r} was given. Write --data {self.name}."
            )

    def native_size(self) -> int:
        """Return 32, the side of a drawing."""
        return SIDE

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Draw all digits; a fixed, stratified share of them is held out, with all drawings."""
        digits = load_digits()
        stored = torch.from_numpy(digits.images / 16)  # values are 0 to 16
        labels = torch.from_numpy(digits.target).long()
        images = self.draw(stored.repeat_interleave(DRAWINGS, 0))
        every = Split(images, labels.repeat_interleave(DRAWINGS))
        share = settings.held_out(True)
        kept, held = (_drawings(r) for r in hold_out(len(labels), labels, share))
        note = (
            f"{len(held)} of {len(images)} images are held out for testing (fixed, stratified): "
            f"all {DRAWINGS} drawings of {len(held) // DRAWINGS} digits."
        )
        return assemble(
            self.name,
            part(every, kept),
            part(every, held) if len(held) else None,
            settings,
            native=SIDE,
            channels=self.channels,
            classes=tuple(map(str, digits.target_names)),
            # Of what is drawn from, and how: pixels may differ by a rounding between processors.
            fingerprint=digest(stored, labels, f"{self.name} {self.version} {share}"),
            notes=(note,),
        )

    def draw(self, digits: Tensor) -> Tensor:
        """(N, 8, 8) float in [0, 1] -> (N, C, 32, 32) uint8."""
        return _bytes(self.paint(digits, np.random.RandomState(SEED)))

    def paint(self, digits: Tensor, random: np.random.RandomState) -> Tensor:
        """(N, 8, 8) float in [0, 1] -> (N, C, 32, 32) float in [0, 1]."""
        raise NotImplementedError


class MovedDigits(_Drawn):
    """Digits at any place, in sizes of 14 to 26 pixels, turned by up to 15 degrees, on black."""

    name, channels = "moved-digits", 1

    def paint(self, digits: Tensor, random: np.random.RandomState) -> Tensor:
        """Draw on black."""
        return moved(digits, random)[:, None]


class ColourDigits(_Drawn):
    """Moved digits, each in one random colour on another: colour tells images apart, not digits."""

    name, channels = "colour-digits", 3

    def paint(self, digits: Tensor, random: np.random.RandomState) -> Tensor:
        """Draw in colour."""
        return coloured(moved(digits, random), random)


def _bytes(pictures: Tensor) -> Tensor:
    return pictures.clamp(0, 1).mul(255).round().to(torch.uint8)


def _drawings(digits: Tensor) -> Tensor:
    """Return the rows of all drawings of these digits, in their order."""
    return (digits[:, None] * DRAWINGS + torch.arange(DRAWINGS)).flatten()
