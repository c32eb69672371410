"""Batches: the order of images in an epoch, and their way to the device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coview.data.bad_images import TRIES, Fault, Readable, stacked, stand_ins
from coview.data.base import Split
from coview.data.gpu_jpeg import Contents, decoded, files_of, torchvisions
from coview.data.items import begin_epoch
from coview.data.transfer import ahead, gathered, on_device, sent
from coview.data.whole import Buffer, Pixels, collated, together
from coview.errors import CoviewError, RequestError
from coview.records import Batch
from coview.seeds import derived_seed

Device = torch.device | str


@attrs.frozen(eq=False)
class _Whole(Dataset[Any]):
    """Gives the batch at a list of indices; returns an error instead of raising it.

    An exception raised in a worker would reach the user with the worker's
    traceback as its message; a returned one arrives unchanged.
    """

    data: Any
    collate: Callable[[list[Any]], Any]

    def __getitem__(self, rows: Sequence[int]) -> Any:
        try:
            return self.collate([self.data[row] for row in rows])
        except CoviewError as error:
            return error


def fetched(
    data: Any,
    batches: Sequence[Sequence[int]],
    workers: int,
    collate: Callable[[list[Any]], Any] = torch.stack,
    pin_memory: bool = False,
    prefetch: int | None = None,
) -> Iterator[Any]:
    """Yield the collated items of each list of indices, in order.

    Args:
        data: map-style data set.
        batches: the indices of each batch.
        workers: number of reading processes; 0: this process reads.
        collate: makes a batch of a list of items.
        pin_memory: put batches into pinned memory, which a GPU copies while it works.
        prefetch: lists that each process works on ahead; None: two.

    Raises:
        CoviewError: an item could not be read.
    """
    loader: DataLoader[Any] = DataLoader(
        _Whole(data, collate),
        # Each "sample" is a whole batch, so that workers do the batching.
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        # Without its own generator it would draw from, and so change, the global random state.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, CoviewError):
            raise batch
        yield batch


def read_batches(
    split: Split,
    batches: Iterable[Tensor],
    device: Device = "cpu",
    workers: int = 0,
    labels: Tensor | None = None,
) -> Generator[Tensor, None, None]:
    """Yield the images of each list of rows, uint8 on the device.

    Other images take the place of unreadable ones, which ``split.bad`` lists by
    the time their batch is yielded.

    Args:
        split: the images.
        batches: (B,) int64 rows each, on the CPU.
        device: where the images go.
        workers: number of processes that decode images not in memory.
        labels: (N,) labels of the split; if given, stand-ins are of the same class.

    Raises:
        CoviewError: too many images cannot be read, or one and the policy is to stop.
    """
    place = torch.device(device)
    for images, faults in on_device(_with_faults(split, batches, place, workers, labels), place):
        split.bad.add(faults, len(split))
        yield images


def _with_faults(
    split: Split,
    batches: Iterable[Tensor],
    device: torch.device,
    workers: int,
    labels: Tensor | None,
) -> Iterator[tuple[Tensor, list[Fault]]]:
    if split.resident is not None:
        return ((split.resident[rows], []) for rows in batches)
    if hasattr(split.images, "gather"):
        return ((images, []) for images in gathered(split.images, list(batches), device))
    files, decoder = files_of(split.images), torchvisions()
    if files is not None and decoder is not None and device.type == "cuda" and labels is None:
        lists = [rows.tolist() for rows in batches]
        contents = fetched(Contents(split.images), lists, workers, list)
        return decoded(split.images, files, zip(lists, contents, strict=True), device, decoder)
    return fetched(
        Readable(split.images, labels),
        [rows.tolist() for rows in batches],
        workers,
        stacked,
        pin_memory=device.type == "cuda",
    )


def read_whole(
    split: Split, batches: Sequence[Tensor], device: Device = "cpu", workers: int = 0
) -> Generator[Pixels, None, None]:
    """Yield the images of each list of rows at their own sizes, the pixels on the device.

    Each process decodes a part of a batch, so that together they hold one batch beside
    the one that is in use. Unreadable images: see :func:`read_batches`.

    Args:
        split: has images at their own sizes.
        batches: (B,) int64 rows each, on the CPU.
        device: where the pixels go.
        workers: number of processes that decode images.
    """
    place = torch.device(device)
    parts = min(max(1, workers), min(map(len, batches), default=1))
    lists = [part.tolist() for rows in batches for part in rows.tensor_split(parts)]
    read = fetched(Readable(split.whole), lists, workers, collated, prefetch=1)
    joined = _joined(split, read, parts, place.type == "cuda")
    if place.type == "cuda":
        joined = ahead(joined)
    yield from on_device(joined, place)


def _joined(split: Split, parts: Iterator[Any], count: int, pin_memory: bool) -> Iterator[Pixels]:
    """Yield the pixels and extents of every ``count`` parts together; record their faults."""
    while True:
        some: list[Pixels] = []
        for pixels, extents, faults in islice(parts, count):
            split.bad.add(faults, len(split))
            some.append((pixels, extents))
        if not some:
            return
        yield together(some, pin_memory)


class Batches:
    """The batches of a training run, addressed by epoch and position.

    The order within an epoch depends only on the seed and the epoch, so a run
    resumed at any step sees the batches that it would have seen.
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
        fields: Sequence[str] = (),
        whole: bool = False,
    ) -> None:
        """Move images that are in memory to the device.

        Args:
            split: the images to train on.
            batch_size: images per batch, over all processes.
            seed: the run's seed.
            device: where batches go.
            workers: number of processes that decode images not in memory.
            rank: number of this process.
            world_size: number of processes.
            same_class: for learning with labels: an unreadable image is replaced by
                one of its class (or of the same classes), and the batch gives that one's index.
            fields: names of the split's fields that batches have.
            whole: give images at their own sizes, if the split has them.

        Raises:
            RequestError: a batch is larger than the split, or the processes cannot
                share it evenly.
        """
        if not 1 <= batch_size <= len(split):
            raise RequestError(
                f"The batch size must be between 1 and {len(split)} (the number of training "
                f"images), not {batch_size}."
            )
        if batch_size % world_size:
            raise RequestError(
                f"The batch size must be a multiple of {world_size} (the number of processes), "
                f"not {batch_size}."
            )
        self.batch_size, self.steps_per_epoch = batch_size, len(split) // batch_size
        self._count, self._seed, self._device = len(split), seed, torch.device(device)
        self._workers, self._rank, self._world_size = workers, rank, world_size
        self._whole = split.whole if whole else None
        resident = split.resident if self._whole is None else None
        if isinstance(self._whole, Buffer):
            resident = self._whole.pixels
        self._images = None if resident is None else resident.to(self._device)
        self._split = split
        self._labels = _alike(split) if same_class else None
        self._fields = {name: _on(split.field(name), self._device) for name in fields}

    @property
    def resident_bytes(self) -> int:
        """Bytes of the images that lie on the device all the time."""
        return 0 if self._images is None else self._images.nbytes

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield this process's part of each global batch of an epoch, from batch ``start`` on.

        The last images, too few for a batch, are left out.
        """
        rows = self._rows(epoch)[start:]
        indices = rows.to(self._device)
        if isinstance(self._whole, Buffer) and self._images is not None:
            for own, at in zip(indices, rows, strict=True):
                yield Batch(self._images, own, self._of(at), self._whole.extents[at])
            return
        if self._images is not None:
            for own, at in zip(indices, rows, strict=True):
                yield Batch(self._images.index_select(0, own), own, self._of(at))
            return
        if self._whole is not None:
            with closing(read_whole(self._split, list(rows), self._device, self._workers)) as parts:
                for (pixels, extents), own, at in zip(parts, indices, rows, strict=True):
                    yield Batch(pixels, own, self._of(at), extents)
            return
        begin_epoch(self._split.images, derived_seed(self._seed, epoch, "items"))
        batches = read_batches(self._split, rows, self._device, self._workers, self._labels)
        with closing(batches):
            for images, own, at in zip(batches, indices, rows, strict=True):
                yield Batch(images, own, self._of(at))

    def indices(self, epoch: int, position: int) -> Tensor:
        """Return (global batch,) int64: the images of one step, over all processes."""
        return self._order(epoch)[position].flatten()

    def _rows(self, epoch: int) -> Tensor:
        """Return (steps, own batch) int64: this process's images of each step."""
        return self._order(epoch)[:, self._rank]

    def _order(self, epoch: int) -> Tensor:
        """Return (steps, processes, own batch) int64."""
        mixed = derived_seed(self._seed, epoch, "order")
        generator = torch.Generator().manual_seed(mixed)
        # Images that come one after another, a stream, are shuffled within so many places.
        within = getattr(self._split.images, "shuffled_within", None)
        order = shuffled(self._count, generator, within)
        if self._labels is not None:
            for row in self._split.bad.faults:
                order[order == row] = self._instead(row)
        whole = order[: self.steps_per_epoch * self.batch_size]
        return whole.view(self.steps_per_epoch, self._world_size, -1)

    def _of(self, rows: Tensor) -> dict[str, Any]:
        """Return the fields of the images at ``rows``, or of those that stand in for them."""
        if not self._fields:
            return {}
        if self._split.bad.faults:
            rows = torch.tensor([self._shown(row) for row in rows.tolist()])
        places = sent(rows, self._device)
        return {
            name: values.index_select(0, places)
            if isinstance(values, Tensor)
            else [values[row] for row in rows.tolist()]
            for name, values in self._fields.items()
        }

    def _shown(self, row: int) -> int:
        """Return the image that is shown for image ``row``: itself, or the stand-in."""
        return self._instead(row) if row in self._split.bad.faults else row

    def _instead(self, row: int) -> int:
        """Return the image that replaces a bad one: of its class, if batches are by class."""
        known = self._split.bad.faults
        others = islice(stand_ins(row, self._count, self._labels), len(known) + TRIES)
        return next((other for other in others if other not in known), row)


def shuffled(count: int, generator: torch.Generator, within: int | None = None) -> Tensor:
    """Return an order of (count,) images, of which none is ``within`` or more places too early."""
    if within is None or within >= count:
        return torch.randperm(count, generator=generator)
    moved = torch.rand(count, generator=generator, dtype=torch.float64) * within
    return (torch.arange(count) + moved).argsort()


def _alike(split: Split) -> Tensor | None:
    """Return a number for each image, (N,) int64, that images of the same classes share."""
    if split.multi_hot is None:
        return split.labels
    numbers: Tensor = split.multi_hot.unique(dim=0, return_inverse=True)[1]
    return numbers


def _on(values: Any, device: torch.device) -> Any:
    return values.to(device) if isinstance(values, Tensor) else values


def images_in_order(
    split: Split, batch_size: int, device: Device, workers: int = 0
) -> Iterator[Tensor]:
    """Yield all images in order, (up to batch_size, C, S, S) uint8 on the device."""
    device = torch.device(device)
    if split.resident is not None:
        for images in torch.split(split.resident, batch_size):
            yield images.to(device, non_blocking=True)
        return
    rows = torch.split(torch.arange(len(split)), batch_size)
    with closing(read_batches(split, rows, device, workers)) as batches:
        yield from batches
