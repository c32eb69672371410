"""Which images keep their labels: 1 %, 10 %, or so many a class, fixed by a seed."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from coview.errors import RequestError


def labelled_subset(labels: Tensor, wanted: str, seed: int) -> Tensor:
    """Return ascending indices (n,) of the images that keep their labels.

    Every class keeps its share, rounded, and at least one image. The same
    labels, request and seed give the same images, and a larger share of the
    same seed includes a smaller one.

    Args:
        labels: (N,) int64.
        wanted: ``"1%"`` (any share), or ``"5-per-class"`` (any number; a
            smaller class keeps all it has).
        seed: of the choice.

    Raises:
        RequestError: ``wanted`` says neither.
    """
    share, number = _parse(wanted)
    # NumPy promises never to change the stream of RandomState; torch does not.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    classes = labels.numpy()[shuffled]
    kept = []
    for label in np.unique(classes):
        members = shuffled[classes == label]
        count = number if number is not None else max(1, round(share * len(members)))
        kept.append(members[:count])
    return torch.from_numpy(np.sort(np.concatenate(kept)))


def _parse(wanted: str) -> tuple[float, int | None]:
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", wanted):
        share = float(found[1]) / 100
        if 0 < share <= 1:
            return share, None
    if (found := re.fullmatch(r"(\d+)-per-class", wanted)) and int(found[1]) > 0:
        return 1.0, int(found[1])
    raise RequestError(
        f"--labels must be a share above 0 % and up to 100 %, like 1%, or a number like "
        f"5-per-class: {wanted!r}"
    )
