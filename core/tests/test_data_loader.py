from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.base import Split
from coview.data.loader import Batches, images_in_order, shuffled
from coview.errors import CoviewError, RequestError


@attrs.frozen(eq=False)
class Lazy(Dataset[Tensor]):
    images: Tensor
    broken: int = -1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        if row == self.broken:
            raise CoviewError(f"The image number {row} is broken.")
        return self.images[row]


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def batches(count: int = 23, size: int = 4, **options: Any) -> Batches:
    split = options.pop("split", None) or Split(numbered(count))
    return Batches(split, size, **{"seed": 0, "device": "cpu"} | options)


def order(loader: Batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch.indices.tolist() for batch in loader.epoch(epoch, start)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_shows_each_image_at_most_once(
    count: int, size: int, seed: int, epoch: int
) -> None:
    size = min(size, count)
    loader = batches(count, size, seed=seed)
    seen = order(loader, epoch)
    assert len(seen) == loader.steps_per_epoch == count // size
    assert {len(rows) for rows in seen} == {size}
    flat = [row for rows in seen for row in rows]
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(count))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6), st.integers(0, 9))
def test_resuming_gives_the_rest(start: int, epoch: int) -> None:
    assert order(batches(), epoch, start) == order(batches(), epoch)[start:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_every_global_batch(world_size: int) -> None:
    whole = order(batches(25, 6), 3)
    ranks = [
        order(batches(25, 6, rank=rank, world_size=world_size), 3) for rank in range(world_size)
    ]
    joined = [[row for part in parts for row in part] for parts in zip(*ranks, strict=True)]
    assert joined == whole


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    orders = {str(order(batches(seed=seed), epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    torch.manual_seed(5)
    loader = batches(seed=2)
    order(loader, 0), torch.rand(2)
    assert order(loader, 1) == order(batches(seed=2), 1)


def test_every_image_is_left_out_now_and_then() -> None:
    seen = {row for epoch in range(20) for rows in order(batches(), epoch) for row in rows}
    assert seen == set(range(23))


@pytest.mark.parametrize("lazy", [False, True])
def test_images_are_those_of_the_indices(lazy: bool) -> None:
    images = torch.randint(0, 256, (23, 3, 4, 4), dtype=torch.uint8)
    split = Split(Lazy(images) if lazy else images)
    for batch in batches(split=split, rank=1, world_size=2).epoch(0):
        assert batch.images.shape == (2, 3, 4, 4) and batch.images.dtype == torch.uint8
        assert batch.indices.dtype == torch.int64
        assert torch.equal(batch.images, images[batch.indices])


def test_workers_give_the_same_batches() -> None:
    split = Split(Lazy(numbered(23)))
    here = list(batches(split=split).epoch(1, start=2))
    there = list(batches(split=split, workers=2).epoch(1, start=2))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_one_sentence(workers: int) -> None:
    split = Split(Lazy(numbered(8), broken=5))
    with pytest.raises(CoviewError, match=r"^The image number 5 is broken\.$"):
        list(batches(split=split, workers=workers).epoch(0))
    with pytest.raises(CoviewError, match=r"^The image number 5 is broken\.$"):
        list(images_in_order(split, 3, "cpu", workers))


@pytest.mark.parametrize("lazy", [False, True])
def test_the_global_random_state_is_left_alone(lazy: bool) -> None:
    split = Split(Lazy(numbered(8)) if lazy else numbered(8))
    before = torch.get_rng_state()
    list(batches(split=split).epoch(0)), list(images_in_order(split, 3, "cpu"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [0, 24])
def test_a_batch_size_that_cannot_be(size: int) -> None:
    with pytest.raises(RequestError, match=rf"between 1 and 23 \(.*images\), not {size}\."):
        batches(size=size)


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(RequestError, match=r"multiple of 3 \(the number of .*\), not 4\."):
        batches(world_size=3)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_order_keeps_the_last(lazy: bool, workers: int) -> None:
    split = Split(Lazy(numbered(7)) if lazy else numbered(7))
    parts = list(images_in_order(split, 3, torch.device("cpu"), workers))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.cat(parts)[:, 0, 0, 0].tolist() == list(range(7))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("lazy", [False, True])
def test_on_a_gpu(lazy: bool) -> None:
    split = Split(Lazy(numbered(23)) if lazy else numbered(23))
    here, there = (
        list(batches(split=split, device=d, workers=1).epoch(0)) for d in ("cpu", "cuda")
    )
    for a, b in zip(here, there, strict=True):
        assert b.images.is_cuda and b.indices.is_cuda
        assert torch.equal(a.images, b.images.cpu()) and torch.equal(a.indices, b.indices.cpu())
    assert all(part.is_cuda for part in images_in_order(split, 3, "cuda"))


@pytest.mark.parametrize("within", [1, 7, 60, 1000])
def test_an_image_hardly_leaves_its_place(within: int) -> None:
    order = shuffled(60, torch.Generator().manual_seed(1), within)
    assert sorted(order.tolist()) == list(range(60))
    if within < 60:
        assert (order - torch.arange(60)).abs().max() < within
        later = torch.tensor([order[place:].min() for place in range(60)])
        # What is still to come is never more than a window behind what was shown.
        assert all(later[p] > order[: p + 1].max() - within - 1 for p in range(59))
