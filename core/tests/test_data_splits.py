from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coview.data.base import Split
from coview.data.splits import SAMPLED, digest, evenly_spaced, hold_out, part, statistics

CLASS_LISTS = st.lists(st.integers(0, 6), min_size=2, max_size=120)
SHARES = st.floats(0.01, 0.9)


@settings(max_examples=200, deadline=None)
@given(CLASS_LISTS, SHARES)
def test_hold_out_is_a_stratified_partition(classes: list[int], share: float) -> None:
    labels = torch.tensor(classes)
    kept, held = hold_out(len(labels), labels, share)
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist()) and held.tolist() == sorted(held.tolist())
    wanted = max(1, round(len(labels) * share)) / len(labels)
    for label in labels.unique():
        count, out = int((labels == label).sum()), int((labels[held] == label).sum())
        assert abs(out - wanted * count) <= 1 + 1e-9 or out == count - 1
        assert out < count, "a class must keep an image for training"


@settings(max_examples=50, deadline=None)
@given(CLASS_LISTS, SHARES)
def test_hold_out_is_fixed(classes: list[int], share: float) -> None:
    labels = torch.tensor(classes)
    torch.manual_seed(len(classes))
    first = hold_out(len(labels), labels, share)
    torch.rand(3), np.random.rand(3)
    again = hold_out(len(labels), labels, share)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_hold_out_stays_what_it_was() -> None:
    # Numbers measured on the old split would no longer compare if this changed.
    assert hold_out(12, None, 0.25)[1].tolist() == HELD_UNLABELLED
    assert hold_out(12, torch.arange(12) % 3, 0.25)[1].tolist() == HELD_LABELLED


HELD_UNLABELLED = [0, 1, 4]
HELD_LABELLED = [1, 3, 8]


@pytest.mark.parametrize("labelled", [True, False])
def test_hold_out_has_the_share(labelled: bool) -> None:
    labels = torch.arange(1000) % 7 if labelled else None
    kept, held = hold_out(1000, labels, 0.2)
    assert (len(kept), len(held)) == (800, 200)
    # Shuffled: neither a block nor every fifth.
    assert held.diff().unique().numel() > 3
    assert 350 < held.float().mean() < 650


def test_classes_of_one_image_stay_in_training() -> None:
    labels = torch.cat([torch.zeros(20), torch.arange(1, 30)]).long()
    _, held = hold_out(len(labels), labels, 0.5)
    assert len(held) and labels[held].unique().tolist() == [0]
    assert hold_out(5, torch.arange(5), 0.5)[1].numel() == 0


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 1), (3, 1)])
def test_tiny_sets(count: int, held: int) -> None:
    kept, out = hold_out(count, None, 0.01)
    assert (len(kept), len(out)) == (count - held, held)


def test_hold_out_leaves_global_random_states_alone() -> None:
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    hold_out(50, torch.arange(50) % 2, 0.2)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpys == np.random.get_state()[1]).all()


def test_part_takes_labels_and_names_along() -> None:
    split = Split(torch.arange(4).view(4, 1, 1, 1), torch.arange(4) + 10, tuple("abcd"))
    some = part(split, torch.tensor([3, 1]))
    assert some.images.flatten().tolist() == [3, 1]
    assert some.labels.tolist() == [13, 11] and some.names == ("d", "b")


@pytest.mark.parametrize(("count", "most"), [(1, 5), (5, 5), (7, 3), (10_000, 2000)])
def test_evenly_spaced(count: int, most: int) -> None:
    rows = evenly_spaced(count, most)
    assert len(rows) == len(set(rows)) == min(count, most)
    assert rows[0] == 0 and (rows[-1] == count - 1)
    assert max(np.diff(rows), default=0) - min(np.diff(rows), default=0) <= 1


def test_statistics_are_those_of_all_pixels() -> None:
    images = torch.randint(0, 256, (50, 3, 5, 5), dtype=torch.uint8)
    images[:, 1] //= 4
    mean, std = statistics(Split(images))
    pixels = images.double().transpose(0, 1).flatten(1) / 255
    assert mean == pytest.approx(pixels.mean(1).tolist())
    assert std == pytest.approx(pixels.std(1, correction=0).tolist())


def test_a_constant_channel_has_deviation_1() -> None:
    images = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    mean, std = statistics(Split(images))
    assert mean == pytest.approx((0.2,)) and std == (1.0,)


class Counting:
    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> torch.Tensor:
        self.asked.append(row)
        return torch.zeros(1, 1, 1, dtype=torch.uint8)


def test_statistics_look_at_a_sample() -> None:
    images = Counting(3 * SAMPLED)
    statistics(Split(images))  # type: ignore[arg-type]
    assert len(images.asked) == SAMPLED and images.asked[-1] == 3 * SAMPLED - 1


def test_digest_sees_content_shape_and_order() -> None:
    a = torch.arange(6, dtype=torch.uint8)
    parts = [(a,), (a.flip(0),), (a.view(2, 3),), (a.view(3, 2),), (a, a), (a, None), ("a", "b"),
             ("ab",), ("b", "a"), ("\udcff",), (a.view(2, 3).t(),)]  # fmt: skip
    assert len({digest(*p) for p in parts}) == len(parts)
    assert digest(a, "x") == digest(a.clone(), "x") and len(digest(a)) == 32
