"""Two crops of 224 pixels from JPEG files of 500 x 375, beside torchvision's `DataLoader`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2

from benchmarks import engine, runner
from coview.data.whole import WholeFiles
from coview.plan import Plan
from coview.records import Step
from coview.views import Augmentation, CropViews

SIZE, SCALE = 224, (0.08, 1.0)
MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
OPTIONS = {
    "rounds": 9,
    "rows": MODES,
    "only": ["bicubic"],
    "workers": 2,
    "batch": 64,
    "images": 1024,
    "steady": True,
}


def main(asked: runner.Asked) -> None:
    if asked.quick:
        asked.images, asked.batch = 8, 4
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), asked.images)

        def measure(mode: str) -> dict[str, Any]:
            loader = DataLoader(
                ImageFolder(folder, Two(mode)),
                asked.batch,
                shuffle=True,
                drop_last=True,
                num_workers=asked.workers,
            )
            epochs = iter(range(1, 10**9))
            entrants = {
                "coview": lambda: drained(ours(paths, mode, next(epochs), asked)),
                "DataLoader": lambda: drained(crops for crops, _ in loader),
            }
            found = runner.turns(entrants, asked.rounds)
            count = asked.images // asked.batch * asked.batch
            rates = {who: count / median for who, median in found["median_s"].items()}
            return {mode: {"images_per_second": rates, **found}}

        numbers = {"batch": asked.batch, "workers": asked.workers, "images": asked.images}
        runner.rows(asked, numbers, measure)


def photographs(folder: Path, count: int) -> tuple[str, ...]:
    """Write JPEG files of 500 x 375 pixels, smooth as photographs are, and return their paths."""
    numbers, paths = np.random.RandomState(0), []
    (folder / "all").mkdir()
    for row in range(count):
        coarse = Image.fromarray(numbers.randint(0, 256, (24, 32, 3), np.uint8))
        paths.append(str(folder / "all" / f"{row:04}.jpg"))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return tuple(paths)


class Two:
    """Two crops and flips of a picture by torchvision, as the papers' data loaders make them."""

    def __init__(self, mode: str) -> None:
        self.once = v2.Compose(
            [
                v2.RandomResizedCrop(SIZE, SCALE, interpolation=MODES[mode]),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        return self.once(image), self.once(image)


def ours(
    paths: tuple[str, ...], mode: str, epoch: int, asked: runner.Asked
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the two crops of every batch of an epoch."""
    augmentation = Augmentation(
        size=SIZE, crop_scale=SCALE, interpolation=mode, normalize=False, order=("crop", "flip")
    )
    views = CropViews([augmentation] * 2, Plan(image_size=256, fit="whole"))
    side = augmentation.least_side(256)
    assert side is not None
    split = engine.Split(engine.Files(paths, 256, 3), whole=WholeFiles(paths, int(side), 3))
    batches = engine.Batches(split, asked.batch, 0, "cpu", asked.workers, whole=True)
    for number, batch in enumerate(batches.epoch(epoch)):
        yield views.generate_views(batch, Step(number=number, component="views")).crops


def drained(batches: Iterator[tuple[Tensor, ...]]) -> None:
    """Take every batch; look at one value of each crop, so that none is left unread."""
    for crops in batches:
        for crop in crops:
            crop[-1, -1, -1, -1].item()
