"""Images by lists of their numbers: from memory, from worker processes, or from a pack."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coview.data.bad import Fault, Readable, stacked
from coview.data.base import Split
from coview.data.gpu_jpeg import Contents, decoded, files_of, torchvisions
from coview.data.transfer import gathered, on_device
from coview.errors import CoviewError

Device = torch.device | str


@attrs.frozen(eq=False)
class _Whole(Dataset[Any]):
    """Gives the batch at a list of indices; a failure is handed back as a value.

    An exception raised in a worker reaches the user with the worker's
    traceback as its message; a value comes through as it is.
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
) -> Iterator[Any]:
    """Yield the collated items of each list of indices, in order.

    Args:
        data: map-style data set.
        batches: its indices, by batch.
        workers: processes that read; 0: this one.
        collate: makes a batch of a list of items.
        pin_memory: put batches where a GPU can fetch them while it works.

    Raises:
        CoviewError: an item could not be read.
    """
    loader: DataLoader[Any] = DataLoader(
        _Whole(data, collate),
        # Each "sample" is a whole batch: batching is done, in the worker.
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        # Without one of its own it would draw from, and so change, the global random state.
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

    Images that cannot be read have others in their places; ``split.bad`` knows
    of them when their batch is yielded.

    Args:
        split: the images.
        batches: (B,) int64 each, on the CPU.
        device: where they go.
        workers: processes that decode images that are not in memory.
        labels: (N,) of the split: let images of the same class stand in.

    Raises:
        CoviewError: too many images cannot be read, or one where that is to stop.
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
