"""How fast batches come: resident, packed and decoded, beside `DataLoader`s of torch.

    python benchmarks/data.py

Every entrant gives uint8 batches in a random order, each image once; what differs is how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from coview.data.base import DataSettings, Split
from coview.data.decode import Files
from coview.data.loader import Batches
from coview.data.sources.pack import Mapped

ROUNDS = 15
COUNT, SIDE, BATCH = 50_000, 32, 256
LARGE, LARGE_SIDE, LARGE_BATCH = 1024, 256, 64
PHOTOS = 128


def drained(batches: Iterable[Any]) -> int:
    """Take every batch; look at one byte of each, so that none is left unread."""
    seen = 0
    for batch in batches:
        images = batch.images if hasattr(batch, "images") else batch[0]
        seen += len(images)
        images[-1, -1, -1, -1].item()
    return seen


def ours(images: Tensor | Dataset[Tensor], batch_size: int, workers: int = 0) -> Callable[[], int]:
    """An epoch of coview's batches, another one each time."""
    batches = Batches(Split(images), batch_size, 0, "cpu", workers)
    epoch = 0

    def go() -> int:
        nonlocal epoch
        epoch += 1
        return drained(batches.epoch(epoch))

    return go


def theirs(data: Dataset[Any], batch_size: int) -> Callable[[], int]:
    """An epoch of a `DataLoader`'s."""
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
    return lambda: drained(loader)


class FromArray(Dataset[Any]):
    """What one would write for a mapped array."""

    def __init__(self, path: Path) -> None:
        self.values = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> tuple[Tensor]:
        return (torch.from_numpy(self.values[row].copy()),)


def measured(name: str, entrants: side_by_side.Entrants, images: int) -> dict[str, Any]:
    """Alternate the entrants; print and return rates and ratios to the first."""
    seconds = side_by_side.alternate(entrants, ROUNDS)
    peer, *others = entrants
    rates = {who: images / sorted(times)[len(times) // 2] for who, times in seconds.items()}
    ratios = [side_by_side.compared(seconds, who, peer) for who in others]
    print(name, {who: f"{rate:,.0f} images/s" for who, rate in rates.items()})
    for ratio in ratios:
        print(
            f"  time of {ratio['of']} over {ratio['to']}: {ratio['median']} {ratio['interval_95']}"
        )
    return {"images_per_second": rates, "ratios": ratios, "seconds": seconds}


def photographs(folder: Path) -> tuple[str, ...]:
    """Write JPEG files of 500 x 375 pixels, smooth as photographs are."""
    random = np.random.RandomState(0)
    (folder / "all").mkdir()
    paths = []
    for number in range(PHOTOS):
        coarse = Image.fromarray(random.randint(0, 256, (24, 32, 3), np.uint8))
        path = folder / "all" / f"{number:04}.jpg"
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return tuple(paths)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    document: dict[str, Any] = {**side_by_side.facts(ROUNDS), "batch": BATCH}
    images = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    document["resident"] = measured(
        f"{COUNT} x 3 x {SIDE} x {SIDE} in memory",
        {
            "DataLoader(TensorDataset)": theirs(TensorDataset(images), BATCH),
            "coview": ours(images, BATCH),
        },
        COUNT // BATCH * BATCH,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = (LARGE, 3, LARGE_SIDE, LARGE_SIDE)
        packed = folder / "train.images.npy"
        np.save(packed, np.random.RandomState(0).randint(0, 256, shape, np.uint8))
        document["packed"] = measured(
            f"{LARGE} x 3 x {LARGE_SIDE} x {LARGE_SIDE} mapped, in the page cache",
            {
                "DataLoader(memmap)": theirs(FromArray(packed), LARGE_BATCH),
                "coview": ours(Mapped(str(packed), shape), LARGE_BATCH),
            },
            LARGE,
        )
        (folder / "photos").mkdir()
        paths = photographs(folder / "photos")
        usual = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(256), v2.PILToTensor()])
        document["jpeg"] = measured(
            f"{PHOTOS} JPEG files of 500 x 375 at 256, one process",
            {
                "DataLoader(ImageFolder)": theirs(
                    ImageFolder(str(folder / "photos"), usual), LARGE_BATCH
                ),
                "coview": ours(Files(paths, 256, 3), LARGE_BATCH),
            },
            PHOTOS,
        )
    assert DataSettings().resident_mib >= COUNT * 3 * SIDE**2 >> 20, (
        "this set would not be resident"
    )
    print(side_by_side.write("data", document))


if __name__ == "__main__":
    side_by_side.steady_allocator()
    main()
