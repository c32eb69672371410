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
    return testing.resolved("moco", preset)


def test_the_imagenet_recipe() -> None:
    has(
        resolved(),
        backbone="resnet50",
        backbone__stem="7x7",
        encoder="linear",
        encoder__dim=128,
        encoder__norm_groups=8,
        encoder__norm_views="each",
        target="momentum",
        target__decay=0.999,
        target__shuffle=True,
        target__buffers="own",
        negatives="queue",
        negatives__size=65536,
        loss="info-nce",
        loss__temperature=0.07,
        loss__cosine=True,
        training__batch_size=256,
        training__epochs=200,
        training__evaluates="online",
        optimizer="sgd",
        optimizer__lr=0.03,
        optimizer__lr_rule="none",
        optimizer__momentum=0.9,
        optimizer__nesterov=False,
        optimizer__weight_decay=1e-4,
        optimizer__exclude_norm_and_bias=False,
        schedule="steps",
        schedule__milestones=(120, 160),
        schedule__gamma=0.1,
        views="instdisc",
        views__count=2,
        views__symmetric=False,
        views__order=("crop", "grey", "jitter", "flip"),
        views__crop_scale=(0.2, 1.0),
        views__grey_p=0.2,
        views__jitter=(0.4, 0.4, 0.4, 0.4),
        views__jitter_p=1.0,
        views__flip_p=0.5,
        views__normalize=True,
    )


def test_the_cifar_recipe() -> None:
    has(
        resolved("small"),
        backbone="resnet18",
        backbone__stem="3x3",
        encoder__dim=128,
        encoder__norm_groups=8,
        target__decay=0.99,
        target__shuffle=True,
        negatives__size=4096,
        loss__temperature=0.1,
        training__batch_size=512,
        training__epochs=200,
        optimizer="sgd",
        optimizer__lr=0.06,
        optimizer__lr_rule="none",
        optimizer__momentum=0.9,
        optimizer__weight_decay=5e-4,
        schedule="cosine",
        schedule__per="epoch",
        schedule__first_epoch=1,
        schedule__warmup_epochs=0,
        views__symmetric=False,
        views__order=("crop", "flip", "jitter", "grey"),
        views__crop_scale=(0.08, 1.0),
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__flip_p=0.5,
        views__blur_p=0,
    )


@pytest.mark.parametrize(
    "preset, at",
    [
        ("none", {0: 0.03, 119: 0.03, 120: 0.003, 159: 0.003, 160: 0.0003, 199: 0.0003}),
        ("small", {0: 0.0599963, 99: 0.03, 149: 0.0087868, 199: 0}),
    ],
)
def test_the_learning_rate_over_training(preset: str, at: dict[int, float]) -> None:
    """Small: a half cosine over 200 epochs that are counted from 1."""
    part = resolved(preset).part("schedule")
    schedule = part.factory(part.settings, Plan(steps_per_epoch=3, total_steps=600))
    peak = resolved(preset).part("optimizer").settings.peak(256)
    for epoch, rate in at.items():
        for step in (0, 2):
            assert schedule.rate(peak, epoch * 3 + step) == pytest.approx(rate, abs=1e-6)


def operations(preset: str, image_size: int) -> list[tuple[Any, ...]]:
    part = resolved(preset).part("views")
    settings = attrs.evolve(part.settings, backend="kornia")  # whose modules tell what they do
    made = part.factory(settings, Plan(image_size=image_size))
    assert made.layout.queries == (0,) and made.layout.keys == (1,)
    assert made.layout.pairs == ((0, 1),)
    return [chain.operations[:-1] for chain in made.rendering.chains]


def test_the_chains_of_operations() -> None:
    for crop, grey, jitter, flip in operations("none", 256):
        assert isinstance(crop, kornia.RandomResizedCrop) and crop.flags["size"] == (224, 224)
        assert isinstance(grey, kornia.RandomGrayscale) and grey.p == 0.2
        assert isinstance(jitter, kornia.ColorJitter) and jitter.p == 1.0
        assert isinstance(flip, kornia.RandomHorizontalFlip) and flip.p == 0.5
    for crop, flip, jitter, grey in operations("small", 32):
        assert isinstance(crop, kornia.RandomResizedCrop) and crop.flags["size"] == (32, 32)
        assert isinstance(flip, kornia.RandomHorizontalFlip)
        assert isinstance(jitter, kornia.ColorJitter) and jitter.p == 0.8
        assert isinstance(grey, kornia.RandomGrayscale)


def tiny(dataset_size: int, batch_size: int) -> Any:
    recipe = coview.recipe("moco")
    small = {**recipe.presets["small"], "backbone": Use("resnet10-quarter", stem="3x3")}
    recipe = attrs.evolve(recipe, presets={"small": small})
    torch.manual_seed(0)
    plan = Plan(dataset_size=dataset_size, image_size=16, batch_size=batch_size)
    return coview.build(recipe, plan, preset="small")


def images(count: int) -> Batch:
    make = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=make, dtype=torch.uint8)
    return Batch(pixels, torch.arange(count))


def test_the_head_and_its_copy() -> None:
    method = tiny(96, 32)
    encoder, copy = method.encoder, method.components["target"].network
    assert encoder.projector.weight.shape == copy.projector.weight.shape == (128, 128)
    assert encoder.norm_groups == copy.norm_groups == 8
    part = resolved().part("encoder")
    method = coview.build(coview.recipe("moco"), Plan(batch_size=256))
    assert part.settings.dim == 128
    assert sum(p.numel() for p in method.encoder.projector.parameters()) == 262_272
    assert method.components["negatives"].rows.shape == (65536, 128)


def test_a_step_s_order() -> None:
    """Keys of the copy before it moves, compared with the queue before it takes them in."""
    method = tiny(96, 32)
    target, queue = method.components["target"], method.components["negatives"]
    start, rows = target.network.projector.weight.clone(), queue.rows.clone()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    method(images(32), Step()).backward()
    assert torch.equal(queue.rows, rows) and queue.pointer.item() == 0
    optimizer.step()
    assert torch.equal(target.network.projector.weight, start)
    online = method.encoder.projector.weight.clone()
    method.update_target(Step())
    moved = 0.99 * start + 0.01 * online
    assert torch.allclose(target.network.projector.weight, moved, atol=1e-7)
    assert (queue.rows != rows).any(1).tolist() == [True] * 32 + [False] * 32
    assert queue.pointer.item() == 32
    assert all(p.grad is None for p in target.parameters())


def test_a_few_steps_lower_the_loss() -> None:
    """Against a queue that another pass over the other images has filled."""
    method = tiny(96, 32)
    everything = images(96)
    parts = [Batch(everything.images[i : i + 32], everything.indices[i : i + 32]) for i in (32, 64)]
    for number, part in enumerate(parts):
        method(part, Step(number=number))
        method.update_target(Step(number=number))
    queue = method.components["negatives"]
    batch = Batch(everything.images[:32], everything.indices[:32])
    optimizer = torch.optim.SGD(method.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
    filled, losses = queue.rows.clone(), []
    for number in range(2, 14):
        step = Step(number=number)
        loss = method(batch, step)
        optimizer.zero_grad()
        loss.backward()
        method.gradients_ready(step)
        optimizer.step()
        method.update_target(step)
        # The batch's own keys would be false negatives of it at the next step.
        queue.rows.copy_(filled)
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.95 * losses[0]
