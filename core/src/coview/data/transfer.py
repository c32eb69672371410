"""Batches on their way to the device: a thread reads ahead, and copies overlap computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
PAUSE = 0.1


def ahead(items: Iterator[Item], depth: int = 1) -> Iterator[Item]:
    """Yield items that a thread makes while the caller works on earlier ones.

    An error in the thread is raised here when its item is due. Closing this
    iterator ends the thread.
    """
    queue: Queue[tuple[str, Any]] = Queue(depth)
    closed = Event()

    def put(kind: str, value: Any) -> None:
        while not closed.is_set():
            try:
                return queue.put((kind, value), timeout=PAUSE)
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if closed.is_set():
                    return
        except BaseException as error:
            put("error", error)
        else:
            put("end", None)

    thread = Thread(target=work, name="coview-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        closed.set()
        while thread.is_alive():
            try:
                queue.get(timeout=PAUSE / 10)  # makes room, so that a waiting thread can end
            except Empty:
                continue
        thread.join()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device, without waiting for what that has to do.

    It goes through pinned memory, which the device reads by itself.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def gathered(
    images: Any, batches: Sequence[Tensor], device: torch.device, depth: int = 1
) -> Iterator[Tensor]:
    """Yield the images of each list of rows, read ahead by a thread.

    Args:
        images: has ``gather(rows, out)``, see :class:`coview.data.sources.pack.Packed`.
        batches: (B,) int64 each.
        device: the device; for CUDA, batches share a few pinned buffers in turn.
            :func:`on_device` waits for a copy before its buffer is written again.
        depth: number of batches read ahead.
    """
    if device.type != "cuda":
        yield from ahead((images.gather(rows, None) for rows in batches), depth)
        return
    yield from ahead(_into_buffers(images.gather, batches, depth + 3), depth)


def _into_buffers(
    gather: Callable[[Tensor, Tensor | None], Tensor], batches: Iterable[Tensor], count: int
) -> Iterator[Tensor]:
    """Yield batches in pinned memory: two being copied, some waiting, one being filled."""
    buffers: list[Tensor] = []
    for number, rows in enumerate(batches):
        if len(buffers) < count:
            first = gather(rows, None)
            buffers.append(torch.empty_like(first, pin_memory=torch.cuda.is_available()))
        place = buffers[number % count][: len(rows)]
        yield gather(rows, place)


def on_device(batches: Iterable[tuple[Tensor, Any]], device: torch.device) -> Iterator[Any]:
    """Yield the pairs with their images on the device.

    On CUDA images are copied on a separate stream while the caller works on the
    batch before. A copy is complete before the next pair but one is requested, so
    that its source memory can be reused from then on.
    """
    if device.type != "cuda":
        for images, rest in batches:
            yield images.to(device), rest
        return
    stream = torch.cuda.Stream(device)
    before: tuple[Tensor, Any, torch.cuda.Event] | None = None
    for images, rest in batches:
        with torch.cuda.stream(stream):
            copied = images.to(device, non_blocking=True)
            done = torch.cuda.Event()
            done.record(stream)
        if before is not None:
            yield _arrived(*before)
            before[2].synchronize()  # issued a step ago: done by now, unless copying is too slow
        before = (copied, rest, done)
    if before is not None:
        yield _arrived(*before)


def _arrived(images: Tensor, rest: Any, done: torch.cuda.Event) -> tuple[Tensor, Any]:
    current = torch.cuda.current_stream(images.device)
    current.wait_event(done)
    # The memory belongs to the copying stream: it must not be reused while this stream reads it.
    images.record_stream(current)
    return images, rest
