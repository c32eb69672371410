from __future__ import annotations

from typing import Any

import attrs
import kornia.augmentation as kornia
import pytest
import torch

import coview
from coview import Batch, Plan, Step, Use, testing
from coview.recipes.resolve import Resolved
from coview.testing import has


def resolved(preset: str = "none") -> Resolved:
    return testing.resolved("instdisc", preset)


def test_the_imagenet_recipe() -> None:
    found = resolved()
    has(
        found,
        backbone="resnet50",
        backbone__stem="7x7",
        encoder="linear",
        encoder__dim=128,
        encoder__norm_groups=1,
        target="memory-bank",
        target__momentum=0.5,
        target__draws=4096,
        negatives="memory-bank",
        loss="nce",
        loss__temperature=0.07,
        training__batch_size=256,
        training__epochs=200,
        training__evaluates="online",
        optimizer="sgd",
        optimizer__lr=0.03,
        optimizer__lr_rule="none",
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        optimizer__exclude_norm_and_bias=False,
        schedule="steps",
        schedule__milestones=(120, 160),
        schedule__gamma=0.1,
    )
    has(
        found,
        views="instdisc",
        views__count=1,
        views__order=("crop", "grey", "jitter", "flip"),
        views__crop_scale=(0.2, 1.0),
        views__grey_p=0.2,
        views__jitter=(0.4, 0.4, 0.4, 0.4),
        views__jitter_p=1.0,
        views__flip_p=0.5,
        views__normalize=True,
    )
    assert found.part("negatives").shared_with == "target"


def test_the_cifar_recipe() -> None:
    has(
        resolved("small"),
        backbone="resnet18",
        backbone__stem="3x3",
        encoder__dim=128,
        target__draws=0,
        target__momentum=0.5,
        loss="non-parametric-softmax",
        loss__temperature=0.1,
        training__batch_size=128,
        training__epochs=200,
        optimizer__lr=0.03,
        optimizer__momentum=0.9,
        optimizer__weight_decay=5e-4,
        schedule__milestones=(120, 160),
        views__order=("crop", "jitter", "grey"),
        views__crop_scale=(0.2, 1.0),
        views__jitter=(0.4, 0.4, 0.4, 0.4),
        views__jitter_p=1.0,
        views__grey_p=0.2,
    )


def test_the_learning_rate_over_training() -> None:
    """.03, then .003 at epochs 120 to 159, then .0003."""
    part = resolved().part("schedule")
    plan = Plan(steps_per_epoch=5, total_steps=1000)
    schedule = part.factory(part.settings, plan)
    for epoch, rate in ((0, 0.03), (119, 0.03), (120, 0.003), (159, 0.003), (160, 0.0003)):
        for step in (0, 4):
            assert schedule.rate(0.03, epoch * 5 + step) == pytest.approx(rate)


def chain(preset: str, image_size: int) -> tuple[Any, ...]:
    # kornia's modules tell what they do.
    settings = attrs.evolve(resolved(preset).part("views").settings, backend="kornia")
    made = resolved(preset).part("views").factory(settings, Plan(image_size=image_size))
    assert made.layout.pairs == ((0, 0),) and made.layout.queries == (0,)
    (one,) = made.rendering.chains
    return one.operations[:-1]


def test_the_chain_of_operations() -> None:
    crop, grey, jitter, flip = chain("none", 256)
    assert isinstance(crop, kornia.RandomResizedCrop) and crop.flags["size"] == (224, 224)
    assert isinstance(grey, kornia.RandomGrayscale) and grey.p == 0.2
    assert isinstance(jitter, kornia.ColorJitter) and jitter.p == 1.0
    assert isinstance(flip, kornia.RandomHorizontalFlip) and flip.p == 0.5


def test_the_small_chain_does_not_flip() -> None:
    kinds = [type(operation) for operation in chain("small", 32)]
    assert kinds == [kornia.RandomResizedCrop, kornia.ColorJitter, kornia.RandomGrayscale]


def test_the_head_s_parameters() -> None:
    plan = Plan(dataset_size=300, batch_size=256)
    method = coview.build(coview.recipe("instdisc"), plan)
    assert sum(p.numel() for p in method.encoder.projector.parameters()) == 262_272
    assert method.components["target"].rows.shape == (300, 128)


def test_a_few_steps_lower_the_loss() -> None:
    recipe = coview.recipe("instdisc")
    small = {**recipe.presets["small"], "backbone": Use("resnet10-quarter", stem="3x3")}
    recipe = attrs.evolve(recipe, presets={"small": small})
    torch.manual_seed(0)
    plan = Plan(dataset_size=64, image_size=16, batch_size=32, total_steps=100)
    method = coview.build(recipe, plan, preset="small")
    make = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 3, 16, 16), generator=make, dtype=torch.uint8)
    batch = Batch(images, torch.arange(32) * 2)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
    losses = []
    for number in range(12):
        step = Step(number=number, total_steps=100)
        loss = method(batch, step)
        optimizer.zero_grad()
        loss.backward()
        method.gradients_ready(step)
        optimizer.step()
        bank = method.components["target"].rows.clone()
        method.update_target(step)
        changed = (method.components["target"].rows != bank).any(1)
        assert changed.tolist() == [row % 2 == 0 for row in range(64)]
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.95 * losses[0]
