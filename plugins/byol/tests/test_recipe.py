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
    return testing.resolved("byol", preset)


def test_the_main_recipe() -> None:
    has(
        resolved(),
        backbone="resnet50",
        backbone__stem="7x7",
        backbone__zero_init_last=False,
        encoder="predictor",
        encoder__dim=256,
        encoder__hidden=4096,
        encoder__layers=2,
        encoder__predictor=True,
        encoder__predictor_hidden=4096,
        encoder__norm="batch",
        encoder__output_norm="none",
        encoder__predictor_output_norm="none",
        encoder__hidden_bias=True,
        encoder__predictor_output_bias=False,
        encoder__norm_views="each",
        encoder__norm_groups=1,
        target="momentum",
        target__decay=coview.cosine(0.996, 1.0),
        target__shuffle=False,
        target__buffers="own",
        negatives="none",
        loss="regression",
        loss__form="squared-distance",
        loss__reduction="sum",
        training__batch_size=4096,
        training__epochs=1000,
        training__evaluates="online",
        optimizer="lars",
        optimizer__lr=0.2,
        optimizer__lr_rule="linear",
        optimizer__momentum=0.9,
        optimizer__eta=1e-3,
        optimizer__weight_decay=1.5e-6,
        optimizer__exclude_norm_and_bias=True,
        optimizer__rate_in_momentum=False,
        optimizer__clip=False,
        schedule="cosine",
        schedule__per="step",
        schedule__warmup_epochs=10,
        schedule__warmup_start=0,
        schedule__final=0,
    )


def test_the_two_transforms() -> None:
    has(
        resolved(),
        views="byol",
        views__order=("crop", "flip", "jitter", "grey", "blur", "solarize"),
        views__crop_scale=(0.08, 1.0),
        views__interpolation="bicubic",
        views__flip_p=0.5,
        views__jitter=(0.4, 0.4, 0.2, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=1.0,
        views__second_blur_p=0.1,
        views__blur_sigma=(0.1, 2.0),
        views__solarize_p=0.0,
        views__second_solarize_p=0.2,
        views__normalize=True,
    )


def test_the_cifar_recipe() -> None:
    has(
        resolved("small"),
        backbone="resnet18",
        backbone__stem="3x3",
        backbone__stem_padding=2,
        backbone__zero_init_last=False,
        encoder__dim=256,
        encoder__hidden=4096,
        encoder__predictor_hidden=4096,
        target__decay=coview.cosine(0.99, 1.0),
        training__batch_size=256,
        training__epochs=1000,
        optimizer="larc",
        optimizer__lr=1.0,
        optimizer__lr_rule="linear",
        optimizer__weight_decay=1e-5,
        optimizer__eta=0.02,
        optimizer__clip=True,
        optimizer__exclude_norm_and_bias=True,
        schedule="cosine",
        schedule__per="step",
        schedule__warmup_epochs=10,
        schedule__warmup_start=3e-5,
        schedule__warmup_count="steps",
        schedule__warmup_closed=True,
        schedule__final=0,
        encoder__output_bias=True,
        encoder__predictor_output_bias=True,
        views__interpolation="bicubic",
        views__order=("crop", "jitter", "grey", "blur", "solarize", "flip"),
        views__crop_scale=(0.08, 1.0),
        views__jitter=(0.4, 0.4, 0.2, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=0,
        views__second_blur_p=0,
        views__solarize_p=0,
        views__second_solarize_p=0.2,
    )


def test_the_learning_rate_over_training() -> None:
    """Batch 4096: 3127 steps of warm-up to 3.2, then down to 0 at step 312784."""
    part = resolved().part("schedule")
    plan = Plan(dataset_size=1_281_167, batch_size=4096, steps_per_epoch=312, total_steps=312_784)
    schedule = part.factory(part.settings, plan)
    peak = resolved().part("optimizer").settings.peak(4096)
    assert peak == pytest.approx(3.2)
    for step, rate in (
        (0, 0),
        (1, 0.00102335),
        (1563, 1.599488),
        (3126, 3.198977),
        (3127, 3.2),
        (80541, 2.731374),
        (157955, 1.600008),
        (312784, 0),
    ):
        assert schedule.rate(peak, step) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize(
    "preset, expected",
    [
        ("none", (0.996, 0.99609789, 0.99658579, 0.998, 0.99941421, 0.99990211)),
        ("small", (0.99, 0.99024472, 0.99146447, 0.995, 0.99853553, 0.99975528)),
    ],
)
def test_the_momentum_over_training(preset: str, expected: tuple[float, ...]) -> None:
    decay = resolved(preset).part("target").settings.decay
    for number, value in zip((0, 10, 25, 50, 75, 90), expected, strict=True):
        step = Step(number=number, total_steps=100, steps_per_epoch=7)
        assert decay.at(step) == pytest.approx(value, abs=1e-8)
        assert float(step.read(decay)) == pytest.approx(value, abs=1e-8)
    assert decay.at(Step(number=100, total_steps=100)) == 1


def test_the_momentum_moves_at_every_step() -> None:
    """Over four steps from 0.9, the copy of a zero goes .9, .82318019, .78202119, .77056875."""
    method = tiny({"target": {"decay": coview.cosine(0.9, 1.0)}})
    copy = method.components["target"].network
    with torch.no_grad():
        [p.zero_() for p in method.encoder.parameters()]
        [p.fill_(1) for p in copy.parameters()]
    for number, expected in enumerate((0.9, 0.82318019, 0.78202119, 0.77056875)):
        step = Step(number=number, total_steps=4)
        method(images(8), step)
        method.update_target(step)
        for parameter in copy.parameters():
            assert parameter.detach().flatten()[0].item() == pytest.approx(expected, abs=1e-6)


def chains(preset: str, image_size: int) -> Any:
    part = resolved(preset).part("views")
    settings = attrs.evolve(part.settings, backend="kornia")  # whose modules tell what they do
    made = part.factory(settings, Plan(image_size=image_size))
    assert made.layout.pairs == ((0, 1), (1, 0))
    assert made.layout.queries == made.layout.keys == (0, 1)
    # Bicubic resampling overshoots: its clamp and the standardisation are no augmentation.
    return [
        [o for o in chain.operations if isinstance(o, _AugmentationBase)]
        for chain in made.rendering.chains
    ]


def test_the_chains_of_operations() -> None:
    first, second = chains("none", 256)
    common = [
        kornia.RandomResizedCrop,
        kornia.RandomHorizontalFlip,
        kornia.ColorJitter,
        kornia.RandomGrayscale,
        kornia.RandomGaussianBlur,
    ]
    assert [type(operation) for operation in first] == common
    assert [type(operation) for operation in second] == [*common, kornia.RandomSolarize]
    assert [operation.p for operation in first] == [1.0, 0.5, 0.8, 0.2, 1.0]
    assert [operation.p for operation in second] == [1.0, 0.5, 0.8, 0.2, 0.1, 0.2]
    for chain in (first, second):
        assert chain[0].flags["size"] == (224, 224)
        assert chain[0].flags["resample"].name == "BICUBIC"
        assert chain[4].flags["kernel_size"] == (23, 23)


def test_the_small_chains_do_not_blur() -> None:
    first, second = chains("small", 32)
    assert not any(isinstance(o, kornia.RandomGaussianBlur) for o in (*first, *second))
    assert [type(o) for o in second if type(o) not in map(type, first)] == [kornia.RandomSolarize]
    assert {type(chain[-1]) for chain in (first, second)} == {kornia.RandomHorizontalFlip}


def test_solarising_inverts_what_is_above_half() -> None:
    solarize = chains("none", 32)[1][-1]
    values = torch.tensor([0, 0.25, 0.5, 0.75, 1]).view(1, 1, 1, 5).expand(64, 3, 4, 5)
    torch.manual_seed(0)
    seen = {tuple(image[0, 0].tolist()) for image in solarize(values)}
    assert seen == {(0, 0.25, 0.5, 0.75, 1), (0, 0.25, 0.5, 0.25, 0)}


def images(count: int) -> Batch:
    make = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=make, dtype=torch.uint8)
    return Batch(pixels, torch.arange(count))


def tiny(changes: dict[str, Any], size: int = 8) -> Any:
    recipe = coview.recipe("byol")
    small = {
        **recipe.presets["small"],
        "backbone": Use("resnet10-quarter", stem="3x3"),
        "encoder": {"hidden": 64, "predictor_hidden": 64},
        **changes,
    }
    recipe = attrs.evolve(recipe, presets={"small": small})
    torch.manual_seed(0)
    plan = Plan(dataset_size=64, image_size=16, batch_size=size, total_steps=20)
    return coview.build(recipe, plan, preset="small")


def test_heads_and_copies() -> None:
    method = coview.build(coview.recipe("byol"), Plan(batch_size=4096))
    encoder, copy = method.encoder, method.components["target"].network
    for head in (encoder.projector, copy.projector):
        assert sum(p.numel() for p in head.parameters()) == 9_449_472
    assert sum(p.numel() for p in encoder.predictor.parameters()) == 2_109_440
    assert copy.predictor is None
    assert not any("predictor" in name for name in copy.state_dict())


def test_a_few_steps_lower_the_loss() -> None:
    method = tiny({"encoder": {"hidden": 512, "predictor_hidden": 512}}, 32)
    batch = images(32)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    losses = []
    for number in range(10):
        loss = method(batch, Step())  # the same crops every time
        optimizer.zero_grad()
        loss.backward()
        method.gradients_ready(Step())
        optimizer.step()
        method.update_target(Step(number=number, total_steps=20))
        losses.append(loss.item())
    assert 0 <= losses[-1] < 0.8 * losses[0] <= 8
