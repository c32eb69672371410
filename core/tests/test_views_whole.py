"""Crops of images at their own sizes: equal to Pillow's, distributed as torchvision's."""

from __future__ import annotations

import math
from functools import lru_cache

import attrs
import numpy as np
import PIL
import pytest
import torch
import torchvision.transforms.v2 as tv
from PIL import Image, ImageFilter
from scipy.stats import ks_2samp
from torch import Tensor

from coview import RequestError
from coview.data.whole import extents_of
from coview.method.joining import share
from coview.plan import Plan
from coview.records import Batch, Step
from coview.testing.synchronisation import Synchronisations
from coview.views import Augmentation, CropViews, Rendering, crops
from coview.views.backends.fused import whole
from coview.views.backends.fused.parameters import Rows
from coview.views.backends.fused.plan import Fused
from coview.views.backends.fused.whole import Whole
from coview.views.operations import Blur, Crop, Flip

SIZES = ((375, 500), (500, 375), (333, 500), (500, 500), (400, 300), (120, 160), (600, 1024))
MODES = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@lru_cache
def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return smooth colours with noise and hard edges, where kernels overshoot."""
    numbers = np.random.RandomState(seed)
    coarse = numbers.randint(0, 256, (height // 25 + 2, width // 25 + 2, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    values = np.asarray(smooth).astype(int) + numbers.randint(-20, 20, (height, width, 3))
    values[height // 3 : height // 2, width // 4 : width // 2] = numbers.randint(0, 2, 3) * 255
    return values.clip(0, 255).astype(np.uint8)


def buffer(images: list[np.ndarray]) -> Whole:
    """Return images (h, w, C) as the loader delivers them."""
    pixels = torch.cat([torch.from_numpy(image).flatten(0, 1) for image in images])
    return Whole(pixels, extents_of([image.shape[:2] for image in images]))


def boxes(
    count: int, seed: int, part: int = 4
) -> tuple[Whole, list[np.ndarray], dict[str, Tensor]]:
    """Return images, of sizes divided by ``part``, and a box of any shape within each."""
    numbers = np.random.RandomState(seed)
    sizes = [[side // part for side in SIZES[n % len(SIZES)]] for n in range(count)]
    images = [photograph(*size, seed=n % 2) for n, size in enumerate(sizes)]
    made = []
    for image in images:
        tall, wide = (numbers.randint(16, side + 1) for side in image.shape[:2])
        top, left = (
            numbers.randint(0, s - b + 1)
            for s, b in zip(image.shape[:2], (tall, wide), strict=True)
        )
        made.append((top, left, tall, wide))
    names = ("top", "left", "height", "width")
    aim = dict(zip(names, torch.tensor(made, dtype=torch.float32).unbind(1), strict=True))
    return buffer(images), images, aim


def by_pillow(image: np.ndarray, box: list[int], size: int, mode: str) -> np.ndarray:
    top, left, tall, wide = box
    part = Image.fromarray(image).crop((left, top, left + wide, top + tall))
    return resized(part, size, mode)


def resized(part: Image.Image, size: int, mode: str) -> np.ndarray:
    """As Pillow 13 does it: earlier ones never begin with the rows, but in a turned image."""
    down = part.height - size > max(0, 2 * (part.width - size))
    turn = down and int(PIL.__version__.split(".")[0]) < 13
    part = part.transpose(Image.Transpose.TRANSPOSE) if turn else part
    made = part.resize((size, size), MODES[mode])
    return np.asarray(made.transpose(Image.Transpose.TRANSPOSE) if turn else made).astype(int)


@pytest.mark.parametrize("cut", [whole._one_by_one, whole._together])
@pytest.mark.parametrize("mode", [*MODES])
def test_crops_are_pillows(cut, mode: str) -> None:
    """1,000 crops in all: 250 by each of two ways and for each of two kernels."""
    worst, total, count = 0, 0.0, 0
    crop = Crop(56, (0.08, 1.0), (0.75, 4 / 3), mode, antialias=True)
    for seed in range(10):
        source, images, aim = boxes(25, seed)
        made = (cut(source, crop, aim) * 255).permute(0, 2, 3, 1).numpy()
        rows = torch.stack([*aim.values()], 1).long().tolist()
        for image, box, own in zip(images, rows, made, strict=True):
            far = np.abs(by_pillow(image, box, 56, mode) - own)
            worst, total, count = max(worst, far.max()), total + far.mean(), count + 1
    assert count == 250
    assert worst < 2
    assert total / count < 0.3


@pytest.mark.parametrize("size", [224, 96])
def test_crops_of_the_papers_sizes_are_pillows(size: int) -> None:
    source, images, aim = boxes(20, 77, part=1)
    crop = Crop(size, (0.08, 1.0), (0.75, 4 / 3), "bicubic", antialias=True)
    made = (whole.cut(source, crop, aim) * 255).permute(0, 2, 3, 1).numpy()
    rows = torch.stack([*aim.values()], 1).long().tolist()
    pairs = zip(images, rows, strict=True)
    expected = np.stack([by_pillow(image, box, size, "bicubic") for image, box in pairs])
    assert np.abs(expected - made).max() < 2
    assert np.abs(expected - made).mean() < 0.3


@pytest.mark.parametrize("cut", [whole._one_by_one, whole._together])
def test_a_mirrored_crop_is_the_crop_mirrored(cut) -> None:
    source, _, aim = boxes(4, 3)
    crop = Crop(64, (0.08, 1.0), (0.75, 4 / 3), "bicubic", antialias=True)
    plain = cut(source, crop, aim)
    flipped = cut(source, crop, {**aim, "flipped": torch.tensor([True, False, True, False])})
    assert torch.equal(flipped[::2], plain[::2].flip(-1))
    assert torch.equal(flipped[1::2], plain[1::2])


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_any_number_of_channels(channels: int) -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (90, 70, channels)).astype(np.uint8)
    aim = {
        name: torch.tensor([v])
        for name, v in {"top": 3.0, "left": 5.0, "height": 80.0, "width": 40.0}.items()
    }
    crop = Crop(32, (0.08, 1.0), (0.75, 4 / 3), "bicubic", antialias=True)
    made = whole.cut(buffer([pixels]), crop, aim)[0] * 255
    for channel in range(channels):
        alone = Image.fromarray(pixels[:, :, channel]).crop((5, 3, 45, 83))
        own = resized(alone, 32, "bicubic")
        assert np.abs(own - made[channel].numpy()).max() < 2


@pytest.mark.parametrize("mode", [*MODES])
def test_without_antialiasing_as_torch(mode: str) -> None:
    source, _, aim = boxes(4, 5)
    crop = Crop(64, (0.08, 1.0), (0.75, 4 / 3), mode, antialias=False)
    one, two = (way(source, crop, aim) for way in (whole._one_by_one, whole._together))
    assert (one - two).abs().max() < 2.5 / 255


def drawn(count: int, scale: tuple[float, float]) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
    """Return the boxes of one view of ``count`` images, their sizes, and torchvision's boxes."""
    numbers = np.random.RandomState(1)
    # ImageNet's: mostly 500 x 375 or upright, many squares, some small, some of megapixels.
    sides = [
        SIZES[k] for k in numbers.choice(len(SIZES), count, p=(0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05))
    ]
    run = Fused([(Crop(224, scale, (3 / 4, 4 / 3), "bicubic", True), Flip(0.5))])
    extents = extents_of(sides)
    uniform = Rows(count).uniform(sum(run.numbers), 1, torch.Generator().manual_seed(0))
    source = Whole(torch.empty(1, 3, dtype=torch.uint8), extents)
    own = whole_boxes(run, uniform, source)
    torch.manual_seed(0)
    shapes = {side: torch.empty(3, *side, dtype=torch.uint8) for side in set(sides)}
    theirs = [v1_params(shapes[side], scale) for side in sides]
    return own, extents, theirs


def v1_params(image: Tensor, scale: tuple[float, float]) -> tuple[int, ...]:
    from torchvision.transforms import RandomResizedCrop

    return RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3])


def whole_boxes(run: Fused, uniform: Tensor, source: Whole) -> Tensor:
    from coview.views.backends.fused.plan import drawn_from

    found = drawn_from(run.columns, run.numbers, uniform, source.sizes(uniform.device))[0]
    return torch.stack([found[name][0] for name in ("top", "left", "height", "width")], 1)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.14), (0.9, 1.0)])
def test_scale_and_aspect_are_distributed_as_torchvisions(scale: tuple[float, float]) -> None:
    own, extents, theirs = drawn(10_000, scale)
    theirs = torch.tensor(theirs, dtype=torch.float32)
    area = extents[:, 1:].prod(1)
    for measure in (
        lambda box: box[:, 2] * box[:, 3] / area,
        lambda box: (box[:, 3] / box[:, 2]).log(),
        lambda box: box[:, 0] / extents[:, 1],
        lambda box: box[:, 1] / extents[:, 2],
    ):
        assert ks_2samp(measure(own).numpy(), measure(theirs).numpy()).pvalue > 0.001
    enlarged = [float(((b[:, 2] < 224) | (b[:, 3] < 224)).float().mean()) for b in (own, theirs)]
    # Two shares of 10,000: four standard deviations apart at most.
    middle = sum(enlarged) / 2
    assert abs(enlarged[0] - enlarged[1]) <= 4 * math.sqrt(2 * middle * (1 - middle) / 10_000)


def test_squares_enlarge_most_crops_and_photographs_few() -> None:
    crop = Fused([(Crop(224, (0.08, 1.0), (3 / 4, 4 / 3), "bicubic", True),)])
    uniform = Rows(10_000).uniform(sum(crop.numbers), 1, torch.Generator().manual_seed(1))
    shares = []
    for side in ((375, 500), (256, 256)):
        source = Whole(torch.empty(1, 3, dtype=torch.uint8), extents_of([side] * 10_000))
        box = whole_boxes(crop, uniform, source)
        shares.append(float((box[:, 2] * box[:, 3] < 224**2).float().mean()))
    assert shares[0] < 0.3
    assert shares[1] > 0.7


def test_boxes_lie_within_their_images_and_reach_every_border() -> None:
    own, extents, _ = drawn(3_000, (0.08, 1.0))
    top, left, tall, wide = own.unbind(1)
    assert (own == own.round()).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top + tall <= extents[:, 1]).all()
    assert (left + wide <= extents[:, 2]).all()
    assert (top == 0).any()
    assert (left == 0).any()
    assert (top + tall == extents[:, 1]).any()
    assert (left + wide == extents[:, 2]).any()


def test_every_pixel_can_be_seen() -> None:
    seen = np.zeros((60, 90), dtype=bool)
    count = 4_000
    run = Fused([(Crop(224, (0.08, 1.0), (3 / 4, 4 / 3), "bicubic", True),)])
    uniform = Rows(count).uniform(sum(run.numbers), 1, torch.Generator().manual_seed(2))
    source = Whole(torch.empty(1, 3, dtype=torch.uint8), extents_of([(60, 90)] * count))
    for top, left, tall, wide in whole_boxes(run, uniform, source).long().tolist():
        seen[top : top + tall, left : left + wide] = True
    assert seen.all()


@pytest.mark.parametrize("side", [(40, 400), (400, 40), (50, 50)])
def test_where_no_try_fits_the_middle_is_taken_as_by_torchvision(side: tuple[int, int]) -> None:
    scale, ratio = (1.5, 2.0), (3 / 4, 4 / 3)
    run = Fused([(Crop(32, scale, ratio, "bicubic", True),)])
    uniform = Rows(2).uniform(sum(run.numbers), 1, torch.Generator().manual_seed(0))
    source = Whole(torch.empty(1, 3, dtype=torch.uint8), extents_of([side, (64, 64)]))
    expected = tv.RandomResizedCrop(32, scale, ratio).make_params([torch.empty(3, *side)])
    box = whole_boxes(run, uniform, source)[0].tolist()
    assert box == [expected[k] for k in ("top", "left", "height", "width")]


def views(**settings) -> CropViews:
    both = [Augmentation(interpolation="bicubic", **settings)] * 2
    return CropViews(both, Plan(image_size=96, fit="whole"))


def a_batch(count: int = 6) -> Batch:
    source = buffer([photograph(*SIZES[n % len(SIZES)], seed=n) for n in range(count)])
    return Batch(source.pixels, torch.arange(count), extents=source.extents)


def test_views_of_whole_images() -> None:
    made = views().generate_views(a_batch(), Step(component="views"))
    assert [crop.shape for crop in made.crops] == [(6, 3, 96, 96)] * 2
    assert not torch.equal(*made.crops)
    again = views().generate_views(a_batch(), Step(component="views"))
    assert all(map(torch.equal, made.crops, again.crops))


def test_views_of_a_buffer_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What matters are the extents, not where an image lies; and all chunks are alike."""
    batch = a_batch()
    made = views().generate_views(batch, Step(component="views"))
    order = [5, 3, 1, 0, 2, 4]
    images = [photograph(*SIZES[n % len(SIZES)], seed=n) for n in range(6)]
    moved = buffer([images[n] for n in order])
    extents = moved.extents[[order.index(n) for n in range(6)]]
    again = views().generate_views(
        Batch(moved.pixels, batch.indices, extents=extents), Step(component="views")
    )
    assert all(map(torch.equal, made.crops, again.crops))


def test_micro_batches_share_the_buffer() -> None:
    batch = a_batch()
    parts = [share(batch, number, 3) for number in range(3)]
    assert [part.extents.tolist() for part in parts] == [
        batch.extents[n : n + 2].tolist() for n in (0, 2, 4)
    ]
    assert all(part.images is batch.images for part in parts)
    assert [len(views().generate_views(part, Step()).crops[0]) for part in parts] == [2, 2, 2]


def test_two_processes_make_the_views_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = a_batch()
    made = views().generate_views(batch, Step(component="views")).crops
    monkeypatch.setattr(crops, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(crops, "rank", lambda rank=rank: rank)
        own = slice(3 * rank, 3 * rank + 3)
        share_of = Batch(batch.images, batch.indices[own], extents=batch.extents[own])
        part = views().generate_views(share_of, Step(component="views")).crops
        assert all(torch.equal(one[own], two) for one, two in zip(made, part, strict=True))


def test_by_the_device_s_way_the_views_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = views(blur_p=0.0, jitter_p=0.0).generate_views(a_batch(), Step(component="views"))
    monkeypatch.setattr(whole, "_one_by_one", whole._together)
    other = views(blur_p=0.0, jitter_p=0.0).generate_views(a_batch(), Step(component="views"))
    for one, two in zip(made.crops, other.crops, strict=True):
        assert (one - two).abs().max() < 1.5 / 255 / 0.5  # in units of the deviation


def test_crops_of_whole_images_are_antialiased_unless_said_otherwise() -> None:
    assert Augmentation().fitting("whole").antialias is True
    assert Augmentation().fitting("square").antialias is False
    assert Augmentation(antialias=False).fitting("whole").antialias is False
    assert Augmentation(antialias=True).fitting("square").antialias is True


def test_least_side() -> None:
    """A crop of 8 % of 792 x 792 pixels has 224 x 224."""
    assert Augmentation().least_side(256) == pytest.approx(224 / math.sqrt(0.08))
    assert Augmentation(size=96, crop_scale=(0.05, 0.4)).least_side(256) == pytest.approx(
        96 / math.sqrt(0.05)
    )
    assert Augmentation(backend="kornia").least_side(256) is None
    assert Augmentation(order=("jitter", "crop")).least_side(256) is None
    assert Augmentation(order=("jitter",)).least_side(256) is None
    assert Augmentation(order=("flip", "crop")).least_side(256) is not None


def test_views_that_cannot_are_refused() -> None:
    batch = a_batch()
    for settings, said in (
        ({"backend": "kornia"}, "takes images of one size: add --set data.fit=square"),
        ({"order": ("flip", "jitter")}, "cuts no crop: add --set data.fit=square"),
    ):
        made = CropViews([Augmentation(antialias=False, **settings)], Plan(image_size=96))
        with pytest.raises(RequestError, match=said):
            made.generate_views(batch, Step())


def test_rendering_of_squares_is_unchanged() -> None:
    pixels = torch.randint(256, (4, 3, 96, 96), dtype=torch.uint8)
    chains = views().rendering.chains
    plain = Rendering(chains)(pixels, Step(component="views"))
    assert [crop.shape for crop in plain] == [(4, 3, 96, 96)] * 2


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 0.9, 1.3, 2.0, 3.5, 8.0])
def test_the_blur_of_pillows_kind_is_pillows(sigma: float) -> None:
    image = photograph(96, 128, seed=4)
    blur = Blur(1.0, (sigma, sigma), 23, "pillow")
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    run = Fused([(blur,)])
    made = run(pixels, torch.Generator().manual_seed(0), 0, 0, 1)[0][0] * 255
    expected = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
    far = np.abs(made.permute(1, 2, 0).numpy() - expected)
    # Halves are rounded in another way: with a deviation of 0.5 or 2, one value in ten.
    assert far.max() < 2.01
    assert far.mean() < (0.15 if sigma in (0.5, 2) else 0.02)
    assert not np.array_equal(expected, image) or sigma < 0.2


def test_an_image_that_is_not_blurred_is_unchanged() -> None:
    pixels = torch.from_numpy(photograph(40, 40)).permute(2, 0, 1)[None].repeat(8, 1, 1, 1)
    run = Fused([(Blur(0.5, (1.0, 2.0), 23, "pillow"),)])
    made = run(pixels, torch.Generator().manual_seed(0), 0, 0, 1)[0] * 255
    far = (made - pixels).abs().amax((1, 2, 3))
    assert 0 < int((far < 1e-4).sum()) < 8


def test_the_torchvision_backend_blurs_by_pillow_itself() -> None:
    view = Augmentation(
        size=32,
        blur_p=1.0,
        blur_kind="pillow",
        blur_sigma=(1.5, 1.5),
        jitter_p=0.0,
        grey_p=0.0,
        flip_p=0.0,
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        backend="torchvision",
    )
    pixels = torch.from_numpy(photograph(32, 32)).permute(2, 0, 1)[None]
    theirs = view.chain(32, 3, lambda x: x)(pixels, seed=0)
    ours = attrs.evolve(view, backend="fused").chain(32, 3, lambda x: x)(pixels, seed=0)
    assert (theirs - ours).abs().max() < 2 / 255


def test_on_a_device_nothing_is_read_back() -> None:
    source, _, aim = boxes(3, 0)
    aim["flipped"] = torch.tensor([True, False, True])
    crop = Crop(32, (0.08, 1.0), (0.75, 4 / 3), "bicubic", antialias=True)
    for cut, waits in ((whole._together, False), (whole._one_by_one, True)):
        with Synchronisations(of=[source.pixels, *aim.values()]) as seen:
            cut(source, crop, aim)
        assert bool(seen.found) == waits, seen.found
