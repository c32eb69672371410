from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from coview.data.base import Split
from coview.data.loader import Batches
from coview.data.transfer import _into_buffers, ahead, on_device


def readers() -> int:
    return sum(thread.name == "coview-read-ahead" for thread in threading.enumerate())


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(50)))) == list(range(50))
    assert list(ahead(iter(()))) == [] and readers() == 0


def test_one_is_made_while_the_one_before_is_used() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            made.append(number)
            yield number

    reading = ahead(items())
    next(reading)
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    # One is used, one waits, one is made: no more are held in memory.
    assert made == [0, 1, 2]
    reading.close()
    assert readers() == 0


def test_what_has_no_end_can_be_left() -> None:
    reading = ahead(itertools.count(), depth=2)
    assert [next(reading) for _ in range(5)] == [0, 1, 2, 3, 4]
    reading.close()
    assert readers() == 0


def test_an_error_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the disk is gone")

    reading = ahead(items())
    assert next(reading) == 1
    with pytest.raises(ValueError, match="the disk is gone"):
        next(reading)
    assert readers() == 0


def test_buffers_are_used_by_turns() -> None:
    images = torch.arange(12, dtype=torch.uint8)

    def gather(rows: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
        return torch.index_select(images, 0, rows, out=out)

    rows = list(torch.arange(11).split(2))
    places, seen = [], []
    for batch in _into_buffers(gather, rows, 3):
        places.append(batch.data_ptr())
        seen += batch.tolist()
    assert seen == list(range(11))
    assert len(set(places)) == 3 and places[:3] == places[3:]


def test_on_the_cpu_nothing_is_copied() -> None:
    pairs = [(torch.zeros(2), "a"), (torch.ones(2), "b")]
    for (given, rest), (images, same) in zip(
        pairs, on_device(pairs, torch.device("cpu")), strict=True
    ):
        assert images is given and same == rest


class Gathering:
    """Images in memory that are read as packed ones are."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, rows: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if out is None:
            return self.images[rows]
        return torch.index_select(self.images, 0, rows, out=out)


def test_leaving_an_epoch_ends_its_thread() -> None:
    images = torch.randint(0, 256, (64, 3, 4, 4), dtype=torch.uint8)
    for batch in Batches(Split(Gathering(images)), 8, 0, "cpu").epoch(0):
        assert torch.equal(batch.images, images[batch.indices])
        break
    del batch
    assert readers() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_are_the_same() -> None:
    images = torch.randint(0, 256, (4096, 3, 64, 64), dtype=torch.uint8)
    busy = torch.randn(4096, 4096, device="cuda")
    for batch in Batches(Split(Gathering(images)), 128, 0, "cuda").epoch(0):
        busy = busy @ busy / 64  # the device lags behind: buffers are asked for before it is done
        assert batch.images.is_cuda
        assert torch.equal(batch.images.cpu(), images[batch.indices.cpu()])
