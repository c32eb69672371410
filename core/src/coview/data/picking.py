"""A few images of a split that show what is in it."""

from __future__ import annotations

import torch
from torch import Tensor

from coview.data.base import Split
from coview.data.splits import evenly_spaced


def evenly(split: Split, most: int) -> Tensor:
    """Return rows (n,) int64 of up to ``most`` images, evenly spaced.

    With labels they are evenly spaced over the classes, and within each; they are in the
    order of their classes.
    """
    if split.labels is None:
        return torch.tensor(evenly_spaced(len(split), most))
    classes = split.labels.unique()
    chosen = classes[evenly_spaced(len(classes), most)].tolist()
    members = [(split.labels == label).nonzero().flatten() for label in chosen]
    shares = _shares([len(rows) for rows in members], most)
    parts = [
        rows[evenly_spaced(len(rows), share)] for rows, share in zip(members, shares, strict=True)
    ]
    return torch.cat(parts)


def _shares(sizes: list[int], most: int) -> list[int]:
    """Return how many of each class to take: as many of each, where there are as many."""
    shares = [0] * len(sizes)
    while sum(shares) < min(most, sum(sizes)):
        for place, size in enumerate(sizes):
            if shares[place] < size and sum(shares) < most:
                shares[place] += 1
    return shares
