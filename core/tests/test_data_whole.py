"""Images at their own sizes, from files to batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coview import RequestError
from coview.data.base import DataSettings, ImageData, Split
from coview.data.decode import decode_whole, reduced
from coview.data.loader import Batches
from coview.data.sources.arrays import Objects
from coview.data.sources.folder import Folder
from coview.data.splits import part
from coview.data.whole import Buffer, WholeFiles, mean_pixels, picture
from coview.recipes.configure import Changes, configure
from coview.records import Batch

SIZES = ((90, 120), (120, 90), (70, 100), (128, 80), (100, 100))


def pixels(row: int, size: tuple[int, int] | None = None) -> np.ndarray:
    height, width = size or SIZES[row % len(SIZES)]
    return np.random.RandomState(row).randint(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """23 PNG files of five sizes in two classes."""
    for row in range(23):
        path = tmp_path / "photographs" / "ab"[row % 2] / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(row)).save(path)
    return tmp_path / "photographs"


def loaded(folder: Path, **settings: Any) -> ImageData:
    usual = {"fit": "whole", "whole_side": 200, "holdout": 0.0, "cache": "off", "size": 96}
    return Folder(str(folder)).load(DataSettings(**{**usual, **settings}))


def pictures(batch: Batch) -> list[Tensor]:
    assert batch.extents is not None
    return [picture(batch.images, extent) for extent in batch.extents]


def stored(data: ImageData, row: int) -> Tensor:
    assert data.train.names is not None
    number = int(data.train.names[row][2:4])
    return torch.from_numpy(pixels(number)).permute(2, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["off", "auto"])
def test_batches_hold_the_files_own_pixels(folder: Path, workers: int, cache: str) -> None:
    data = loaded(folder, cache=cache)
    assert data.fit == "whole"
    assert isinstance(data.train.whole, Buffer if cache == "auto" else WholeFiles)
    batches = Batches(data.train, 4, 0, "cpu", workers, whole=True)
    seen = 0
    for batch in batches.epoch(0):
        assert batch.images.dtype == torch.uint8
        assert batch.extents is not None
        assert batch.extents.device.type == "cpu"
        for row, image in zip(batch.indices.tolist(), pictures(batch), strict=True):
            assert torch.equal(image, stored(data, row))
            seen += 1
    assert seen == 20


def test_a_batch_holds_no_more_than_its_pixels(folder: Path) -> None:
    batch = next(Batches(loaded(folder).train, 5, 0, "cpu", whole=True).epoch(0))
    assert batch.extents is not None
    assert batch.images.shape == (int(batch.extents[:, 1:].prod(1).sum()), 3)


def test_the_order_is_that_of_squares_and_of_any_number_of_processes(folder: Path) -> None:
    split = loaded(folder).train
    square = [batch.indices for batch in Batches(split, 6, 1, "cpu").epoch(2)]
    whole = [*Batches(split, 6, 1, "cpu", whole=True).epoch(2)]
    assert torch.equal(torch.cat(square), torch.cat([batch.indices for batch in whole]))
    shares = [
        [*Batches(split, 6, 1, "cpu", rank=rank, world_size=2, whole=True).epoch(2)]
        for rank in range(2)
    ]
    for one, *parts in zip(whole, *shares, strict=True):
        both = [image for share in parts for image in pictures(share)]
        assert all(map(torch.equal, pictures(one), both))


def test_an_epoch_can_begin_in_its_middle(folder: Path) -> None:
    split = loaded(folder).train
    first = [*Batches(split, 4, 1, "cpu", 2, whole=True).epoch(1)][3:]
    again = [*Batches(split, 4, 1, "cpu", 2, whole=True).epoch(1, start=3)]
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.indices, two.indices)
        assert torch.equal(one.images, two.images)


def test_squares_are_given_unless_asked_for(folder: Path) -> None:
    data = loaded(folder)
    batch = next(Batches(data.train, 4, 0, "cpu").epoch(0))
    assert batch.extents is None
    assert batch.images.shape == (4, 3, 96, 96)
    plain = loaded(folder, fit="auto")
    assert (plain.fit, plain.train.whole) == ("square", None)


def test_evaluation_has_the_squares_that_it_has_without(folder: Path) -> None:
    whole, square = (loaded(folder, fit=fit, holdout=0.3) for fit in ("whole", "square"))
    assert whole.test is not None
    assert square.test is not None
    for one, two in ((whole.train, square.train), (whole.test, square.test)):
        for row in range(len(one)):
            assert torch.equal(one.images[row], two.images[row])
    assert whole.test.whole is None


def test_held_out_images_are_not_trained_on(folder: Path) -> None:
    data = loaded(folder, holdout=0.3)
    assert data.train.whole is not None
    assert len(data.train.whole) == len(data.train) == 16
    for row in range(16):
        assert torch.equal(data.train.whole[row], stored(data, row))
    few = part(data.train, torch.tensor([3, 1]))
    assert torch.equal(few.whole[1], stored(data, 1))


def test_an_unreadable_image_is_replaced_and_recorded(folder: Path) -> None:
    (folder / "a" / "00.png").write_bytes(b"no image")
    data = loaded(folder)
    for workers in (0, 2):
        batches = Batches(data.train, 23, 0, "cpu", workers, whole=True)
        (batch,) = batches.epoch(0)
        assert list(data.train.bad.faults) == [0]
        place = batch.indices.tolist().index(0)
        images = pictures(batch)
        others = [image for number, image in enumerate(images) if number != place]
        assert any(
            image.shape == images[place].shape and torch.equal(image, images[place])
            for image in others
        )


def test_more_than_memory_may_hold_is_read_from_files(folder: Path) -> None:
    data = loaded(folder, cache="auto", resident_mib=1)
    assert isinstance(data.train.whole, WholeFiles)  # 23 squares are 0.6 MiB, 23 images 0.7
    assert data.train.resident is None


def test_mean_pixels(folder: Path) -> None:
    sizes = [SIZES[row % len(SIZES)] for row in range(23)]
    expected = sum(height * width for height, width in sizes) / 23
    for cache in ("off", "auto"):
        assert loaded(folder, cache=cache).mean_pixels == pytest.approx(expected)
    assert loaded(folder, fit="square").mean_pixels == 0
    (folder / "a" / "00.png").write_bytes(b"no image")
    assert mean_pixels(loaded(folder).train.whole) > 0


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((400, 640), 600, (400, 640)),  # pixels for a side of 506: all are needed
        ((400, 640), 256, (400, 640)),  # half of each side would be a side of 253
        ((400, 640), 250, (200, 320)),
        ((400, 640), 120, (100, 160)),
        ((401, 643), 120, (101, 161)),
        ((1000, 100), 300, (800, 100)),
    ],
)
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_large_images_are_reduced(
    tmp_path: Path,
    size: tuple[int, int],
    side: int,
    expected: tuple[int, int],
    ending: str,
) -> None:
    coarse = Image.fromarray(pixels(0, (size[0] // 50, size[1] // 50)))
    image = coarse.resize(size[::-1], Image.Resampling.BICUBIC)
    image.save(tmp_path / f"image{ending}", quality=95)
    made = decode_whole(str(tmp_path / f"image{ending}"), ending, side, 3)
    assert made.shape == (3, *expected)
    middle = image.crop((0, 100, 100, 900)) if size == (1000, 100) else image
    small = np.asarray(middle.reduce(round(size[1] / expected[1]))).astype(int)
    # JPEG's own loss is a grey value or two.
    assert np.abs(small - made.permute(1, 2, 0).numpy()).mean() < (2 if ending == ".jpg" else 0.5)


def test_a_jpeg_is_not_decoded_to_waste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "large.jpg")
    Image.fromarray(pixels(0, (1600, 2000))).save(path)
    seen = []

    def watched(images: Tensor, side: int, channels: int) -> Tensor:
        seen.append(tuple(images.shape))
        return reduced(images, side, channels)

    monkeypatch.setattr("coview.data.decode.reduced", watched)
    decode_whole(path, ".jpg", 400, 3)
    decode_whole(path, ".jpg", 1000, 3)
    assert seen == [(3, 400, 500), (3, 1600, 2000)]


def test_turned_and_grey_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(0)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels(0)[:, :, 0]).save(tmp_path / "grey.png")
    turned = decode_whole(str(tmp_path / "turned.png"), ".png", 200, 3)
    assert torch.equal(turned, torch.from_numpy(np.rot90(pixels(0), -1).copy()).permute(2, 0, 1))
    grey = decode_whole(str(tmp_path / "grey.png"), ".png", 200, 3)
    assert grey.shape == (3, 90, 120)
    assert torch.equal(grey[0], grey[2])
    assert decode_whole(str(tmp_path / "grey.png"), ".png", 200, 1).shape == (1, 90, 120)


@pytest.mark.parametrize("kind", ["tensor", "pictures"])
@pytest.mark.parametrize("cache", ["off", "auto"])
def test_objects(kind: str, cache: str) -> None:
    images: Any = [Image.fromarray(pixels(row)) for row in range(10)]
    if kind == "tensor":
        images = torch.stack([torch.from_numpy(pixels(row, (90, 120))) for row in range(10)])
        images = images.permute(0, 3, 1, 2)
    settings = DataSettings(fit="whole", whole_side=200, size=96, holdout=0.0, cache=cache)
    data = Objects(images).load(settings)
    assert data.fit == "whole"
    batch = next(Batches(data.train, 10, 0, "cpu", whole=True).epoch(0))
    for row, image in zip(batch.indices.tolist(), pictures(batch), strict=True):
        own = pixels(row, (90, 120)) if kind == "tensor" else pixels(row)
        assert torch.equal(image, torch.from_numpy(own).permute(2, 0, 1))


def test_images_of_the_delivered_size_are_themselves_the_squares() -> None:
    images = torch.stack([torch.from_numpy(pixels(row, (96, 96))) for row in range(10)])
    settings = DataSettings(fit="whole", whole_side=200, holdout=0.0)
    data = Objects(images.permute(0, 3, 1, 2)).load(settings)
    assert (data.fit, data.train.whole) == ("whole", None)
    assert next(Batches(data.train, 4, 0, "cpu", whole=True).epoch(0)).extents is None


def test_data_that_give_squares_only_say_so() -> None:
    class Random:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, row: int) -> np.ndarray:
            return np.random.randint(0, 256, (90, 120, 3)).astype(np.uint8)

    settings = DataSettings(fit="whole", whole_side=200, size=96, holdout=0.0)
    data = Objects(Random()).load(settings)
    assert data.fit == "square"
    assert any("Crops are cut from squares" in note for note in data.notes)


def fit_of(method: str, native: int | None = 256, **changes: Any) -> tuple[str, int | None]:
    data = configure(method, native, Changes(**changes), "command line", 100_000).data
    return data.fit, data.whole_side


def test_recipes_above_64_pixels_cut_from_whole_images() -> None:
    assert fit_of("simclr") == ("whole", 792)  # 224 / sqrt(0.08)
    assert fit_of("moco-v2") == ("whole", 501)  # 224 / sqrt(0.2)
    assert fit_of("swav") == ("whole", 599)  # 224 / sqrt(0.14); its small crops need 430
    assert fit_of("dino") == ("whole", 430)  # 96 / sqrt(0.05); its large crops need 355
    assert fit_of("cmc") == ("whole", 792)
    assert fit_of("simclr", None) == ("whole", 792)
    assert fit_of("simclr", 96) == ("whole", 340)


def test_small_images_and_views_that_cannot_stay_square() -> None:
    assert fit_of("simclr", 32) == ("square", None)
    assert fit_of("simclr", None, preset="small") == ("square", None)
    assert fit_of("simclr", 256, image_size=64) == ("square", None)
    assert fit_of("cpc") == ("square", None)
    assert fit_of("simclr", set={"views.backend": "kornia"}) == ("square", None)
    assert fit_of("simclr", set={"data.decoder": "gpu"}) == ("square", None)
    assert fit_of("simclr", set={"data.fit": "square"}) == ("square", None)


def test_what_is_asked_for_is_done_or_refused() -> None:
    assert fit_of("simclr", 256, image_size=32, set={"data.fit": "whole"}) == ("whole", 114)
    assert fit_of("simclr", set={"data.whole_side": 500}) == ("whole", 500)
    for method, changes, said in (
        ("cpc", {}, "patch-grid here does not: use data.fit = square"),
        ("simclr", {"views.backend": "kornia"}, "views.backend = fused and the crop first"),
        ("simclr", {"data.decoder": "gpu"}, "needs data.decoder = cpu"),
    ):
        with pytest.raises(RequestError, match=said):
            fit_of(method, set={"data.fit": "whole", **changes})


def test_a_split_without_whole_images_gives_squares() -> None:
    split = Split(torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
    assert next(Batches(split, 4, 0, "cpu", whole=True).epoch(0)).extents is None
