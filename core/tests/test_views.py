"""kornia's augmentations against torchvision's on the same parameters; the chain's randomness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import kornia.augmentation as kornia
import pytest
import torch
import torchvision.transforms.v2 as tv
import torchvision.transforms.v2.functional as tvf
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from coview.plan import Plan
from coview.records import Batch, Step
from coview.views import Augmentation, Chain, CropViews, TransformViews, positives
from coview.views.augmentation import Normalize

BACKENDS = ("fused", "kornia", "torchvision")
ONLY: dict[str, Any] = {
    "jitter": (0.0, 0.0, 0.0, 0.0),
    "grey_p": 0.0,
    "blur_p": 0.0,
    "flip_p": 0.0,
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Six 48-pixel pieces of a real photograph, (6, 3, 48, 48) in [0, 1]."""
    photo = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1).float() / 255
    return torch.stack([photo[:, y : y + 48, x : x + 48] for y in (0, 200) for x in (0, 150, 300)])


def applied(operation: Any, images: Tensor, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    params = operation.forward_parameters(images.shape)
    return operation(images, params=params), params


def operation(settings: Augmentation, name: str, size: int = 48, channels: int = 3) -> Any:
    only = attrs.evolve(settings, order=(name,), backend="kornia")
    chain = only.chain(size, channels, Normalize((0.0,), (1.0,), False))
    return chain.operations[0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("bilinear", InterpolationMode.BILINEAR), ("bicubic", InterpolationMode.BICUBIC)],
)
def test_crop(images: Tensor, mode: str, expected: InterpolationMode) -> None:
    crop = operation(Augmentation(interpolation=mode), "crop", 32)
    seen, params = applied(crop, images)
    for image, box, view in zip(images, params["src"], seen, strict=True):
        left, top = box[0].int().tolist()
        right, bottom = box[2].int().tolist()
        own = tvf.resized_crop(
            image,
            top,
            left,
            bottom - top + 1,
            right - left + 1,
            [32, 32],
            expected,
            antialias=False,
        )
        assert torch.allclose(own, view, atol=1e-5)


def test_crop_boxes_have_the_areas_and_ratios_asked_for(images: Tensor) -> None:
    many = torch.zeros(400, 1, 100, 100)
    crop = operation(Augmentation(crop_scale=(0.2, 0.5)), "crop", 32, 1)
    _, params = applied(crop, many)
    side = params["src"][:, 2] - params["src"][:, 0] + 1
    area = side.prod(dim=1) / 100**2
    assert 0.18 < area.min() < 0.25
    assert 0.45 < area.max() < 0.52
    ratio = side[:, 0] / side[:, 1]
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4


def test_jitter(images: Tensor) -> None:
    jitter = operation(Augmentation(jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=1.0), "jitter")
    seen, params = applied(jitter, images, seed=3)
    steps: list[Callable[[Tensor, float], Tensor]] = [
        tvf.adjust_brightness,
        tvf.adjust_contrast,
        tvf.adjust_saturation,
        tvf.adjust_hue,
    ]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for row, (image, view) in enumerate(zip(images, seen, strict=True)):
        for number in params["order"].tolist():
            image = steps[number](image, params[names[number]][row].item())
        # kornia's luma weight of red is .299, torchvision's .2989: 1e-4, times a factor.
        assert torch.allclose(image, view, atol=5e-4)


@pytest.mark.parametrize("only", [0, 3])
def test_brightness_and_hue_alone(images: Tensor, only: int) -> None:
    strength = [0.0] * 4
    strength[only] = (0.8, 0.0, 0.0, 0.2)[only]
    jitter = operation(Augmentation(jitter=tuple(strength), jitter_p=1.0), "jitter")  # type: ignore[arg-type]
    seen, params = applied(jitter, images)
    factor = params[("brightness_factor", "", "", "hue_factor")[only]]
    change = (tvf.adjust_brightness, None, None, tvf.adjust_hue)[only]
    assert change is not None
    for image, view, f in zip(images, seen, factor.tolist(), strict=True):
        assert torch.allclose(change(image, f), view, atol=1e-5)


def test_jitter_ranges_are_torchvisions() -> None:
    jitter = operation(Augmentation(jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=1.0), "jitter")
    _, params = applied(jitter, torch.zeros(2000, 3, 2, 2))
    reference = tv.ColorJitter(0.4, 0.4, 0.2, 0.1)
    for name in ("brightness", "contrast", "saturation", "hue"):
        low, high = getattr(reference, name)
        drawn = params[f"{name}_factor"]
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() <= high


def test_grey(images: Tensor) -> None:
    seen, _ = applied(operation(Augmentation(grey_p=1.0), "grey"), images)
    assert torch.allclose(seen, tvf.rgb_to_grayscale(images, 3), atol=1e-5)


def test_flip(images: Tensor) -> None:
    seen, _ = applied(operation(Augmentation(flip_p=1.0), "flip"), images)
    assert torch.equal(seen, tvf.horizontal_flip(images))


def test_blur(images: Tensor) -> None:
    blur = operation(Augmentation(blur_p=1.0), "blur", 224)
    seen, params = applied(blur, images)
    assert blur.flags["kernel_size"] == (23, 23)  # a tenth of 224, made odd
    for image, sigma, view in zip(images, params["sigma"], seen, strict=True):
        own = tvf.gaussian_blur(image, [23, 23], [float(sigma)] * 2)
        assert torch.allclose(own, view, atol=1e-5)


def test_solarize(images: Tensor) -> None:
    seen, _ = applied(operation(Augmentation(solarize_p=1.0), "solarize"), images)
    assert torch.allclose(seen, torch.where(images < 0.5, images, 1 - images), atol=1e-6)
    line = torch.tensor([0, 0.25, 0.5, 0.75, 1]).expand(1, 3, 1, 5)
    changed, _ = applied(operation(Augmentation(solarize_p=1.0), "solarize"), line)
    assert changed[0, 0, 0].tolist() == pytest.approx([0, 0.25, 0.5, 0.25, 0])


def test_normalize(images: Tensor) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    own = tvf.normalize(images, list(mean), list(std))
    assert torch.allclose(Normalize(mean, std, True)(images), own, atol=1e-5)
    assert torch.equal(Normalize(mean, std, False)(images + 2), torch.ones_like(images))


@pytest.mark.parametrize(("name", "p"), [("flip", 0.5), ("grey", 0.2), ("solarize", 0.3)])
def test_probabilities(name: str, p: float) -> None:
    settings = Augmentation(flip_p=0.5, grey_p=0.2, solarize_p=0.3)
    many = torch.rand(2000, 3, 2, 2)
    seen, _ = applied(operation(settings, name), many)
    changed = (seen != many).flatten(1).any(dim=1).float().mean().item()
    assert changed == pytest.approx(p, abs=0.04)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_colour_operations_need_colours(channels: int) -> None:
    normalize = Normalize((0.5,) * channels, (0.5,) * channels, True)
    chain = Augmentation(solarize_p=0.5, backend="kornia").chain(16, channels, normalize)
    names = {type(op).__name__ for op in chain.operations}
    assert ("RandomGrayscale" in names) == (channels == 3)
    assert ("ColorJitter" in names) == (channels in (1, 3))
    assert chain(torch.rand(3, channels, 20, 20), seed=0).shape == (3, channels, 16, 16)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_gives_the_same_views_and_leaves_global_randomness_alone(
    images: Tensor, backend: str
) -> None:
    chain = Augmentation(backend=backend).chain(32, 3, Normalize((0.5,) * 3, (0.5,) * 3, True))
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    first = chain(images, seed=1)
    assert torch.equal(torch.rand(1), expected_next)
    assert torch.equal(chain(images, seed=1), first)
    assert not torch.equal(chain(images, seed=2), first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extra", [(), (kornia.RandomErasing(p=0.5),), (tv.RandomInvert(p=0.5),)])
def test_two_processes_see_what_one_would(
    images: Tensor, extra: tuple[Any, ...], backend: str
) -> None:
    normalize = Normalize((0.5,) * 3, (0.5,) * 3, True)
    settings = Augmentation(solarize_p=0.5, backend=backend)
    standard = settings.chain(32, 3, normalize).operations
    chain = Chain([*extra, *standard])
    whole = chain(images, seed=7)
    halves = [chain(images[r * 3 : r * 3 + 3], seed=7, rank=r, world_size=2) for r in (0, 1)]
    assert torch.allclose(torch.cat(halves), whole, atol=1e-6)


def test_pairs() -> None:
    assert positives((0, 1), (0, 1)) == ((0, 1), (1, 0))
    assert positives((0,), (1, 2)) == ((0, 1), (0, 2))
    assert positives((0,), (0,)) == ((0, 0),)


def a_batch(images: Tensor) -> Batch:
    return Batch((images * 255).to(torch.uint8), torch.arange(len(images)))


def test_crop_views(images: Tensor) -> None:
    plan = Plan(channels=3, image_size=48, mean=(0.4,) * 3, std=(0.2,) * 3)
    views = CropViews([Augmentation(size=24), Augmentation(size=16)], plan, symmetric=False)
    assert views.layout.sizes == ((24, 24), (16, 16))
    assert (views.layout.queries, views.layout.keys) == ((0,), (1,))
    made = views.generate_views(a_batch(images), Step(component="views"))
    assert [crop.shape for crop in made.crops] == [(6, 3, 24, 24), (6, 3, 16, 16)]
    again = views.generate_views(a_batch(images), Step(component="views"))
    assert torch.equal(made.crops[0], again.crops[0])
    centre = views.evaluation_views(a_batch(images).images).crops[0]
    own = (a_batch(images).images[:, :, 12:36, 12:36] / 255 - 0.4) / 0.2
    assert torch.allclose(centre, own, atol=1e-5)


def test_the_views_of_one_image_differ(images: Tensor) -> None:
    views = CropViews([Augmentation(size=24)] * 2, Plan(image_size=48))
    one, two = views.generate_views(a_batch(images), Step(component="views")).crops
    assert all(not torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("image_size", "size"), [(32, 32), (96, 96), (128, 128), (256, 224), (512, 448)]
)
def test_default_view_size(image_size: int, size: int) -> None:
    assert Augmentation().view_size(image_size) == size


@pytest.mark.parametrize(
    "transform",
    [
        tv.RandomResizedCrop(16, antialias=True),
        kornia.RandomResizedCrop((16, 16)),
        kornia.ImageSequential(kornia.RandomHorizontalFlip(), kornia.CenterCrop(16)),
    ],
)
def test_a_users_transform(images: Tensor, transform: Any) -> None:
    views = TransformViews(transform, Plan(channels=3, image_size=48))
    assert views.layout.sizes == ((16, 16), (16, 16))
    made = views.generate_views(a_batch(images), Step(component="views"))
    assert made.crops[0].shape == (6, 3, 16, 16)
    assert not torch.equal(made.crops[0], made.crops[1])
    assert made.pairs == ((0, 1), (1, 0))


def test_one_channel_is_said_so() -> None:
    said: list[str] = []
    CropViews([Augmentation()], Plan(channels=1, mean=(0.5,), std=(0.5,), notice=said.append))
    assert said == ["images have 1 channel(s), so saturation, hue and grey-scale are left out"]
