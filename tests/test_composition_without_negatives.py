"""Parts of SwAV, SimSiam, MoCo v3 and DINO under other methods."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import coview
from coview import Batch, Encoded, Plan, Step, Targets
from coview.method.module import Method, build_method
from coview.recipes.configure import Changes, configure

SMALL_HEADS: dict[str, dict[str, Any]] = {
    "simclr": {"encoder.hidden": 16, "encoder.dim": 8},
    "moco-v2": {"encoder.hidden": 16, "encoder.dim": 8, "negatives.size": 64},
    "byol": {"encoder.hidden": 16, "encoder.dim": 8, "encoder.predictor_hidden": 16},
    "simsiam": {"encoder.hidden": 16, "encoder.dim": 8, "encoder.predictor_hidden": 16},
    "moco-v3": {"encoder.hidden": 16, "encoder.dim": 8, "encoder.predictor_hidden": 16},
    "swav": {"encoder.hidden": 16, "encoder.dim": 8, "encoder.prototypes": 10},
    "dino": {"encoder.hidden": 16, "encoder.dim": 10, "encoder.bottleneck": 8},
}
DINO_VIEWS = {"views.size": "none", "views.count": [1, 1, 2]}
MULTI_CROP = {
    "views.size": ["none", 16],
    "views.count": [2, 3],
    "views.crop_scale": [[0.3, 1.0], [0.1, 0.3]],
}


def built(
    name: str, uses: dict[str, str] | None = None, sets: dict[str, Any] | None = None
) -> tuple[Method, Plan]:
    changes = Changes(
        preset="none",
        backbone="resnet10-quarter",
        use=uses or {},
        set={**SMALL_HEADS[name], **(sets or {})},
    )
    plan = Plan(batch_size=16, steps_per_epoch=4, total_steps=40, image_size=32)
    torch.manual_seed(0)
    return build_method(configure(name, None, changes, "test"), plan).train(), plan


def batch(rows: int = 16) -> Batch:
    make = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 3, 32, 32), generator=make, dtype=torch.uint8)
    return Batch(images, torch.arange(rows))


def train(method: Method, steps: int = 12, rate: float = 0.05) -> list[float]:
    """Steps on one batch with the same views each time; the losses."""
    moves = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=rate)
    losses = []
    for number in range(steps):
        step = Step(number=number, steps_per_epoch=4, total_steps=40)
        moves.zero_grad()
        loss = method(batch(), step)
        loss.backward()
        method.gradients_ready(step)
        moves.step()
        method.update_target(step)
        losses.append(loss.item())
    assert all(map(math.isfinite, losses))
    return losses


def calls_of(module: torch.nn.Module) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    module.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    return shapes


@pytest.mark.parametrize("name", ["simclr", "moco-v2", "byol", "simsiam", "moco-v3", "swav"])
def test_multi_crop_views_under_every_method(name: str) -> None:
    grouped = {"encoder.norm_views": "resolution", "encoder.norm_groups": 1}
    method, _ = built(name, {"views": "multi-crop"}, {**MULTI_CROP, **grouped})
    layout = method.components["views"].layout
    assert (layout.queries, layout.keys) == ((0, 1, 2, 3, 4), (0, 1))
    assert len(layout.pairs) == 2 * 4
    online = calls_of(method.encoder.trunk)
    losses = train(method, steps=3)
    # Five views of two resolutions: two calls a step, each with all views of its size.
    assert online == [(32, 3, 32, 32), (48, 3, 16, 16)] * 3
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", ["simclr", "byol"])
def test_small_crops_are_queries_and_never_keys(name: str) -> None:
    method, _ = built(name, {"views": "multi-crop"}, MULTI_CROP)
    step = Step()
    views = method.components["views"].generate_views(batch(), step.within("views"))
    encoded = method.encoder.encode(views, batch())
    targets = method.components["target"].encode_targets(
        **(
            {"encoded": encoded}
            if name == "simclr"
            else {"views": views, "encoded": encoded, "batch": batch(), "step": step}
        )
    )
    assert set(targets.keys) == {0, 1}
    assert set(encoded.queries) == {0, 1, 2, 3, 4}


def test_multi_crop_lets_simclr_learn() -> None:
    losses = train(built("simclr", {"views": "multi-crop"}, MULTI_CROP)[0], 30, 0.5)
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_swav_s_loss_on_a_momentum_target(decay: float) -> None:
    """Codes come of the moving average's embeddings, scored by the online prototypes."""
    method, _ = built("swav", {"target": "momentum"}, {**MULTI_CROP, "target.decay": decay,
                                                       "encoder.freeze_steps": 1})  # fmt: skip
    copy = method.components["target"].network
    assert copy.predictor is None
    before = {name: p.clone() for name, p in copy.named_parameters()}
    losses = train(method, 30, 0.5)
    assert sum(losses[-5:]) < sum(losses[:5])
    online = dict(method.encoder.named_parameters())
    for name, p in copy.named_parameters():
        assert not p.requires_grad
        assert torch.equal(p, online[name]) is (decay == 0)
    assert any(not torch.equal(p, before[name]) for name, p in copy.named_parameters())


def test_dino_s_head_with_sinkhorn_codes() -> None:
    uses = {"loss": "swapped-prediction"}
    method, _ = built("dino", uses, {**DINO_VIEWS, "target.decay": 0.9})
    losses = train(method, 20, 0.5)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_dino_s_loss_with_two_crops() -> None:
    plain = {"views.size": 32, "views.count": [1, 1], "views.crop_scale": [0.14, 1.0],
             "views.blur_p": [1.0, 0.1], "views.solarize_p": [0.0, 0.2]}  # fmt: skip
    method, _ = built("dino", None, plain)
    assert method.components["views"].layout.pairs == ((0, 1), (1, 0))
    train(method, steps=6)
    assert method.components["loss"].centre.abs().sum() > 0
    other, _ = built("dino", {"views": "byol"})
    assert other.components["views"].layout.pairs == ((0, 1), (1, 0))
    train(other, steps=2)


@pytest.mark.parametrize("views", ["multi-crop", "simclr"])
def test_stop_gradient_under_byol_s_loss_is_simsiam_up_to_the_constant(views: str) -> None:
    """The pairs' mean is L; BYOL's sum over P pairs is 2 P (1 + L), its gradient 2 P times."""
    chosen = MULTI_CROP if views == "multi-crop" else {}
    found = []
    for form in ({"loss.form": "squared-distance", "loss.reduction": "sum"},
                 {"loss.form": "negative-cosine", "loss.reduction": "mean"}):  # fmt: skip
        uses = {"views": views, "target": "stop-gradient"}
        method, _ = built("byol", uses, {**chosen, **form})
        loss = method(batch(), Step())
        loss.backward()
        gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
        found.append((loss.item(), gradients))
    (byol, theirs), (simsiam, own) = found
    pairs = 8 if views == "multi-crop" else 2
    assert byol == pytest.approx(2 * pairs * (1 + simsiam), rel=1e-5)
    assert set(theirs) == set(own)
    for name, gradient in own.items():
        assert torch.allclose(theirs[name], 2 * pairs * gradient, rtol=1e-3, atol=1e-5), name


def slow_info_nce(queries: Any, keys: Any, temperature: float) -> float:
    """Mean over rows of -log softmax of the own key among the batch's keys of that view."""
    total = 0.0
    for i, q in enumerate(queries):
        logits = [float(q @ k / q.norm() / k.norm()) / temperature for k in keys]
        total += math.log(sum(map(math.exp, logits))) - logits[i]
    return total / len(queries)


def test_moco_v3_with_momentum_0_and_no_predictor_is_in_batch_info_nce() -> None:
    sets = {"target.decay": 0.0, "encoder.predictor": False}
    method, _ = built("moco-v3", None, sets)
    seen: list[tuple[Encoded, Targets]] = []

    class Watch:
        @coview.hookimpl(tryfirst=True)
        def compute_loss(self, encoded: Encoded, targets: Targets) -> None:
            seen.append((encoded, targets))

    method.observe(Watch(), "watch")
    moves = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for number in range(3):
        step = Step(number=number, total_steps=10)
        moves.zero_grad()
        loss = method(batch(), step)
        loss.backward()
        encoded, targets = seen[-1]
        z = {v: rows.detach().double() for v, rows in encoded.projections.items()}
        for view in (0, 1):
            # The copy is the network itself, and batch-normalises the same view alone.
            assert torch.allclose(targets.keys[view].double(), z[view], atol=1e-5)
            assert not targets.keys[view].requires_grad
        expected = 0.4 * sum(slow_info_nce(z[q], z[1 - q], 0.2) for q in (0, 1))
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        moves.step()
        method.update_target(step)
    in_batch, _ = built(
        "simclr",
        {"views": "byol", "encoder": "predictor", "target": "stop-gradient"},
        {"views.order": ["crop", "jitter", "grey", "blur", "solarize", "flip"],
         "views.crop_scale": [0.08, 1.0], "views.interpolation": "bilinear",
         "views.blur_kind": "pillow",
         "encoder.layers": 3, "encoder.hidden_bias": False, "encoder.predictor": False,
         "encoder.output_norm": "batch-plain", "encoder.norm_views": "each",
         "negatives.views": "key", "loss.temperature": 0.2, "loss.reduction": "sum",
         "loss.scale": "2-temperature", "encoder.dim": 8, "encoder.hidden": 16},
    )  # fmt: skip
    again, _ = built("moco-v3", None, sets)
    in_batch.encoder.load_state_dict(again.encoder.state_dict())
    losses = [method(batch(), Step(seed=5)).item() for method in (again, in_batch)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
