"""Multi-crop views: which crops, of what, for whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import coview
from coview import Batch, Plan, RequestError, Step
from coview_swav.views import MultiCropViews, augmentations


def views(image_size: int = 32, channels: int = 3, **chosen: Any) -> Any:
    plan = Plan(channels=channels, image_size=image_size, mean=(0.5,) * channels,
                std=(0.25,) * channels)  # fmt: skip
    return coview.component("views", "multi-crop", plan=plan, **chosen)


def batch(size: int = 32, rows: int = 3) -> Batch:
    make = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 3, size, size), generator=make, dtype=torch.uint8)
    return Batch(images, torch.arange(rows))


def test_the_paper_s_eight_crops_and_fourteen_pairs() -> None:
    made = views(256)
    assert made.layout.sizes == ((224, 224),) * 2 + ((96, 96),) * 6
    assert made.layout.queries == tuple(range(8))
    assert made.layout.keys == (0, 1)
    assert len(made.layout.pairs) == 2 * (8 - 1)
    assert set(made.layout.pairs) == {(q, k) for q in range(8) for k in (0, 1) if q != k}


def test_crops_have_the_sizes_of_the_layout() -> None:
    made = views(size=["none", 18, 10], count=[2, 1, 2], crop_scale=[[0.5, 1], [0.1, 0.2], [0, 1]])
    rendered = made.generate_views(batch(), Step(component="views"))
    assert [tuple(crop.shape) for crop in rendered.crops] == [
        (3, 3, side, side) for side in (32, 32, 18, 10, 10)
    ]
    assert (rendered.queries, rendered.keys) == ((0, 1, 2, 3, 4), (0, 1))
    again = made.generate_views(batch(), Step(component="views"))
    assert all(torch.equal(a, b) for a, b in zip(rendered.crops, again.crops, strict=True))
    other = made.generate_views(batch(), Step(number=1, component="views"))
    assert not torch.equal(rendered.crops[0], other.crops[0])
    assert not torch.equal(rendered.crops[0], rendered.crops[1])


def test_a_value_for_all_groups_or_one_for_each() -> None:
    settings = MultiCropViews.Settings(
        size=(None, 0.42, 12), count=(1, 1, 3), crop_scale=(0.3, 1.0), blur_p=(1.0, 0.1, 0.5),
        solarize_p=(0.0, 0.2, 0.0), grey_p=0.3,
    )  # fmt: skip
    made = augmentations(settings, 64)
    assert [one.view_size(64) for one in made] == [64, 27, 12, 12, 12]
    assert [one.blur_p for one in made] == [1.0, 0.1, 0.5, 0.5, 0.5]
    assert [one.solarize_p for one in made] == [0.0, 0.2, 0.0, 0.0, 0.0]
    assert {one.crop_scale for one in made} == {(0.3, 1.0)}
    assert {one.grey_p for one in made} == {0.3}


@pytest.mark.parametrize("image_size, sides", [(256, (224, 96)), (32, (32, 14)), (28, (28, 12))])
def test_sizes_that_nobody_chose_follow_the_images(image_size: int, sides: tuple[int, ...]) -> None:
    made = augmentations(MultiCropViews.Settings(), image_size)
    assert [one.view_size(image_size) for one in made] == [sides[0]] * 2 + [sides[1]] * 6


def test_groups_of_equal_size_differ_in_other_ways() -> None:
    """DINO's views: two large ones with a blur each, and the small ones."""
    made = views(256, size=["none", "none", 96], count=[1, 1, 10], crop_scale=[0.4, 1.0],
                 blur_p=[1.0, 0.1, 0.5])  # fmt: skip
    assert made.layout.sizes == ((224, 224),) * 2 + ((96, 96),) * 10
    assert made.layout.keys == (0, 1)
    assert len(made.layout.pairs) == 2 * 12 - 2


def test_one_number_of_crops_and_one_scale_are_plain_two_crops() -> None:
    made = views(size=24, count=2, crop_scale=[0.2, 1.0])
    assert made.layout.sizes == ((24, 24),) * 2
    assert made.layout.pairs == ((0, 1), (1, 0))
    assert views(keys=0, count=[2, 2]).layout.keys == (0, 1, 2, 3)


def test_the_area_of_a_crop_is_in_its_group_s_range() -> None:
    """A constant gradient image: the spread of values in a crop is the share of its side."""
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8)
    images = ramp.view(1, 1, 1, 64).expand(200, 3, 64, 64).contiguous()
    made = views(64, size=["none", 24], count=[1, 1], crop_scale=[[0.5, 1.0], [0.05, 0.14]],
                 crop_ratio=[1.0, 1.0], order=["crop"], normalize=False)  # fmt: skip
    crops = made.generate_views(Batch(images, torch.arange(200)), Step(component="views")).crops
    for crop, (low, high) in zip(crops, [(0.5, 1.0), (0.05, 0.14)], strict=True):
        side = (crop.amax((1, 2, 3)) - crop.amin((1, 2, 3))).clamp(0, 1)
        assert side.square().mean().item() == pytest.approx((low + high) / 2, abs=0.06)
        assert side.max() <= high**0.5 + 0.03
        assert side.min() >= low**0.5 - 0.08


@pytest.mark.parametrize(
    "chosen, sentence",
    [
        ({"count": [2, 6, 1]}, "views.count has 3, views.crop_scale has 2"),
        ({"count": [2, 0]}, "count"),
        ({"crop_scale": [[0.5, 0.2], [0.1, 0.2]]}, "crop_scale"),
        ({"blur_p": [0.5, 1.5]}, "blur_p"),
        ({"size": "large"}, "size"),
        ({"size": [None, 1.5]}, "share between 0 and 1"),
        ({"size": [0, 8]}, "whole number of pixels above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        views(**chosen)


def test_evaluation_sees_the_large_size() -> None:
    made = views(count=[2, 2])
    crop = made.evaluation_views(batch().images).crops[0]
    assert crop.shape == (3, 3, 32, 32)
    assert torch.equal(crop, (batch().images / 255 - 0.5) / 0.25)
