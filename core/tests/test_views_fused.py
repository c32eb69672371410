"""The fused chain: pixels as torchvision and kornia make them, draws as torchvision does."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import attrs
import kornia.augmentation as kornia
import pytest
import torch
import torchvision.transforms.v2 as tv
import torchvision.transforms.v2.functional as tvf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from coview import RequestError
from coview.nn import compile as compiling
from coview.plan import Plan
from coview.records import Batch, Step
from coview.testing import Synchronisations
from coview.views import Augmentation, Chain, CropViews, Normalize, TransformViews, fuse
from coview.views.backends.fused import fusing
from coview.views.backends.fused import plan as fused_module
from coview.views.backends.fused.colour import hue_offsets, rotate_hue_
from coview.views.backends.fused.parameters import Rows
from coview.views.backends.fused.plan import Fused, Parameters
from coview.views.backends.kornia import described
from coview.views.operations import (
    Blur,
    Crop,
    Flip,
    Grey,
    Jitter,
    Solarize,
    Standardize,
    jitter_ranges,
)

MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG = Jitter(jitter_ranges((0.8, 0.8, 0.8, 0.4)), p=0.7)
SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Six 80 x 70 pieces of a photograph, (6, 3, 80, 70) uint8."""
    photo = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)
    return torch.stack([photo[:, y : y + 80, x : x + 70] for y in (0, 200) for x in (0, 150, 300)])


@pytest.fixture(scope="module")
def images(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def drawn(run: Fused, images: Tensor, seed: int = 0) -> Parameters:
    generator = torch.Generator().manual_seed(seed)
    return run.draw(Rows(len(images)), generator, seed, tuple(images.shape[-2:]))


def by_torchvision(
    operations: tuple[Any, ...], image: Tensor, parameters: Parameters, view: int, row: int
) -> Tensor:
    """Apply one image's operations, in their order, by torchvision's functions."""
    for k, (op, all_rows) in enumerate(zip(operations, parameters.drawn, strict=True)):
        own = {name: value[..., view, row] for name, value in all_rows.items()}
        if isinstance(op, Crop):
            box = [int(own[name]) for name in ("top", "left", "height", "width")]
            mode = MODES[op.interpolation]
            image = tvf.resized_crop(image, *box, [op.size] * 2, mode, op.antialias).clamp(0, 1)
        elif isinstance(op, Standardize):
            image = tvf.normalize(image, list(op.mean), list(op.std))
        elif not own or not own["on"]:
            continue
        elif isinstance(op, Flip):
            image = tvf.horizontal_flip(image)
        elif isinstance(op, Jitter):
            order = parameters.orders[k][view] if k in parameters.orders else by_position(own)
            steps: list[Callable[[Tensor, float], Tensor]] = [
                tvf.adjust_brightness,
                tvf.adjust_contrast,
                tvf.adjust_saturation,
                tvf.adjust_hue,
            ]
            for step in order:
                image = steps[step](image, float(own["factors"][step]))
        elif isinstance(op, Grey):
            image = tvf.rgb_to_grayscale(image, 3)
        elif isinstance(op, Blur):
            image = tvf.gaussian_blur(image, [op.taps] * 2, [float(own["sigma"])] * 2)
        elif isinstance(op, Solarize):
            image = tvf.solarize(image, 0.5)
    return image


def by_position(own: dict[str, Tensor]) -> list[int]:
    return own["position"].argsort().tolist()


def agrees(views: list[tuple[Any, ...]], pixels: Tensor, seed: int, atol: float = 1e-5) -> None:
    run = Fused(views)
    parameters = drawn(run, pixels, seed)
    made = run.render(pixels, parameters)
    for view, crops in enumerate(made):
        for row, image in enumerate(pixels.float() / 255):
            own = by_torchvision(views[view], image, parameters, view, row)
            assert (crops[row] - own).abs().max() < atol, (view, row)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("crop_first", [False, True])
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 60))
def test_crop_and_flip(
    pixels: Tensor, mode: str, antialias: bool, crop_first: bool, seed: int, size: int
) -> None:
    crop = Crop(size, (0.02, 1.0), (0.5, 2.0), mode, antialias)
    agrees([(crop, Flip(0.5)) if crop_first else (Flip(0.5), crop)], pixels, seed)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_crop_of_small_images(pixels: Tensor, mode: str, antialias: bool) -> None:
    """Small images take another way when the resampling is bicubic."""
    for seed in range(6):
        crop = Crop(32, (0.05, 1.0), (0.75, 4 / 3), mode, antialias)
        agrees([(crop, Flip(0.5))], pixels[..., :32, :32].contiguous(), seed)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, order=st.sampled_from(["batch", "sample"]))
def test_jitter(pixels: Tensor, seed: int, order: str) -> None:
    agrees([(attrs.evolve(STRONG, order=order),)] * 2, pixels, seed)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, sigma=st.floats(0.05, 4.0), taps=st.sampled_from([1, 3, 9, 23, 41]))
def test_blur(pixels: Tensor, seed: int, sigma: float, taps: int) -> None:
    agrees([(Blur(0.7, (0.05, sigma + 0.05), taps),)], pixels, seed)


@pytest.mark.parametrize("one", [Grey(0.5), Solarize(0.5), Flip(0.5), Standardize(MEAN, STD)])
def test_other_operations(pixels: Tensor, one: Any) -> None:
    for seed in range(3):
        agrees([(one,)], pixels, seed)


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, shuffle=st.permutations(range(5)), interpolation=st.sampled_from(list(MODES)))
def test_whole_chains_of_different_strength_in_one_call(
    pixels: Tensor, seed: int, shuffle: list[int], interpolation: str
) -> None:
    """Whatever the order of the operations, the flip may be done with the crop."""
    one = [Flip(0.5), STRONG, Grey(0.3), Blur(1.0, (0.1, 2.0), 9), Solarize(0.0)]
    two = [Flip(0.2), attrs.evolve(STRONG, p=0.2), Grey(0.9), Blur(0.1, (1, 2), 9), Solarize(0.4)]
    views = []
    for share, own in (((0.3, 1.0), one), ((0.05, 0.2), two)):
        crop = Crop(40, share, (0.75, 4 / 3), interpolation)
        views.append((crop, *(own[k] for k in shuffle), Standardize(MEAN, STD)))
    agrees(views, pixels, seed, atol=5e-5)  # a fifth of it before the division by the deviation


@settings(max_examples=200, deadline=None)
@given(colour=st.tuples(*[st.floats(0, 1, width=32)] * 3), turns=st.floats(-0.5, 0.5, width=32))
def test_hue_is_hsv_s(colour: tuple[float, float, float], turns: float) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    own = colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)
    x = torch.tensor(colour).view(1, 3, 1)
    made = rotate_hue_(x, hue_offsets(torch.tensor([turns])))
    assert made.flatten().tolist() == pytest.approx(own, abs=2e-6)


# kornia


def as_ours(module: Any, params: dict[str, Tensor]) -> Parameters:
    """Translate what kornia drew into this backend's parameters, of one view."""
    by_row: dict[str, Tensor] = {}
    orders: dict[int, list[tuple[int, ...]]] = {}
    if isinstance(module, kornia.RandomResizedCrop):
        source = params["src"]
        extent = source[:, 2] - source[:, 0] + 1
        by_row = {"left": source[:, 0, 0], "top": source[:, 0, 1], "width": extent[:, 0],
                  "height": extent[:, 1]}  # fmt: skip
    else:
        by_row["on"] = params["batch_prob"] > 0.5
    if isinstance(module, kornia.ColorJitter):
        names = ("brightness", "contrast", "saturation", "hue")
        by_row["factors"] = torch.stack([params[f"{name}_factor"] for name in names])
        orders[0] = [tuple(params["order"].tolist())]
    if isinstance(module, kornia.RandomGaussianBlur):
        by_row["sigma"] = params["sigma"]
    return Parameters(({name: value.unsqueeze(-2) for name, value in by_row.items()},), orders)


@pytest.mark.parametrize(
    "module",
    [
        kornia.RandomResizedCrop((24, 24), align_corners=False),
        kornia.RandomResizedCrop((24, 24), align_corners=True),
        kornia.RandomResizedCrop((90, 90), (0.1, 0.5), resample="bicubic", align_corners=False),
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.7),
        kornia.ColorJitter((0.2, 1.5), 0.4, (0.1, 2.0), (-0.3, 0.1), p=0.7),
        kornia.RandomGrayscale(p=0.5),
        kornia.RandomGaussianBlur((11, 11), (0.1, 2.0), p=0.5),
        kornia.RandomSolarize(0.0, 0.0, p=0.5),
    ],
    ids=lambda module: type(module).__name__,
)
def test_kornia_s_modules_do_the_same(images: Tensor, module: Any) -> None:
    description = described(module)
    assert description is not None
    run = Fused([(description,)])
    for seed in range(5):
        torch.manual_seed(seed)
        params = module.forward_parameters(images.shape)
        expected = module(images, params=params)
        (made,) = run.render(images, as_ours(module, params))
        if getattr(description, "interpolation", "") == "bicubic":
            expected = expected.clamp(0, 1)
        assert (made - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "module",
    [
        kornia.RandomErasing(),
        kornia.RandomResizedCrop((24, 24), cropping_mode="resample"),
        kornia.RandomResizedCrop((24, 20)),
        kornia.RandomResizedCrop((24, 24), resample="nearest"),
        kornia.RandomResizedCrop((24, 24), p=0.5),
        kornia.RandomHorizontalFlip(same_on_batch=True),
        kornia.RandomHorizontalFlip(p_batch=0.5),
        kornia.ColorJiggle(0.1, 0.1),
        kornia.RandomGaussianBlur((3, 5), (0.1, 2.0)),
        kornia.RandomGaussianBlur((3, 3), (0.1, 2.0), border_type="constant"),
        kornia.RandomSolarize(0.1, 0.0),
        kornia.RandomGrayscale(p=0.5, keepdim=True),
        tv.RandomInvert(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_has_no_description_is_left_to_itself(module: Any) -> None:
    assert fuse([module]) == [module]


def test_only_standard_runs_are_fused(images: Tensor) -> None:
    erase = kornia.RandomErasing(p=1.0)
    sequence = kornia.ImageSequential(
        kornia.RandomHorizontalFlip(),
        kornia.RandomResizedCrop((24, 24)),
        kornia.RandomGrayscale(p=0.5),
        erase,
        kornia.RandomGaussianBlur((3, 3), (0.1, 2.0)),
        kornia.RandomResizedCrop((16, 16)),
    )
    chain = Chain(fuse([sequence]))
    first, second, *others = chain.operations
    assert isinstance(first, Fused)
    assert [type(one) for one in first.views[0]] == [Flip, Crop, Grey]
    assert second is erase
    assert [type(one.views[0][0]) for one in others if isinstance(one, Fused)] == [Blur, Crop]
    assert chain(images, seed=0).shape == (6, 3, 16, 16)
    assert (chain(images, seed=0) == chain(images, seed=0)).all()


def test_a_users_kornia_chain_makes_both_views_in_one_call(pixels: Tensor) -> None:
    own = torch.nn.Sequential(kornia.RandomResizedCrop((24, 24)), kornia.RandomHorizontalFlip())
    views = TransformViews(own, Plan(image_size=80))
    assert [numbers for numbers, _ in views.rendering.together] == [[0, 1]]
    one, two = views.generate_views(Batch(pixels, torch.arange(6)), Step()).crops
    assert one.shape == (6, 3, 24, 24)
    assert all(not torch.equal(a, b) for a, b in zip(one, two, strict=True))


# What is drawn


def quantiles(values: Tensor) -> Tensor:
    return values.double().quantile(torch.linspace(0.05, 0.95, 10).double())


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((56, 56), (0.08, 1.0), (0.75, 4 / 3)), ((40, 90), (0.3, 1.0), (0.5, 2.0))],
)
def test_boxes_are_drawn_as_torchvision_draws_them(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    count = 6000
    run = Fused([(Crop(8, scale, ratio),)])
    (box,) = drawn(run, torch.zeros(count, 1, *size)).drawn
    torch.manual_seed(0)
    image = torch.zeros(1, *size)
    crop = tv.RandomResizedCrop(8, scale, ratio, antialias=False)
    theirs = [crop.make_params([image]) for _ in range(count)]
    for name in ("top", "left", "height", "width"):
        expected = torch.tensor([float(one[name]) for one in theirs])
        span = size[0] if name in ("top", "height") else size[1]
        assert (quantiles(box[name].flatten()) - quantiles(expected)).abs().max() < 0.04 * span
        assert box[name].max() <= span
    assert (box["top"] + box["height"]).max() <= size[0]
    assert (box["left"] + box["width"]).max() <= size[1]
    assert min(box["top"].min(), box["left"].min()) == 0


@pytest.mark.parametrize("ratio", [(3.0, 4.0), (0.1, 0.2), (0.9, 1.1)])
def test_boxes_that_never_fit_are_central(ratio: tuple[float, float]) -> None:
    # A scale above 1 fits nothing, so that torchvision falls back too.
    run = Fused([(Crop(8, (1.5, 2.0), ratio),)])
    (box,) = drawn(run, torch.zeros(5, 1, 50, 70)).drawn
    crop = tv.RandomResizedCrop(8, (1.5, 2.0), ratio, antialias=False)
    expected = crop.make_params([torch.zeros(1, 50, 70)])
    for name in ("top", "left", "height", "width"):
        assert (box[name] == expected[name]).all(), name


def test_factors_probabilities_and_deviations() -> None:
    operations = (
        Jitter(jitter_ranges((0.4, 1.3, 0.2, 0.1)), 0.8), Flip(0.5), Grey(0.2),
        Blur(0.1, (0.5, 2.0), 5), Solarize(0.3),
    )  # fmt: skip
    rows = drawn(Fused([operations] * 2), torch.zeros(5000, 3, 4, 4)).drawn
    for op, own in zip(operations, rows, strict=True):
        assert own["on"].shape == (2, 5000)
        assert own["on"].float().mean().item() == pytest.approx(op.p, abs=0.02)
    reference = tv.ColorJitter(0.4, 1.3, 0.2, 0.1)
    for name, own in zip(("brightness", "contrast", "saturation", "hue"), rows[0]["factors"],
                         strict=True):  # fmt: skip
        low, high = getattr(reference, name)
        expected = torch.linspace(low + 0.05 * (high - low), high - 0.05 * (high - low), 10)
        assert (quantiles(own.flatten()) - expected).abs().max() < 0.03 * (high - low)
    assert (
        quantiles(rows[3]["sigma"].flatten())[[0, -1]] - torch.tensor([0.575, 1.925])
    ).abs().max() < 0.05


def test_orders() -> None:
    """Each of the 24 comes up, for each view by itself or each sample by itself."""
    run = Fused([(STRONG,)] * 2)
    pairs = [drawn(run, torch.zeros(1, 3, 4, 4), seed).orders[0] for seed in range(400)]
    assert len({pair[0] for pair in pairs}) == 24
    assert sum(one == two for one, two in pairs) < 40
    sample = Fused([(attrs.evolve(STRONG, order="sample"),)])
    position = drawn(sample, torch.zeros(2400, 3, 4, 4)).drawn[0]["position"][:, 0]
    found, counts = position.unique(dim=1, return_counts=True)
    assert found.shape[1] == 24
    assert counts.min() > 60


def test_steps_that_change_nothing_are_left_out() -> None:
    only = Fused([(Jitter(jitter_ranges((0.4, 0.0, 0.0, 0.1)), 1.0),)])
    (order,) = drawn(only, torch.zeros(1, 3, 4, 4)).orders[0]
    assert sorted(order) == [0, 3]


# How it runs


def views_of(backend: str = "fused", size: int = 24, **chosen: Any) -> CropViews:
    plan = Plan(image_size=80, mean=MEAN, std=STD)
    settings = Augmentation(size=size, backend=backend, solarize_p=0.2, **chosen)
    return CropViews([settings, attrs.evolve(settings, blur_p=0.1)], plan)


@pytest.mark.parametrize("order", ["batch", "sample"])
@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("antialias", [False, True])
def test_nothing_waits_for_the_device(
    pixels: Tensor, order: str, interpolation: str, antialias: bool
) -> None:
    views = views_of(jitter_order=order, interpolation=interpolation, antialias=antialias)
    batch, step = Batch(pixels, torch.arange(6)), Step(component="views")
    views.generate_views(batch, step)  # numbers that are kept on the device are copied once
    with Synchronisations() as seen:
        views.generate_views(batch, step)
    assert not seen.found


def test_views_of_one_size_are_one_call() -> None:
    settings = [Augmentation(size=24), Augmentation(size=16), Augmentation(size=24, blur_p=0.1)]
    together = CropViews(settings, Plan(image_size=80)).rendering.together
    assert [numbers for numbers, _ in together] == [[0, 2], [1]]
    other = attrs.evolve(settings[0], interpolation="bicubic")
    assert len(CropViews([settings[0], other], Plan(image_size=80)).rendering.together) == 2


def test_processes_share_the_draws(pixels: Tensor) -> None:
    run = Fused([(Crop(24, (0.2, 1), (0.75, 1.3)), Flip(0.5), STRONG)] * 2)
    make = torch.Generator()
    (one, two) = run(pixels, make.manual_seed(1), 5, 0, 1)
    for rank in (0, 1):
        own = slice(3 * rank, 3 * rank + 3)
        parts = run(pixels[own], make.manual_seed(1), 5, rank, 2)
        assert torch.allclose(parts[0], one[own], atol=1e-6)
        assert torch.allclose(parts[1], two[own], atol=1e-6)


@pytest.mark.parametrize("operations", [(), (Flip(0.5),), (STRONG,), (Solarize(1.0),)])
def test_images_are_left_as_they_were(images: Tensor, operations: tuple[Any, ...]) -> None:
    before = images.clone()
    run = Fused([(*operations, Standardize(MEAN, STD))])
    run(images, torch.Generator(), 0, 0, 1)
    assert torch.equal(images, before)


@pytest.mark.parametrize("pixels_at_once", [24 * 24 * 4, 2**30])
def test_how_many_images_go_at_once_changes_nothing(
    pixels: Tensor, monkeypatch: pytest.MonkeyPatch, pixels_at_once: int
) -> None:
    """One view of a few images at a time, or every view of every image as on a GPU."""
    batch = Batch(pixels, torch.arange(6))
    monkeypatch.setattr(fused_module, "CACHED_PIXELS", 24 * 24 * 6)
    whole = views_of().generate_views(batch, Step()).crops
    monkeypatch.setattr(fused_module, "CACHED_PIXELS", pixels_at_once)
    parts = views_of().generate_views(batch, Step()).crops
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_number_types(pixels: Tensor, dtype: str) -> None:
    batch = Batch(pixels, torch.arange(6))
    exact = views_of().generate_views(batch, Step()).crops
    for normalize in (True, False):
        exact = views_of(normalize=normalize).generate_views(batch, Step()).crops
        made = views_of(normalize=normalize, dtype=dtype).generate_views(batch, Step()).crops
        for a, b in zip(exact, made, strict=True):
            assert b.dtype == getattr(torch, dtype)
            assert torch.equal(a.to(b.dtype), b)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_channels(channels: int) -> None:
    pixels = torch.randint(0, 256, (3, channels, 20, 20), dtype=torch.uint8)
    normalize = Normalize((0.5,) * channels, (0.5,) * channels, True)
    chain = Augmentation(solarize_p=0.5).chain(16, channels, normalize)
    assert chain.whole is not None
    kinds = {type(one) for one in chain.whole.views[0]}
    assert (Grey in kinds) == (channels == 3)
    assert (Jitter in kinds) == (channels in (1, 3))
    made = chain(pixels, seed=0)
    assert made.shape == (3, channels, 16, 16)
    assert made.abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("order", ["batch", "sample"])
def test_one_channel_has_brightness_and_contrast(order: str) -> None:
    pixels = torch.randint(0, 256, (4, 1, 20, 20), dtype=torch.uint8)
    jitter = Jitter(jitter_ranges((0.8, 0.8, 0.0, 0.0)), 1.0, order=order)
    agrees([(jitter,)], pixels, seed=3)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"backend": "kornia", "antialias": True}, "without antialiasing"),
        ({"backend": "kornia", "jitter_order": "sample"}, "one order"),
        ({"backend": "torchvision", "dtype": "bfloat16"}, "backend = fused"),
        ({"backend": "kornia", "dtype": "bfloat16"}, "backend = fused"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(chosen: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Augmentation(**chosen).chain(24, 3, Normalize(MEAN, STD, True))


# Compilation


def test_when_views_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    assert fusing.whether_compiled("off") is False
    assert fusing.whether_compiled("auto") is None  # as the run does
    assert fusing.whether_compiled("on") is True
    assert [compiling.decide("auto", steps) for steps in (10**3, 10**6)] == ["off", "views"]
    assert [compiling.decide(a, 10**6) for a in ("on", "views", "off")] == ["on", "views", "off"]
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    assert compiling.decide("auto", 10**6) == compiling.decide("off", 10**6) == "off"
    for asked in ("on", "views"):
        with pytest.raises(RequestError, match=r"C\+\+ compiler"):
            compiling.decide(asked, 1)
    with pytest.raises(RequestError, match=r"C\+\+ compiler"):
        fusing.whether_compiled("on")


@pytest.mark.parametrize(
    ("on", "views", "own", "expected"),
    [
        (True, True, None, True),
        (False, True, None, True),
        (False, False, None, False),
        (True, None, None, True),
        (False, False, True, True),
        (True, True, False, False),
    ],
)
def test_what_a_run_decides_of_its_views(
    monkeypatch: pytest.MonkeyPatch, on: bool, views: bool | None, own: bool | None, expected: bool
) -> None:
    """``--no-compile`` compiles no views; what the recipe says of its own goes before."""
    seen: list[bool] = []
    monkeypatch.setattr(Fused, "paint", lambda *_: seen.append(compiling.compiling()))
    monkeypatch.setattr(fused_module, "prepared_from", lambda *_: None)
    chain = fusing.fuse([Flip(0.5)], own)[0]
    assert isinstance(chain, Fused)
    with compiling.compiled(on, views):
        chain(torch.zeros(2, 3, 8, 8), torch.Generator(), 0, 0, 1)
    assert seen == [expected]


@pytest.mark.slow
@pytest.mark.skipif(not compiling.has_compiler(), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", ["batch", "sample"])
def test_compiled_loops_give_the_same(pixels: Tensor, order: str) -> None:
    batch = Batch(pixels, torch.arange(6))
    for number in range(4):
        step = Step(number=number)
        exact = views_of(jitter_order=order).generate_views(batch, step).crops
        step = Step(number=number)
        made = views_of(jitter_order=order, compile="on").generate_views(batch, step).crops
        for a, b in zip(exact, made, strict=True):
            assert (a - b).abs().max() < 1e-5
