"""SimSiam: worked numbers of its loss, its heads, its rates, and a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import coview
from coview import Encoded, Layout, Plan, RequestError, Step, Targets
from coview.method.module import build_method
from coview.nn.backbones import BackboneSpec
from coview.optim.groups import make_optimizer, set_rate
from coview.recipes.configure import Changes, configure

DOUBLE = torch.float64
BOTH = ((0, 1), (1, 0))


def matrix(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=DOUBLE)


def loss(queries: dict[int, Tensor], keys: dict[int, Tensor], pairs: Any, **chosen: Any) -> Tensor:
    own = dict.fromkeys((0, 1), torch.arange(2))
    made = coview.component("losses", "regression", **chosen)
    return made.compute_loss(Encoded(queries, {}, own, pairs, {}), Targets(keys, own))


P = {0: matrix((3, 4), (1, 1)), 1: matrix((1, 0), (0, 2))}
Z = {0: matrix((1, 1), (0, 1)), 1: matrix((4, 3), (1, -1))}


def test_simsiam_toy_1() -> None:
    form = {"form": "negative-cosine", "reduction": "mean"}
    assert loss(P, Z, ((0, 1),), **form).item() == pytest.approx(-0.48)
    assert loss(P, Z, ((1, 0),), **form).item() == pytest.approx(-0.853553, abs=1e-6)
    simsiam = loss(P, Z, BOTH, **form).item()
    assert simsiam == pytest.approx(-0.666777, abs=1e-6)
    byol = loss(P, Z, BOTH).item()
    assert byol == pytest.approx(1.332893, abs=1e-6)
    assert byol == pytest.approx(4 + 4 * simsiam)


def test_simsiam_toy_4_without_a_predictor_the_stopped_gradient_is_half_the_whole() -> None:
    random = np.random.default_rng(1)
    u, v = (torch.from_numpy(random.standard_normal((1, 3))) for _ in range(2))
    whole = u.clone().requires_grad_()
    (-torch.nn.functional.cosine_similarity(whole, v)).sum().backward()
    assert whole.grad is not None
    expected = [0.939267, -0.321891, -0.181954]
    assert whole.grad[0].tolist() == pytest.approx(expected, abs=1e-6)
    mine = u.clone().requires_grad_()
    own = dict.fromkeys((0, 1), torch.arange(1))
    projections = {0: mine, 1: v}
    encoded = Encoded(projections, projections, own, BOTH, {})
    target = coview.component("targets", "stop-gradient")
    targets = target.encode_targets(encoded)
    made = coview.component("losses", "regression", form="negative-cosine", reduction="mean")
    made.compute_loss(encoded, targets).backward()
    assert mine.grad is not None
    assert mine.grad[0].tolist() == pytest.approx([0.469634, -0.160946, -0.090977], abs=1e-6)


def test_keys_are_the_projections_without_gradient() -> None:
    z = {v: torch.randn(4, 3, requires_grad=True) for v in (0, 1, 2)}
    own = dict.fromkeys(z, torch.arange(4))
    encoded = Encoded({}, z, own, ((0, 1), (1, 0), (2, 0)), {})
    targets = coview.component("targets", "stop-gradient").encode_targets(encoded)
    assert set(targets.keys) == {0, 1}
    for slot, keys in targets.keys.items():
        assert not keys.requires_grad
        assert torch.equal(keys, z[slot])
        assert targets.identities[slot] is own[slot]


@pytest.mark.parametrize(
    "queries, pairs, sentence",
    [((0,), ((0, 1),), "views.symmetric = true"), ((0, 1), ((0, 0),), "with itself")],
)
def test_views_it_cannot_work_with(queries: Any, pairs: Any, sentence: str) -> None:
    layout = Layout(((8, 8),) * 2, (3, 3), queries, (0, 1), pairs)
    with pytest.raises(RequestError, match=sentence):
        coview.component("targets", "stop-gradient", plan=Plan(layout=layout))


class Wide(torch.nn.Module):
    """Stands for a ResNet-50: (B, C, h, w) -> (B, 2048)."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2048, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layer(images.mean((2, 3)))
        return out


@pytest.fixture
def method() -> Any:
    resolved = configure("simsiam", None, Changes(preset="none"), "test")
    plan = Plan(batch_size=4, steps_per_epoch=2, total_steps=200, image_size=16)
    torch.manual_seed(0)
    spec = BackboneSpec("wide", lambda channels, size, settings: Wide())
    return resolved, plan, build_method(resolved, plan, {"backbone": spec})


def test_the_paper_s_heads(method: Any) -> None:
    """12,591,104 trainable in the projector (a frozen bias is left out), 2,100,224 predict."""
    encoder = method[2].encoder
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in encoder.named_children()}
    assert count == {"trunk": 3 * 2048, "projector": 12_591_104, "predictor": 2_100_224}
    last = encoder.projector[-1][-1]
    assert isinstance(last, torch.nn.BatchNorm1d) and not last.affine


def test_the_predictor_keeps_its_rate_and_the_rest_follows_the_sheet(method: Any) -> None:
    resolved, plan, built = method
    optimizer = resolved.part("optimizer")
    made = make_optimizer(optimizer.factory, optimizer.settings, built, plan, torch.device("cpu"))
    schedule = resolved.part("schedule").factory(resolved.part("schedule").settings, plan)
    peak = optimizer.settings.peak(512)
    expected = {0: 0.1, 1: 0.09997533, 10: 0.09755283, 25: 0.08535534, 50: 0.05, 75: 0.01464466,
                99: 2.467e-5}  # fmt: skip
    for group in made.param_groups:
        group["lr"] = peak
    predictor = set(built.encoder.predictor.parameters())
    for epoch, rate in expected.items():
        for number in (2 * epoch, 2 * epoch + 1):
            set_rate(made, schedule.rate(peak, number))
            for group in made.param_groups:
                own = set(group["params"]) <= predictor
                assert own or not set(group["params"]) & predictor
                assert group["lr"] == pytest.approx(peak if own else rate, abs=1e-8)
    assert {group["weight_decay"] for group in made.param_groups} == {1e-4}


def test_a_short_run(tmp_path: Any) -> None:
    run = coview.train(
        "simsiam", data="digits", out=tmp_path / "run", max_steps=4, batch_size=32, device="cpu",
        backbone="resnet10-quarter", progress=False, evaluate=False,
        set={"encoder.dim": 32, "encoder.hidden": 32, "encoder.predictor_hidden": 8},
    )  # fmt: skip
    assert run.step == 4
    assert -1 < run.value("loss") < 1
    assert not any("target" in name for name in run.method.state_dict())


def test_stop_gradient_under_byol_s_loss_is_simsiam_up_to_the_constant() -> None:
    """Same weights, same batch: BYOL's sum is 4 + 4 L, and its gradient four times SimSiam's."""
    plan = Plan(batch_size=6, image_size=16)
    batch = coview.Batch(torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8), torch.arange(6))
    found = []
    for form, reduction in (("negative-cosine", "mean"), ("squared-distance", "sum")):
        sets = {"encoder.dim": 8, "encoder.hidden": 16, "loss.form": form,
                "loss.reduction": reduction}  # fmt: skip
        changes = Changes(preset="none", backbone="resnet10-quarter", set=sets)
        torch.manual_seed(3)
        built = build_method(configure("simsiam", None, changes, "test"), plan)
        value = built(batch, Step(seed=1))
        value.backward()
        gradients = [p.grad for p in built.parameters() if p.grad is not None]
        found.append((value.item(), gradients))
    (simsiam, mine), (byol, theirs) = found
    assert byol == pytest.approx(4 + 4 * simsiam, abs=1e-6)
    assert len(mine) == len(theirs) > 10
    for own, other in zip(mine, theirs, strict=True):
        assert torch.allclose(4 * own, other, rtol=1e-4, atol=1e-6)
