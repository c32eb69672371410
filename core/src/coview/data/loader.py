"""Batches: which image is where in an epoch, and its way to the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import torch
from torch import Tensor

from coview.data.bad import TRIES, stand_ins
from coview.data.base import Split
from coview.data.reading import Device, read_batches
from coview.errors import RequestError
from coview.records import Batch


class Batches:
    """The batches of a training, addressed by epoch and position.

    The order of an epoch depends on seed and epoch only, so a training that is
    taken up at any step sees what it would have seen.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        device: Device,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        same_class: bool = False,
    ) -> None:
        """Move images that are in memory to the device.

        Args:
            split: what is trained on.
            batch_size: global: of all processes together.
            seed: the run's.
            device: where batches go.
            workers: processes that decode images that are not in memory.
            rank: number of this process.
            world_size: number of processes.
            same_class: where labels are learned from: an image that cannot be read
                is replaced by one of its class, and goes by that one's index.

        Raises:
            RequestError: a batch is larger than the set, or cannot be shared evenly.
        """
        if not 1 <= batch_size <= len(split):
            raise RequestError(
                f"The batch size must be 1 to {len(split)}, the number of training images: "
                f"{batch_size}."
            )
        if batch_size % world_size:
            raise RequestError(
                f"The batch size must be a multiple of the number of processes, {world_size}: "
                f"{batch_size}."
            )
        self.batch_size, self.steps_per_epoch = batch_size, len(split) // batch_size
        self._count, self._seed, self._device = len(split), seed, torch.device(device)
        self._workers, self._rank, self._world_size = workers, rank, world_size
        resident = split.resident
        self._images = None if resident is None else resident.to(self._device)
        self._split = split
        self._labels = split.labels if same_class else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield this process's rows of each global batch of an epoch from ``start`` on.

        The last images, too few for a batch, are left out.
        """
        rows = self._rows(epoch)[start:]
        indices = rows.to(self._device)
        if self._images is not None:
            for own in indices:
                yield Batch(self._images.index_select(0, own), own)
            return
        batches = read_batches(self._split, rows, self._device, self._workers, self._labels)
        with closing(batches):
            for images, own in zip(batches, indices, strict=True):
                yield Batch(images, own)

    def indices(self, epoch: int, position: int) -> Tensor:
        """Return (global batch,) int64: the images of one step, of all processes."""
        return self._order(epoch)[position].flatten()

    def _rows(self, epoch: int) -> Tensor:
        """Return (steps, own batch) int64: the images of each step."""
        return self._order(epoch)[:, self._rank]

    def _order(self, epoch: int) -> Tensor:
        """Return (steps, processes, own batch) int64."""
        text = f"{self._seed}/{epoch}/order".encode()
        mixed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(mixed))
        if self._labels is not None:
            for row in self._split.bad.faults:
                order[order == row] = self._same(row)
        whole = order[: self.steps_per_epoch * self.batch_size]
        return whole.view(self.steps_per_epoch, self._world_size, -1)

    def _same(self, row: int) -> int:
        """Return the image of the same class that takes a bad one's place."""
        known = self._split.bad.faults
        others = islice(stand_ins(row, self._count, self._labels), len(known) + TRIES)
        return next((other for other in others if other not in known), row)


def images_in_order(
    split: Split, batch_size: int, device: Device, workers: int = 0
) -> Iterator[Tensor]:
    """Yield all images in their order, (up to batch_size, C, S, S) uint8 on the device."""
    device = torch.device(device)
    if split.resident is not None:
        for images in torch.split(split.resident, batch_size):
            yield images.to(device, non_blocking=True)
        return
    rows = torch.split(torch.arange(len(split)), batch_size)
    with closing(read_batches(split, rows, device, workers)) as batches:
        yield from batches
