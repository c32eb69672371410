from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coview import Batch, Plan, RequestError, Step
from coview_cpc import augmentation
from coview_cpc.patches import PatchViews

GREY = Plan(channels=1, image_size=32, mean=(0.25,), std=(0.5,))


def views(plan: Plan = GREY, **settings: object) -> PatchViews:
    still: dict[str, object] = {"flip_p": 0.0, "normalize": False, "kept": 1000}
    return PatchViews(PatchViews.Settings(**(still | settings)), plan)


def numbered(count: int = 2, channels: int = 1, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator
    )


def made(component: PatchViews, images: Tensor, number: int = 0) -> tuple[Tensor, ...]:
    batch = Batch(images, torch.arange(len(images)))
    return component.generate_views(batch, Step(number=number, component="views")).crops


def test_the_paper_cuts_256_pixels_into_7_by_7_patches_of_64() -> None:
    component = views(Plan(channels=1, image_size=300, mean=(0.0,), std=(1.0,)), size=256)
    assert component.layout.grid == (7, 7)
    assert component.layout.sizes == ((64, 64),) * 49
    images = numbered(1, side=300)
    centre = images[0, :, 22:278, 22:278].float() / 255
    crops = component.evaluation_views(images).crops
    for row in range(7):
        for column in range(7):
            expected = centre[:, 32 * row : 32 * row + 64, 32 * column : 32 * column + 64]
            assert torch.equal(crops[7 * row + column][0], expected)


@pytest.mark.parametrize("side, patch, grid", [(64, 16, 7), (32, 8, 7), (16, 4, 7), (28, 7, 8)])
def test_small_images_have_patches_of_a_quarter(side: int, patch: int, grid: int) -> None:
    component = views(Plan(channels=1, image_size=side, mean=(0.0,), std=(1.0,)))
    assert component.layout.grid == (grid, grid)
    assert component.layout.sizes[0] == (patch, patch)


def test_without_randomness_training_and_evaluation_see_the_same() -> None:
    images, component = numbered(), views()
    for trained, evaluated in zip(
        made(component, images), component.evaluation_views(images).crops, strict=True
    ):
        assert torch.equal(trained, evaluated)


def test_floats_are_taken_as_they_are() -> None:
    images, component = numbered(), views(normalize=True)
    for a, b in zip(
        component.evaluation_views(images).crops,
        component.evaluation_views(images.float() / 255).crops,
        strict=True,
    ):
        assert torch.equal(a, b)


def test_pictures_of_patches_are_the_pixels_again() -> None:
    images = numbered()
    plain, component = views(), views(normalize=True)
    seen = component.evaluation_views(images).crops[8]
    torch.testing.assert_close(
        component.pictured(8, seen), plain.evaluation_views(images).crops[8], atol=1e-6, rtol=1e-5
    )


def test_pairs_are_patches_and_those_below_them() -> None:
    layout = views().layout
    places = {v: divmod(v, 7) for v in range(49)}
    expected = {
        (v, w)
        for v in places
        for w in places
        if places[v][1] == places[w][1] and places[w][0] > places[v][0]
    }
    assert set(layout.pairs) == expected and len(layout.pairs) == 7 * 21


def test_a_random_crop_is_a_window_of_the_padded_image() -> None:
    images = numbered(8, side=32)
    component = views(padding=3, size=32, patch=16, stride=16, normalize=True)
    padded = torch.nn.functional.pad(images.float() / 255, (3,) * 4, value=0.25)
    windows = {}
    for number in range(8):
        crops = made(component, images, number)
        top = torch.cat(
            [torch.cat([crops[0], crops[1]], -1), torch.cat([crops[2], crops[3]], -1)], -2
        )
        for row, image in enumerate(top * 0.5 + 0.25):
            found = [
                (y, x)
                for y in range(7)
                for x in range(7)
                if torch.allclose(padded[row, :, y : y + 32, x : x + 32], image, atol=1e-6)
            ]
            assert len(found) == 1
            windows[found[0]] = True
    # 64 draws of 49 places: far more than a few are met.
    assert len(windows) > 20


def test_flips_about_as_often_as_asked() -> None:
    images = numbered(400, side=8)
    plan = Plan(channels=1, image_size=8, mean=(0.0,), std=(1.0,))
    component = views(plan, patch=4, stride=4, flip_p=0.3)
    left, right = made(component, images)[:2]
    seen = torch.cat([left, right], -1)
    plain = images[:, :, :4].float() / 255
    flipped = (seen == plain.flip(-1)).flatten(1).all(1)
    same = (seen == plain).flatten(1).all(1)
    assert bool((flipped ^ same).all())
    assert 0.2 < flipped.float().mean() < 0.4


def test_each_patch_keeps_a_part_of_its_own_surrounded_by_the_mean() -> None:
    images, component = numbered(4, side=32) // 2 + 100, views(kept=None, patch=16, stride=8)
    whole = component.evaluation_views(images).crops
    corners = set()
    for patch, moved in zip(whole, made(component, images), strict=True):
        for row in range(len(images)):
            inner = moved[row, 0, 0:15, 0:15]
            found = [
                (y, x)
                for y in (0, 1)
                for x in (0, 1)
                if torch.equal(inner, patch[row, 0, y : y + 15, x : x + 15])
            ]
            assert len(found) == 1
            corners.update(found)
            assert moved[row, 0, 15].eq(0).all() and moved[row, 0, :, 15].eq(0).all()
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_colours_become_luma_and_their_statistics_too() -> None:
    plan = Plan(channels=3, image_size=32, mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2))
    component = views(plan, normalize=True)
    images = numbered(2, channels=3)
    red, green, blue = (images[0, c, 0, 0].item() / 255 for c in range(3))
    expected = (0.2989 * red + 0.587 * green + 0.114 * blue) / 0.9999
    mean = (0.2989 * 0.1 + 0.587 * 0.2 + 0.114 * 0.3) / 0.9999
    seen = component.evaluation_views(images).crops[0][0, 0, 0, 0].item()
    assert component.layout.channels[0] == 1
    assert seen == pytest.approx((expected - mean) / 0.2, abs=1e-5)


def test_dropping_colours_leaves_one_channel_of_each_patch() -> None:
    plan = Plan(channels=3, image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    component = views(plan, grey=False, drop_colours_p=1.0)
    images = numbered(4, channels=3) // 2 + 100
    left = torch.stack([crop.flatten(2).ne(0).all(2) for crop in made(component, images)])
    assert left.sum(-1).eq(1).all()
    assert left.flatten(0, 1).float().mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.15)


def test_all_operations_of_the_second_paper_depend_on_the_step_alone() -> None:
    plan = Plan(channels=3, image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    component = views(
        plan, grey=False, drop_colours_p=0.5, jitter_p=0.8, affine_p=0.5, elastic_p=0.5, flip_p=0.5
    )
    images = numbered(2, channels=3)
    first, again, other = (torch.stack(made(component, images, n)) for n in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.isfinite().all()


def test_two_processes_see_what_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(channels=3, image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3)
    component = views(
        plan, grey=False, kept=None, padding=2, flip_p=0.5, drop_colours_p=0.5, jitter_p=0.8
    )
    images = numbered(4, channels=3)
    whole = torch.stack(made(component, images))
    monkeypatch.setattr(augmentation, "world_size", lambda: 2)
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(augmentation, "rank", lambda rank=rank: rank)
        halves.append(torch.stack(made(component, images[2 * rank : 2 * rank + 2])))
    torch.testing.assert_close(torch.cat(halves, dim=1), whole)


def test_grey_images_keep_what_colours_they_have() -> None:
    said: list[str] = []
    plan = Plan(channels=1, image_size=32, mean=(0.0,), std=(1.0,), notice=said.append)
    views(plan, grey=False, drop_colours_p=1.0)
    assert said == ["images have 1 channel(s), so patches keep their colours"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": 64}, "size = 64 is more than the loader's 32 pixels"),
        ({"size": 40, "padding": 2}, "32 pixels and 2 of padding on each side"),
        ({"patch": 32}, "leaves only one patch of an image of 32 pixels: use less, .* a quarter"),
    ],
)
def test_grids_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        views(**settings)
