"""Transforms of one's own, whole: torchvision's on PIL images and on tensors, lists, two views."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image

from coview.errors import RequestError
from coview.plan import Plan
from coview.records import Batch, Step
from coview.views import TransformViews

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NORMALIZE = v1.Normalize(MEAN, STD)


class Blur:
    """MoCo's blur, as its code has it: PIL images, and Python's own generator."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


class TwoCrops:
    """MoCo's wrapper: two views of one image."""

    def __init__(self, base: Callable[[Any], Any]) -> None:
        self.base = base

    def __call__(self, image: Any) -> list[Any]:
        return [self.base(image), self.base(image)]


def usual() -> v1.Compose:
    return v1.Compose(
        [
            v1.RandomResizedCrop(24, scale=(0.2, 1.0)),
            v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v1.RandomGrayscale(p=0.2),
            v1.RandomApply([Blur()], p=0.5),
            v1.RandomHorizontalFlip(),
            v1.ToTensor(),
            NORMALIZE,
        ]
    )


def plain() -> v1.Compose:
    return v1.Compose([v1.CenterCrop(24), v1.ToTensor(), NORMALIZE])


def closure() -> Callable[[Any], Any]:
    """A function that holds its transform, as people write them."""
    kept = plain()
    return lambda image: kept(image)


def views_of(transform: Any, channels: int = 3, **options: Any) -> tuple[TransformViews, list[str]]:
    notes: list[str] = []
    plan = Plan(channels=channels, image_size=32, notice=notes.append)
    return TransformViews(transform, plan, **options), notes


def batch(count: int = 4, channels: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, channels, 32, 32), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.arange(count))


def by_hand(transform: Callable[[Any], Tensor], images: Tensor) -> Tensor:
    return torch.stack([transform(to_pil_image(image)) for image in images])


@pytest.mark.parametrize("make", [plain, lambda: TwoCrops(plain()), lambda: [plain(), plain()]])
def test_pil_transforms_give_what_they_give_by_hand(make: Callable[[], Any]) -> None:
    views, _ = views_of(make())
    made = views.generate_views(batch(), Step())
    assert len(made.crops) == 2
    expected = by_hand(plain(), batch().images)
    assert torch.allclose(made.crops[0], expected, atol=1e-6)
    assert torch.allclose(made.crops[1], expected, atol=1e-6)


@pytest.mark.parametrize("make", [usual, lambda: TwoCrops(usual()), lambda: [usual(), usual()]])
def test_views_differ_and_depend_on_the_step_alone(make: Callable[[], Any]) -> None:
    views, _ = views_of(make())
    assert views.layout.sizes == ((24, 24), (24, 24))
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first, second = views.generate_views(batch(), Step(3)).crops
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert first.shape == (4, 3, 24, 24)
    assert not torch.allclose(first, second)
    random.seed(2)
    again = views.generate_views(batch(), Step(3)).crops
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, views.generate_views(batch(), Step(4)).crops[0])


@pytest.mark.parametrize("make", [usual, lambda: TwoCrops(usual())])
def test_two_processes_see_what_one_would(make: Callable[[], Any]) -> None:
    chain: Any = views_of(make())[0].rendering.chains[0]
    images = batch().images
    whole = chain.all_views(images, seed=7)
    halves = [chain.all_views(images[2 * r : 2 * r + 2], 7, r, 2) for r in range(2)]
    for view, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert torch.equal(view, torch.cat(parts))


def test_a_view_for_each_transform_of_a_list() -> None:
    views, _ = views_of([plain(), v1.Compose([v1.Resize(16), v1.ToTensor(), NORMALIZE]), plain()])
    assert views.layout.sizes == ((24, 24), (16, 16), (24, 24))
    assert len(views.layout.pairs) == 6
    crops = views.generate_views(batch(), Step()).crops
    assert [tuple(crop.shape[2:]) for crop in crops] == [(24, 24), (16, 16), (24, 24)]


def test_the_first_is_the_query_where_the_method_wants_that() -> None:
    views, _ = views_of([plain(), plain()], symmetric=False)
    assert (views.layout.queries, views.layout.keys, views.layout.pairs) == ((0,), (1,), ((0, 1),))


@pytest.mark.parametrize(
    "make",
    [
        plain,
        lambda: TwoCrops(plain()),
        closure,
        lambda: functools.partial(plain()),
        lambda: nn.Sequential(K.CenterCrop((24, 24)), K.Normalize(MEAN, STD)),
        lambda: v2.Compose([v2.CenterCrop(24), v2.Normalize(MEAN, STD)]),
        lambda: v2.Compose(
            [v2.ToImage(), v2.CenterCrop(24), v2.ToDtype(torch.float32, scale=True), NORMALIZE]
        ),
    ],
)
def test_normalisation_is_the_transforms_own_and_done_once(make: Callable[[], Any]) -> None:
    views, notes = views_of(make())
    expected = by_hand(plain(), batch().images)
    made = views.generate_views(batch(), Step()).crops[0]
    evaluated = views.evaluation_views(batch().images).crops[0]
    assert torch.allclose(made, expected, atol=1e-5)
    assert torch.allclose(evaluated, expected, atol=1e-5)
    assert views.normalization[0] == pytest.approx(MEAN)
    assert views.normalization[1] == pytest.approx(STD)
    assert any("mean (0.4, 0.5, 0.6) and std (0.2, 0.25, 0.3): coview does not" in n for n in notes)


def test_without_normalize_images_stay_as_they_are() -> None:
    views, notes = views_of(v2.Compose([v2.CenterCrop(24)]))
    evaluated = views.evaluation_views(batch().images).crops[0]
    assert evaluated.min() >= 0
    assert evaluated.max() <= 1
    assert not any("normalis" in note.lower() for note in notes)


def test_a_normalisation_that_cannot_be_seen_is_said() -> None:
    _, notes = views_of(lambda image: image * 4 - 2)
    assert any("run from -2 to 2, but no Normalize is found" in note for note in notes)


def test_what_is_slow_is_said_once() -> None:
    for transform, how in ((usual(), "PIL images"), ([v2.CenterCrop(24)] * 3, "tensors")):
        slow = [note for note in views_of(transform)[1] if "image by image" in note]
        assert len(slow) == 1
        assert f"from {how}: about " in slow[0]
        assert "Faster, on whole batches: kornia's" in slow[0]
    assert views_of(nn.Sequential(K.RandomResizedCrop((24, 24))))[1] == []


def test_grey_images(tmp_path: Any) -> None:
    transform = v1.Compose([v1.CenterCrop(24), v1.ToTensor(), v1.Normalize((0.5,), (0.5,))])
    views, _ = views_of(transform, channels=1)
    made = views.generate_views(batch(channels=1), Step()).crops[0]
    assert torch.allclose(made, batch(channels=1).images[..., 4:28, 4:28] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (v1.Compose([v1.RandomResizedCrop(24), v1.ToTensor(), lambda t: t[:2, 0, 0]]), "(TypeErro"),
        (v1.Compose([v1.ToTensor(), v1.Normalize((0.5,) * 4, (0.5,) * 4)]), "fails on one 3x32x32"),
        (lambda image: {"image": image}, "it must return an image (C, H, W), or a list of images"),
        (lambda image: image[:, random.randint(0, 9) :], "gives views of different sizes"),
        ([usual(), TwoCrops(usual())], "each must make one view"),
        ([], "views= holds no transform"),
        (3, "A transform must be callable, with an image; int is not"),
    ],
)
def test_what_cannot_be_used(transform: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        views_of(transform)
    assert said in str(caught.value)
