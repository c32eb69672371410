"""What the kernels paint, beside the fused chain: run by test_kernels.py in a process of its own.

On a GPU they run compiled, elsewhere in Triton's interpreter, which has to be chosen
before anything imports Triton.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from coview.views.backends.fused import whole as wholes
from coview.views.backends.fused.plan import Fused
from coview.views.backends.fused.whole import Whole
from coview.views.operations import (
    KORNIA_LUMA,
    Blur,
    Crop,
    Flip,
    Grey,
    Jitter,
    Solarize,
    Standardize,
    jitter_ranges,
)
from coview_triton import passes, views

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
assert views.INTERPRETED is not torch.cuda.is_available()
CROP = Crop(10, (0.2, 1.0), (0.75, 4 / 3))
JITTER = Jitter(jitter_ranges((0.8, 0.8, 0.8, 0.2)), 0.8)
LAST = Standardize((0.4, 0.5, 0.45), (0.2, 0.25, 0.3))


def smooth(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Return images in [0, 1] that change little from pixel to pixel, as photographs do."""
    waves = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(count))
    return interpolate(waves, (height, width), mode="bicubic").clamp(0, 1).to(DEVICE)


def eight_bits(images: Tensor) -> Tensor:
    return (images * 255).to(torch.uint8)


def both(views_of: list[list[Any]], images: Tensor | Whole, **more: Any) -> tuple[Tensor, Tensor]:
    """Return what the kernels and what the fused chain make of the same numbers."""
    made = []
    for kind in (views.Painted, Fused):
        generator = torch.Generator(DEVICE).manual_seed(5)
        made.append(torch.stack(kind(views_of, **more)(images, generator, 7, 0, 1)))
    assert made[0].dtype == made[1].dtype
    return made[0].float(), made[1].float()


def agree(views_of: list[list[Any]], images: Tensor | Whole, **more: Any) -> None:
    ours, theirs = both(views_of, images, **more)
    torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [(20, 24), (70, 66)], ids=["small", "large"])
@pytest.mark.parametrize("corners", [False, True])
def test_crops(interpolation: str, side: tuple[int, int], corners: bool) -> None:
    crop = attrs.evolve(CROP, interpolation=interpolation, align_corners=corners)
    images = smooth(4, *side)
    for source in (images, eight_bits(images)):
        agree([[crop, Flip(0.5)]] * 2, source)
        agree([[Flip(0.5), crop, LAST]], source)


def test_values_out_of_range_are_clamped_at_the_end() -> None:
    agree([[CROP, LAST]], smooth(4, 20, 24) * 2 - 0.5)
    agree([[CROP, attrs.evolve(LAST, clamp=False)]], smooth(4, 20, 24) * 2 - 0.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_antialiased_crops(interpolation: str) -> None:
    crop = attrs.evolve(CROP, size=4, antialias=True, interpolation=interpolation)
    images = smooth(2, 10, 8)
    agree([[crop, Flip(0.5)]] * 2, images)
    agree([[crop, Flip(0.5), JITTER]], eight_bits(images))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_of_whole_images(interpolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fused chain cuts them on a device; the third is cut down first."""
    monkeypatch.setattr(wholes, "_one_by_one", wholes._together)
    sizes = ((9, 7), (5, 10), (16, 6), (4, 4))
    flat = [eight_bits(smooth(1, *size))[0].permute(1, 2, 0).reshape(-1, 3) for size in sizes]
    starts = [sum(len(one) for one in flat[:k]) for k in range(len(flat))]
    extents = torch.tensor([(first, *size) for first, size in zip(starts, sizes, strict=True)])
    crop = Crop(4, (0.6, 1.0), (0.3, 4 / 3), interpolation, antialias=True)
    ours, theirs = both([[crop, Flip(0.5)]], Whole(torch.cat(flat), extents))
    # Between the axes 8 bits are left, and a half may be rounded either way.
    assert (ours - theirs).abs().max() < 1.1 / 255
    assert (ours - theirs).abs().mean() < 1e-4
    monkeypatch.setattr(wholes, "MOST", 1)  # image by image
    again, _ = both([[crop, Flip(0.5)]], Whole(torch.cat(flat), extents))
    assert torch.equal(ours, again)


@pytest.mark.parametrize("order", ["batch", "sample"])
@pytest.mark.parametrize("at_once", [4096, 0], ids=["one program", "many programs"])
def test_colours(order: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "WHOLE_VIEW", at_once)
    monkeypatch.setattr(passes, "PART", 64)
    jitter = attrs.evolve(JITTER, order=order)
    crop = attrs.evolve(CROP, size=13)
    other = attrs.evolve(jitter, luma=KORNIA_LUMA)
    images = smooth(5, 30, 30)
    agree([[crop, jitter, Grey(0.3), LAST], [crop, jitter, Grey(0.1), LAST]], images)
    agree([[crop, other, Grey(0.5)]], eight_bits(images))


@pytest.mark.parametrize("kind", ["gaussian", "pillow"])
def test_blurs(kind: str) -> None:
    blur = Blur(0.5, (0.1, 2.0), 5, kind)
    agree([[CROP, JITTER, blur, Solarize(0.5), LAST]] * 2, eight_bits(smooth(4, 20, 20)))
    agree([[blur]], smooth(4, 11, 17))


def test_one_channel_and_no_crop() -> None:
    jitter = Jitter(jitter_ranges((0.8, 0.8, 0.0, 0.0)), 0.8)
    last = Standardize((0.5,), (0.2,))
    agree([[CROP, Flip(0.5), jitter, Solarize(0.3), last]], eight_bits(smooth(4, 20, 20, 1)))
    agree([[Flip(0.5), JITTER, LAST]], smooth(4, 9, 16))
    agree([[JITTER, LAST]], smooth(4, 9, 16))


def test_five_channels_are_the_fused_chains() -> None:
    last = Standardize((0.5,) * 5, (0.2,) * 5)
    for antialias in (False, True):
        crop = attrs.evolve(CROP, antialias=antialias)
        ours, theirs = both([[crop, Flip(0.5), last]], smooth(3, 20, 20, 5))
        assert torch.equal(ours, theirs)


def test_views_of_sixteen_bits() -> None:
    ours, theirs = both([[CROP, JITTER, LAST]], smooth(4, 20, 20), dtype=torch.bfloat16)
    torch.testing.assert_close(ours, theirs, atol=0.04, rtol=0)  # the last bit of 8


@given(
    order=st.permutations([JITTER, Grey(0.4), Blur(0.6, (0.3, 1.5), 5), Solarize(0.5)]),
    count=st.integers(0, 4),
    seed=st.integers(0, 2**20),
    process=st.integers(0, 1),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_order(order: list[Any], count: int, seed: int, process: int) -> None:
    chain = [[CROP, Flip(0.5), *order[:count], LAST]]
    made = []
    for kind in (views.Painted, Fused):
        generator = torch.Generator(DEVICE).manual_seed(seed)
        made += kind(chain)(eight_bits(smooth(3, 16, 20)), generator, seed, process, 2)
    away = (made[0] - made[1]).abs() > 5e-5
    # Solarised pixels of one half, to rounding, may fall on either side.
    assert away.float().mean() < 2e-3
