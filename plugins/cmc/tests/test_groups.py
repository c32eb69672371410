from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.color import rgb_to_lab
from torch import Tensor

from coview import Batch, Plan, RequestError, Step
from coview_cmc.spaces import SPACES, lab
from coview_cmc.views import GroupViews, pairs_of

RGB = Plan(channels=3, image_size=16, mean=(0.5,) * 3, std=(0.2,) * 3)


def views(plan: Plan = RGB, **settings: object) -> GroupViews:
    return GroupViews(GroupViews.Settings(**settings), plan)


def plan_of(channels: int, **rest: object) -> Plan:
    return Plan(
        channels=channels, image_size=16, mean=(0.0,) * channels, std=(1.0,) * channels, **rest
    )


def colour(red: float, green: float, blue: float, side: int = 16) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, side, side)


def seen(component: GroupViews, images: Tensor) -> list[float]:
    crops = component.evaluation_views(images).crops
    return torch.cat([crop[0, :, 8, 8] for crop in crops]).tolist()


@pytest.mark.parametrize(
    "rgb, expected",
    [
        ((1.0, 0.0, 0.0), (0.064812, 0.803263, 0.730395)),
        ((0.0, 0.0, 0.0), (-1.0, -0.0653, 0.0661)),
        ((1.0, 1.0, 1.0), (1.0, -0.0654, 0.0662)),
    ],
)
def test_lab(rgb: tuple[float, float, float], expected: tuple[float, ...]) -> None:
    """T3.4."""
    assert seen(views(), colour(*rgb)) == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 10**6))
def test_lab_is_kornias(seed: int) -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)).double()
    images[0, :, 0] /= 100  # where the cube root is a line
    torch.testing.assert_close(lab(images), rgb_to_lab(images), rtol=0, atol=1e-9)


def test_ycbcr_is_that_of_broadcasting() -> None:
    """BT.601 with 8 bits, from its own matrix."""
    red, green, blue = 0.2, 0.5, 0.9
    y = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    cb = 128 - 37.797 * red - 74.203 * green + 112 * blue
    cr = 128 + 112 * red - 93.786 * green - 18.214 * blue
    expected = ((y - 116.151) / 109.5, (cb - 121.08) / 111.855, (cr - 132.342) / 111.964)
    assert seen(views(space="ycbcr"), colour(red, green, blue)) == pytest.approx(expected, abs=3e-3)


def test_layout_of_luminance_and_chrominance() -> None:
    layout = views().layout
    assert layout.channels == (1, 2) and layout.sizes == ((16, 16),) * 2
    assert layout.queries == layout.keys == (0, 1) and layout.pairs == ((0, 1), (1, 0))


def test_grey_colours_have_a_constant_chrominance() -> None:
    chrominance = [seen(views(), colour(v, v, v))[1:] for v in (0.0, 0.3, 0.8, 1.0)]
    for values in chrominance:
        assert values == pytest.approx(chrominance[0], abs=1e-3)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_are_finite(space: str, value: int) -> None:
    images = torch.full((2, 3, 16, 16), value, dtype=torch.uint8)
    component = views(space=space)
    made = component.generate_views(Batch(images, torch.arange(2)), Step(component="views"))
    for crop in (*made.crops, *component.evaluation_views(images).crops):
        assert crop.isfinite().all()


@pytest.mark.parametrize("space", ["lab", "ycbcr"])
def test_what_is_outside_the_gamut_counts_as_its_border(space: str) -> None:
    component = views(space=space)
    outside = seen(component, colour(1.4, -0.3, 0.5))
    assert outside == seen(component, colour(1.0, 0.0, 0.5))


def test_bicubic_crops_stay_in_the_gamut() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.randint(0, 2, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)
    component = views(space="raw", interpolation="bicubic", normalize=False)
    batch = Batch(images, torch.arange(8))
    crops = component.generate_views(batch, Step(component="views")).crops
    assert all(crop.min() >= 0 and crop.max() <= 1 for crop in crops)


def test_any_groups_of_any_channels() -> None:
    component = views(plan_of(5), space="raw", groups=((0, 1, 2), (4,), (3, 4)))
    image = torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 16, 16) / 10
    assert component.layout.channels == (3, 1, 2)
    assert seen(component, image) == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.3, 0.4])
    assert views(plan_of(4), space="raw").layout.channels == (1, 1, 1, 1)


def test_raw_channels_are_standardised_each_by_its_own() -> None:
    plan = Plan(channels=2, image_size=16, mean=(0.1, 0.2), std=(0.5, 0.25))
    image = torch.tensor([0.6, 0.7]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    assert seen(views(plan, space="raw"), image) == pytest.approx([1.0, 2.0])


def test_all_views_are_of_one_crop() -> None:
    generator = torch.Generator().manual_seed(0)
    channel = torch.randint(0, 256, (6, 1, 16, 16), dtype=torch.uint8, generator=generator)
    component = views(plan_of(2), space="raw")
    batch = Batch(channel.expand(6, 2, 16, 16), torch.arange(6))
    first, second = component.generate_views(batch, Step(component="views")).crops
    other = component.generate_views(batch, Step(number=1, component="views")).crops[0]
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_frequencies_add_up_to_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=generator)
    low, high = (component := views(plan_of(3), space="frequencies")).evaluation_views(images).crops
    torch.testing.assert_close(low + high, images)
    assert low.std() < images.std() and component.layout.channels == (3, 3)


def test_images_of_one_channel_have_frequencies_instead_and_the_run_says_so() -> None:
    said: list[str] = []
    component = views(plan_of(1, notice=said.append), groups=((0,), (1, 2)))
    assert component.layout.channels == (1, 1)
    assert len(said) == 1 and "views.space = frequencies" in said[0]


@pytest.mark.parametrize("views_, full, core", [(2, 2, 2), (3, 6, 4), (4, 12, 6)])
def test_full_graph_and_core_view(views_: int, full: int, core: int) -> None:
    everyone = range(views_)
    assert set(pairs_of(everyone, "full")) == {(a, b) for a in everyone for b in everyone if a != b}
    assert len(pairs_of(everyone, "full")) == full
    assert set(pairs_of(everyone, "core")) == {
        pair for j in range(1, views_) for pair in ((0, j), (j, 0))
    }
    assert len(pairs_of(everyone, "core")) == core


@pytest.mark.parametrize(
    "channels, settings, message",
    [
        (5, {}, r"space = lab needs RGB images, but these have 5 channels: use views.space = raw"),
        (3, {"groups": ((0,), (3,))}, "names channel 3, but views.space = lab has the channels 0"),
        (3, {"groups": ((0,), (-1,))}, "names channel -1"),
        (3, {"groups": ((0, 1, 2),)}, "two or more groups of channels"),
        (3, {"groups": ((0,), ())}, "none of them empty"),
        (1, {"space": "raw"}, "two or more groups of channels"),
        (
            3,
            {"grey_p": 0.2, "order": ("crop", "grey")},
            "grey_p = 0.2 would remove the colours",
        ),
    ],
)
def test_views_that_cannot_be(channels: int, settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        views(plan_of(channels), **settings)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("normalize", [True, False])
def test_pictures_show_each_channel_between_its_limits(space: str, normalize: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    component = views(space=space, normalize=normalize)
    images = torch.rand(4, 3, 16, 16, generator=generator)
    crops = component.evaluation_views(images).crops
    pictures = torch.cat([component.pictured(v, crop) for v, crop in enumerate(crops)], dim=1)
    assert pictures.min() >= -0.01 and pictures.max() <= 1.01
    values, limits = SPACES[space].convert(images), SPACES[space].limits(pictures.shape[1])
    low, high = (torch.tensor(limit).view(-1, 1, 1) for limit in limits)
    torch.testing.assert_close(pictures, (values - low) / (high - low), atol=1e-5, rtol=1e-4)
