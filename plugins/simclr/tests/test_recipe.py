from __future__ import annotations

from typing import Any

import attrs
import kornia.augmentation as kornia
import pytest
import torch
from kornia.augmentation.base import _AugmentationBase

import coview
from coview import Batch, Plan, Step, Use, testing
from coview.recipes.resolve import Resolved
from coview.testing import has


def resolved(preset: str = "none") -> Resolved:
    return testing.resolved("simclr", preset)


def test_the_imagenet_recipe() -> None:
    has(
        resolved(),
        backbone="resnet50",
        backbone__stem="7x7",
        backbone__zero_init_last=True,
        encoder="projection",
        encoder__dim=128,
        encoder__hidden=None,
        encoder__layers=2,
        encoder__norm="batch",
        encoder__output_norm="batch-no-shift",
        encoder__bias=False,
        encoder__norm_views="joint",
        encoder__norm_groups=1,
        target="shared",
        negatives="in-batch",
        negatives__views="all",
        loss="info-nce",
        loss__temperature=0.1,
        loss__cosine=True,
        loss__reduction="mean",
        training__batch_size=4096,
        training__epochs=1000,
        training__evaluates="online",
        optimizer="lars",
        optimizer__lr=0.3,
        optimizer__lr_rule="linear",
        optimizer__momentum=0.9,
        optimizer__eta=1e-3,
        optimizer__weight_decay=1e-6,
        optimizer__exclude_norm_and_bias=True,
        optimizer__rate_in_momentum=True,
        optimizer__clip=False,
        schedule="cosine",
        schedule__warmup_epochs=10,
        schedule__warmup_start=0,
        schedule__final=0,
        schedule__per="step",
    )


def test_the_augmentation() -> None:
    has(
        resolved(),
        views="simclr",
        views__count=2,
        views__symmetric=True,
        views__order=("crop", "flip", "jitter", "grey", "blur", "solarize"),
        views__crop_scale=(0.08, 1.0),
        views__crop_ratio=(3 / 4, 4 / 3),
        views__interpolation="bicubic",
        views__flip_p=0.5,
        views__jitter=(0.8, 0.8, 0.8, 0.2),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=0.5,
        views__blur_sigma=(0.1, 2.0),
        views__solarize_p=0,
        views__normalize=False,
    )


def test_the_cifar_recipe() -> None:
    has(
        resolved("small"),
        backbone="resnet18",
        backbone__stem="3x3",
        backbone__zero_init_last=True,
        encoder__layers=2,
        encoder__dim=128,
        loss__temperature=0.5,
        training__batch_size=512,
        training__epochs=1000,
        optimizer="lars",
        optimizer__lr=1.0,
        optimizer__lr_rule="linear",
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-6,
        schedule__warmup_epochs=10,
        views__crop_scale=(0.08, 1.0),
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=0,
        views__normalize=False,
    )


def views(preset: str, image_size: int) -> Any:
    part = resolved(preset).part("views")
    settings = attrs.evolve(part.settings, backend="kornia")  # whose modules tell what they do
    return part.factory(settings, Plan(image_size=image_size))


def augmentations(chain: Any) -> list[Any]:
    """Without the clamp that bicubic resampling needs, and the standardisation."""
    return [o for o in chain.operations if isinstance(o, _AugmentationBase)]


def test_the_chains_of_operations() -> None:
    made = views("none", 256)
    assert made.layout.pairs == ((0, 1), (1, 0)) and len(made.rendering.chains) == 2
    for chain in made.rendering.chains:
        crop, flip, jitter, grey, blur = augmentations(chain)
        assert isinstance(crop, kornia.RandomResizedCrop) and crop.flags["size"] == (224, 224)
        assert crop.flags["resample"].name == "BICUBIC"
        assert isinstance(flip, kornia.RandomHorizontalFlip) and flip.p == 0.5
        assert isinstance(jitter, kornia.ColorJitter) and jitter.p == 0.8
        assert isinstance(grey, kornia.RandomGrayscale) and grey.p == 0.2
        assert isinstance(blur, kornia.RandomGaussianBlur) and blur.p == 0.5
        assert blur.flags["kernel_size"] == (23, 23)
    assert made.normalization == ((0.0,) * 3, (1.0,) * 3)


def test_the_small_chains_do_not_blur() -> None:
    for chain in views("small", 32).rendering.chains:
        kinds = [type(operation) for operation in augmentations(chain)]
        assert kinds == [
            kornia.RandomResizedCrop,
            kornia.RandomHorizontalFlip,
            kornia.ColorJitter,
            kornia.RandomGrayscale,
        ]


def test_views_stay_in_the_unit_interval_and_differ() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    made = views("none", 32).generate_views(Batch(images, torch.arange(4)), Step())
    for crop in made.crops:
        assert crop.shape == (4, 3, 32, 32)
        assert crop.min() >= 0 and crop.max() <= 1
    assert not torch.equal(*made.crops)


def schedule(preset: str, batch: int, images: int, total: int) -> Any:
    part = resolved(preset).part("schedule")
    plan = Plan(
        dataset_size=images, batch_size=batch, steps_per_epoch=images // batch, total_steps=total
    )
    peak = resolved(preset).part("optimizer").settings.peak(batch)
    made = part.factory(part.settings, plan)
    return lambda step: made.rate(peak, step)


def test_the_learning_rate_over_training() -> None:
    """Batch 4096, 100 epochs: 3127 steps of warm-up to 4.8, then down to 0."""
    rate = schedule("none", 4096, 1_281_167, 31279)
    for step, expected in ((0, 0), (1000, 1.535018), (3127, 4.8), (17203, 2.4), (31279, 0)):
        assert rate(step) == pytest.approx(expected, abs=1e-6)
    rate = schedule("small", 512, 50_000, 97657)
    for step, expected in ((0, 0), (488, 1.0), (976, 2.0), (97657, 0)):
        assert rate(step) == pytest.approx(expected, abs=1e-6)


def test_either_rule_gives_the_paper_s_rate() -> None:
    linear = resolved().part("optimizer").settings
    root = attrs.evolve(linear, lr=0.075, lr_rule="sqrt")
    assert linear.peak(4096) == pytest.approx(4.8) == root.peak(4096)


def test_a_few_steps_lower_the_loss() -> None:
    recipe = coview.recipe("simclr")
    small = {**recipe.presets["small"], "backbone": Use("resnet10-quarter", stem="3x3")}
    recipe = attrs.evolve(recipe, presets={"small": small})
    torch.manual_seed(0)
    method = coview.build(recipe, Plan(dataset_size=64, image_size=16, batch_size=32), "small")
    make = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 3, 16, 16), generator=make, dtype=torch.uint8)
    batch = Batch(images, torch.arange(32))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(12):
        step = Step(total_steps=12)  # the same crops every time
        loss = method(batch, step)
        optimizer.zero_grad()
        loss.backward()
        method.gradients_ready(step)
        optimizer.step()
        method.update_target(step)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
