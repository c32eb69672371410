"""How fast batches come: resident, packed and decoded, beside torch's `DataLoader`."""

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks import engine, runner
from benchmarks.revisions import Entrant, commit, sources

BATCH = {"resident": 256, "packed": 64, "jpeg": 64}
OPTIONS = {"rounds": 15, "rows": BATCH, "other": "", "steady": True}
EPOCHS = {"resident": 20, "packed": 10, "jpeg": 2}  # a round of two revisions, some 0.2 seconds
Row = tuple[Dataset[Any], Any, int]
# By the sources and the benchmarks of its own revision.
CODE = """
import itertools, sys
from pathlib import Path
from benchmarks import data, engine
name, folder = sys.argv[1], Path(sys.argv[2])
images = data.ROWS[name](folder)[1]
batches = engine.Batches(engine.Split(images), data.BATCH[name], 0, "cpu", 0)
epochs = itertools.count(1)
once = lambda: data.drained(batches.epoch(next(epochs)))
"""


def main(asked: runner.Asked) -> None:
    """Measure beside torch, or with ``--other`` beside another revision's reading."""
    if asked.other:
        return beside(asked, commit(asked.other))

    def measure(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            theirs, images, count = ROWS[name](Path(folder))
            loader = DataLoader(theirs, BATCH[name], shuffle=True, drop_last=True)
            batches = engine.Batches(engine.Split(images), BATCH[name], 0, "cpu", 0)
            epochs = iter(range(1, 10**9))
            peer = f"DataLoader({type(theirs).__name__})"
            ours = lambda: drained(batches.epoch(next(epochs)))  # noqa: E731
            found = runner.turns({"coview": ours, peer: lambda: drained(loader)}, asked.rounds)
        rates = {who: count / median for who, median in found["median_s"].items()}
        return {name: {"images_per_second": rates, **found}}

    runner.rows(asked, {"batch": BATCH["resident"]}, measure)


def beside(asked: runner.Asked, revision: str) -> None:
    """Read the same images by this revision and by another, in processes that take turns."""

    def measure(name: str) -> dict[str, Any]:
        with ExitStack() as stack:
            entrants = {}
            for who, root in {"now": runner.ROOT, revision: before}.items():
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                entrant = Entrant(root, CODE, (name, folder), EPOCHS[name])
                entrants[who] = stack.enter_context(entrant)
            return {name: runner.turns(entrants, asked.rounds)}

    with sources(revision) as before:
        about = {"epochs a round": EPOCHS, "revisions": [commit("HEAD"), revision]}
        runner.rows(asked, about, measure, name="data-before")


def drained(batches: Iterable[Any]) -> None:
    """Take every batch; look at one byte of each, so that none is left unread."""
    for batch in batches:
        images = batch.images if hasattr(batch, "images") else batch[0]
        images[-1, -1, -1, -1].item()


def resident(folder: Path) -> Row:
    """Images of 32 pixels in memory."""
    images = engine.images(50_000)
    mib = images.numel() >> 20
    assert engine.DataSettings().resident_mib >= mib, "this set would not be resident"
    return TensorDataset(images), images, len(images) // 256 * 256  # the rest is left out


def packed(folder: Path) -> Row:
    """Images of 256 pixels in a mapped file, in the page cache."""
    path, shape = folder / "train.images.npy", (1024, 3, 256, 256)
    np.save(path, np.random.RandomState(0).randint(0, 256, shape, np.uint8))
    return Memmap(path), engine.Mapped(str(path), shape), shape[0]


class Memmap(Dataset[Any]):
    def __init__(self, path: Path) -> None:
        self.values = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> tuple[torch.Tensor]:
        return (torch.from_numpy(self.values[row].copy()),)


def jpeg(folder: Path) -> Row:
    """JPEG files of 500 x 375 pixels, smooth as photographs are, at 256, in one process."""
    random, paths = np.random.RandomState(0), [folder / "all" / f"{n:04}.jpg" for n in range(128)]
    (folder / "all").mkdir()
    for path in paths:
        coarse = Image.fromarray(random.randint(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
    usual = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(256), v2.PILToTensor()])
    ours = engine.Files(tuple(map(str, paths)), 256, 3)
    return ImageFolder(str(folder), usual), ours, len(paths)


ROWS = {"resident": resident, "packed": packed, "jpeg": jpeg}
