"""How fast batches come: resident, packed and decoded, beside torch's `DataLoader`.

Every entrant gives uint8 batches in a random order, each image once; what differs is how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks import engine, runner

BATCH = {"resident": 256, "packed": 64, "jpeg": 64}
OPTIONS = {"rounds": 15, "rows": BATCH, "steady": True}


def main(asked: runner.Asked) -> None:
    def measure(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            peer, theirs, ours, count = ROWS[name](Path(folder))
            entrants = {peer: loader(theirs, BATCH[name]), "coview": epochs(ours, BATCH[name])}
            seconds = runner.alternate(entrants, asked.rounds)
        rates = {who: count / median for who, median in runner.medians(seconds).items()}
        ratios = runner.beside(seconds, "coview")
        return {name: {"images_per_second": rates, "ratios": ratios, "seconds": seconds}}

    runner.rows(asked, {"batch": BATCH["resident"]}, measure)


def resident(folder: Path) -> tuple[str, Dataset[Any], Any, int]:
    """Images of 32 pixels in memory."""
    images = engine.images(50_000)
    mib = images.numel() >> 20
    assert engine.DataSettings().resident_mib >= mib, "this set would not be resident"
    count = len(images) // BATCH["resident"] * BATCH["resident"]  # the rest is left out
    return "DataLoader(TensorDataset)", TensorDataset(images), images, count


def packed(folder: Path) -> tuple[str, Dataset[Any], Any, int]:
    """Images of 256 pixels in a mapped file, in the page cache."""
    path, shape = folder / "train.images.npy", (1024, 3, 256, 256)
    np.save(path, np.random.RandomState(0).randint(0, 256, shape, np.uint8))
    return "DataLoader(memmap)", FromArray(path), engine.Mapped(str(path), shape), shape[0]


def jpeg(folder: Path) -> tuple[str, Dataset[Any], Any, int]:
    """JPEG files of 500 x 375 pixels, smooth as photographs are, at 256, in one process."""
    random, paths = np.random.RandomState(0), []
    (folder / "all").mkdir()
    for number in range(128):
        coarse = Image.fromarray(random.randint(0, 256, (24, 32, 3), np.uint8))
        paths.append(str(folder / "all" / f"{number:04}.jpg"))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    usual = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(256), v2.PILToTensor()])
    theirs = ImageFolder(str(folder), usual)
    return "DataLoader(ImageFolder)", theirs, engine.Files(tuple(paths), 256, 3), len(paths)


ROWS = {"resident": resident, "packed": packed, "jpeg": jpeg}


def epochs(images: Tensor | Dataset[Tensor], batch_size: int) -> Callable[[], int]:
    """An epoch of coview's batches, another one each time."""
    batches = engine.Batches(engine.Split(images), batch_size, 0, "cpu", 0)
    numbers = iter(range(1, 10**9))
    return lambda: drained(batches.epoch(next(numbers)))


def loader(data: Dataset[Any], batch_size: int) -> Callable[[], int]:
    """An epoch of a `DataLoader`'s."""
    batches = DataLoader(data, batch_size, shuffle=True, drop_last=True)
    return lambda: drained(batches)


def drained(batches: Iterable[Any]) -> int:
    """Take every batch; look at one byte of each, so that none is left unread."""
    seen = 0
    for batch in batches:
        images = batch.images if hasattr(batch, "images") else batch[0]
        seen += len(images)
        images[-1, -1, -1, -1].item()
    return seen


class FromArray(Dataset[Any]):
    """What one would write for a mapped array."""

    def __init__(self, path: Path) -> None:
        self.values = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> tuple[Tensor]:
        return (torch.from_numpy(self.values[row].copy()),)
