from __future__ import annotations

import math
from importlib.metadata import distribution
from typing import Any

import attrs
import kornia.augmentation as kornia
import pytest
import torch

import coview
from coview import Batch, Plan, Step, Use, testing
from coview.recipes.configure import Changes, configure
from coview.recipes.resolve import Resolved
from coview.testing import has
from coview.views.backends.kornia import Clamp


def resolved(preset: str = "none") -> Resolved:
    return testing.resolved("moco-v2", preset)


def test_the_imagenet_recipe() -> None:
    has(
        resolved(),
        backbone="resnet50",
        backbone__stem="7x7",
        encoder="projection",
        encoder__dim=128,
        encoder__hidden=None,
        encoder__layers=2,
        encoder__norm="none",
        encoder__output_norm="none",
        encoder__bias=True,
        encoder__norm_views="each",
        encoder__norm_groups=8,
        target="momentum",
        target__decay=0.999,
        target__shuffle=True,
        target__buffers="own",
        negatives="queue",
        negatives__size=65536,
        loss="info-nce",
        loss__temperature=0.2,
        loss__cosine=True,
        training__batch_size=256,
        training__epochs=200,
        training__evaluates="online",
        optimizer="sgd",
        optimizer__lr=0.03,
        optimizer__lr_rule="none",
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        optimizer__exclude_norm_and_bias=False,
        schedule="cosine",
        schedule__per="epoch",
        schedule__first_epoch=0,
        schedule__warmup_epochs=0,
        schedule__final=0,
        views="simclr",
        views__count=2,
        views__symmetric=False,
        views__order=("crop", "jitter", "grey", "blur", "flip"),
        views__crop_scale=(0.2, 1.0),
        views__interpolation="bilinear",
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
        views__blur_p=0.5,
        views__blur_sigma=(0.1, 2.0),
        views__flip_p=0.5,
        views__normalize=True,
    )


def test_the_cifar_recipe() -> None:
    has(
        resolved("small"),
        backbone="resnet18",
        backbone__stem="3x3",
        backbone__stem_padding=2,
        backbone__zero_init_last=False,
        encoder__hidden=2048,
        encoder__dim=256,
        encoder__norm="none",
        encoder__output_norm="none",
        encoder__norm_groups=1,
        target__decay=coview.cosine(0.99, 0.999),
        target__shuffle=False,
        negatives__size=32768,
        loss__temperature=0.2,
        loss__reduction="sum",
        training__batch_size=256,
        training__epochs=1000,
        optimizer="sgd",
        optimizer__lr=0.3,
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        schedule="cosine",
        schedule__per="step",
        schedule__warmup_epochs=10,
        schedule__warmup_start=3e-5,
        schedule__warmup_count="steps",
        schedule__warmup_closed=True,
        schedule__final=0,
        views__symmetric=True,
        views__blur_p=0.5,
        views__blur_kind="pillow",
        views__crop_scale=(0.08, 1.0),
        views__interpolation="bicubic",
        views__order=("crop", "jitter", "grey", "blur", "flip"),
        views__jitter=(0.4, 0.4, 0.4, 0.1),
        views__jitter_p=0.8,
        views__grey_p=0.2,
    )


def test_it_is_moco_but_for_three_things() -> None:
    """A head, an augmentation and a schedule; all else is MoCo's, to the digit."""
    ours, theirs = resolved(), configure("moco", None, Changes(preset="none"), "test")
    for table in ("target", "negatives", "backbone", "optimizer", "data"):
        mine, other = (
            r.data if table == "data" else r.part(table).settings for r in (ours, theirs)
        )
        assert mine == other, table
    assert ours.training == theirs.training
    assert ours.part("loss").settings == attrs.evolve(theirs.part("loss").settings, temperature=0.2)
    brought = [entry.name for entry in _components_of("coview-moco-v2")]
    assert brought == ["moco-v2"]


def _components_of(package: str) -> list[Any]:
    """Return what a package brings to recipes: its studies are of them."""
    found = [e for e in distribution(package).entry_points if e.group.startswith("coview.")]
    return [entry for entry in found if entry.group != "coview.studies"]


def test_the_learning_rate_over_training() -> None:
    part = resolved().part("schedule")
    schedule = part.factory(part.settings, Plan(steps_per_epoch=7, total_steps=1400))
    rates = {0: 0.03, 50: 0.025607, 100: 0.015, 150: 0.004393, 199: 1.8505e-6}
    for epoch, rate in rates.items():
        for step in (0, 6):
            assert schedule.rate(0.03, epoch * 7 + step) == pytest.approx(rate, abs=5e-7)


def test_the_small_rate_moves_at_every_step() -> None:
    part = resolved("small").part("schedule")
    plan = Plan(dataset_size=2560, batch_size=256, steps_per_epoch=10, total_steps=10_000)
    schedule = part.factory(part.settings, plan)
    assert schedule.rate(0.3, 0) == pytest.approx(3e-5)
    # solo-learn reaches the peak at the last step of warm-up, not after it.
    assert schedule.rate(0.3, 50) == pytest.approx(3e-5 + (0.3 - 3e-5) * 50 / 99)
    assert schedule.rate(0.3, 99) == pytest.approx(0.3)
    assert schedule.rate(0.3, 100) == pytest.approx(0.3)
    assert schedule.rate(0.3, 5050) == pytest.approx(0.15)
    assert schedule.rate(0.3, 5051) < schedule.rate(0.3, 5050)


def operations(preset: str, image_size: int) -> list[tuple[Any, ...]]:
    part = resolved(preset).part("views")
    settings = attrs.evolve(part.settings, backend="kornia")  # whose modules tell what they do
    made = part.factory(settings, Plan(image_size=image_size, mean=(0.4,) * 3))
    pairs = ((0, 1),) if preset == "none" else ((0, 1), (1, 0))
    assert made.layout.pairs == pairs
    assert made.normalization[0] == (0.4,) * 3
    return [chain.operations[:-1] for chain in made.rendering.chains]


def test_the_chains_of_operations() -> None:
    for crop, jitter, grey, blur, flip in operations("none", 256):
        assert isinstance(crop, kornia.RandomResizedCrop) and crop.flags["size"] == (224, 224)
        assert crop.flags["resample"].name == "BILINEAR"
        assert isinstance(jitter, kornia.ColorJitter) and jitter.p == 0.8
        assert isinstance(grey, kornia.RandomGrayscale) and grey.p == 0.2
        assert isinstance(blur, kornia.RandomGaussianBlur) and blur.p == 0.5
        assert isinstance(flip, kornia.RandomHorizontalFlip) and flip.p == 0.5
    for crop, clamp, *rest in operations("small", 32):
        assert isinstance(crop, kornia.RandomResizedCrop)
        assert isinstance(clamp, Clamp)  # bicubic resampling overshoots
        assert [type(operation) for operation in rest] == [
            kornia.ColorJitter,
            kornia.RandomGrayscale,
            kornia.RandomGaussianBlur,
            kornia.RandomHorizontalFlip,
        ]


def test_the_head_and_its_copy() -> None:
    """Two layers with biases and no batch norm, in both encoders: 4,458,624 parameters."""
    method = coview.build(coview.recipe("moco-v2"), Plan(batch_size=256))
    copy = method.components["target"].network
    for head in (method.encoder.projector, copy.projector):
        kinds = [type(m) for m in head.modules() if not isinstance(m, torch.nn.Sequential)]
        assert kinds == [torch.nn.Linear, torch.nn.ReLU, torch.nn.Linear]
        assert sum(p.numel() for p in head.parameters()) == 4_458_624
    online = dict(method.encoder.named_parameters())
    assert all(torch.equal(p, online[name]) for name, p in copy.named_parameters())


@pytest.mark.parametrize("tau, expected", [(0.2, 0.326652)])
def test_the_loss_at_its_temperature(tau: float, expected: float) -> None:
    loss = resolved().part("loss")
    assert loss.settings.temperature == tau
    made = loss.factory(loss.settings, Plan())
    rows = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    held = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    own = {0: torch.zeros(1, dtype=torch.int64)}
    encoded = coview.Encoded({0: rows[:1]}, {}, own, ((0, 1),), {})
    targets = coview.Targets({1: rows[1:]}, own)
    value = made.compute_loss(encoded, targets, (coview.Negatives({1: held}, {1: None}),), Step())
    candidates = [0.8, 0.0, -1.0, 0.6]
    slow = math.log(sum(math.exp(s / tau) for s in candidates)) - candidates[0] / tau
    assert value.item() == pytest.approx(slow, abs=1e-12) == pytest.approx(expected, abs=1e-6)
    shares = [math.exp(s / tau) / sum(math.exp(c / tau) for c in candidates) for s in candidates]
    assert shares == pytest.approx([0.721335, 0.013212, 0.000089, 0.265364], abs=1e-6)


def images(count: int) -> Batch:
    make = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=make, dtype=torch.uint8)
    return Batch(pixels, torch.arange(count))


def tiny(preset_changes: dict[str, Any]) -> Any:
    recipe = coview.recipe("moco-v2")
    small = {
        **recipe.presets["small"],
        "backbone": Use("resnet10-quarter", stem="3x3"),
        **preset_changes,
    }
    recipe = attrs.evolve(recipe, presets={"small": small})
    torch.manual_seed(0)
    plan = Plan(dataset_size=96, image_size=16, batch_size=32, total_steps=20)
    return coview.build(recipe, plan, preset="small")


def test_one_step_moves_the_copied_head() -> None:
    """With decay 0.999 every weight of the head goes a thousandth of the way."""
    method = tiny({"target": {"decay": 0.999}})
    head = method.components["target"].network.projector
    before = [p.clone() for p in head.parameters()]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.3)
    method(images(32), Step()).backward()
    optimizer.step()
    method.update_target(Step())
    online = list(method.encoder.projector.parameters())
    for mine, old, new in zip(head.parameters(), before, online, strict=True):
        assert not torch.equal(new, old)
        assert torch.allclose(mine, old + 0.001 * (new - old), atol=1e-7)


def test_a_few_steps_lower_the_loss() -> None:
    """Against a queue that another pass over the other images has filled."""
    method = tiny({})
    everything = images(96)
    for start in (32, 64):
        rows = slice(start, start + 32)
        method(Batch(everything.images[rows], everything.indices[rows]), Step())
        method.update_target(Step())
    queue = method.components["negatives"]
    batch = Batch(everything.images[:32], everything.indices[:32])
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    filled, losses = queue.rows.clone(), []
    for number in range(12):
        loss = method(batch, Step())  # the same crops every time
        optimizer.zero_grad()
        loss.backward()
        method.gradients_ready(Step())
        optimizer.step()
        method.update_target(Step(number=number, total_steps=20))
        # The batch's own keys would be false negatives of it at the next step.
        queue.rows.copy_(filled)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
