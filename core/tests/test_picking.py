"""A few images that show what is in a split."""

from __future__ import annotations

import torch

from coview.data.base import Split
from coview.data.picking import evenly


def split(labels: list[int] | None, count: int = 20) -> Split:
    images = torch.zeros(count if labels is None else len(labels), 1, 4, 4, dtype=torch.uint8)
    return Split(images, None if labels is None else torch.tensor(labels))


def test_without_labels_they_are_evenly_spaced() -> None:
    assert evenly(split(None, 21), 3).tolist() == [0, 10, 20]
    assert evenly(split(None, 2), 8).tolist() == [0, 1]


def test_with_labels_they_are_of_as_many_classes() -> None:
    labels = [0] * 90 + [1] * 2 + [2] * 40
    rows = evenly(split(labels), 6)
    assert torch.tensor(labels)[rows].tolist() == [0, 0, 1, 1, 2, 2]
    assert rows.tolist() == [0, 89, 90, 91, 92, 131], "spread over each class"
    rows = evenly(split(labels), 9)
    assert torch.tensor(labels)[rows].bincount().tolist() == [4, 2, 3], "a small class has no more"
    assert len(evenly(split(labels), 500)) == len(labels)


def test_fewer_than_classes_are_spread_over_them() -> None:
    labels = [number // 3 for number in range(30)]
    assert torch.tensor(labels)[evenly(split(labels), 4)].tolist() == [0, 3, 6, 9]
