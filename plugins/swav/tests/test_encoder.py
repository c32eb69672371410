"""Projections, scores, and how prototypes move."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import coview
from coview import Batch, Layout, Plan, Step, Views
from coview.nn.backbones import from_module
from coview.optim.groups import make_optimizer
from coview.registry import find


class Pixels(torch.nn.Module):
    """A backbone that counts its calls and their shapes; (B, C, h, w) -> (B, 6)."""

    num_features = 6
    shapes: list[tuple[int, ...]]

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 6)
        self.norm = torch.nn.BatchNorm1d(6) if norm else torch.nn.Identity()
        self.shapes = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        out: torch.Tensor = self.norm(self.layer(images.mean((2, 3))))
        return out


SIZES = (8, 8, 4, 4, 6)


def plan() -> Plan:
    pairs = tuple((q, k) for q in range(5) for k in (0, 1) if q != k)
    layout = Layout(tuple((s, s) for s in SIZES), (3,) * 5, tuple(range(5)), (0, 1), pairs)
    return Plan(batch_size=4, layout=layout, backbone=from_module(Pixels(), 3, 8))


def encoder(**chosen: Any) -> Any:
    torch.manual_seed(0)
    return coview.component(
        "encoders", "prototypes", plan=plan(), **{"dim": 5, "hidden": 7, "prototypes": 11, **chosen}
    )


def views() -> Views:
    make = torch.Generator().manual_seed(0)
    crops = tuple(torch.randn(4, 3, s, s, generator=make) for s in SIZES)
    layout = plan().layout
    assert layout
    return Views(crops, layout.queries, layout.keys, layout.pairs)


@pytest.mark.parametrize(
    "norm_views, calls",
    [
        ("each", [(4, 3, 8, 8)] * 2 + [(4, 3, 4, 4)] * 2 + [(4, 3, 6, 6)]),
        ("resolution", [(8, 3, 8, 8), (8, 3, 4, 4), (4, 3, 6, 6)]),
        ("joint", [(8, 3, 8, 8), (8, 3, 4, 4), (4, 3, 6, 6)]),
    ],
)
def test_one_backbone_call_a_resolution_and_no_padding(
    norm_views: str, calls: list[tuple[int, ...]]
) -> None:
    made = encoder(norm_views=norm_views)
    encoded = made.encode(views(), Batch(torch.zeros(4, 3, 8, 8), torch.arange(4)))
    assert made.trunk.shapes == calls
    assert {v: tuple(q.shape) for v, q in encoded.queries.items()} == dict.fromkeys(
        range(5), (4, 11)
    )
    assert {tuple(z.shape) for z in encoded.projections.values()} == {(4, 5)}
    assert made.dim == 5


def test_scores_are_cosines_with_the_prototypes() -> None:
    made = encoder().double()
    rows = torch.randn(3, 5, dtype=torch.float64) * 100
    scores = made.predict({0: rows})[0]
    for i in range(3):
        for k in range(11):
            z, c = rows[i], made.predictor.weight[k]
            assert scores[i, k].item() == pytest.approx((z @ c / z.norm() / c.norm()).item())


def test_prototypes_are_unit_when_built_and_after_every_step() -> None:
    made = encoder()
    unit = torch.ones(11)
    assert torch.allclose(made.predictor.weight.norm(dim=1), unit)
    with torch.no_grad():
        made.predictor.weight.mul_(torch.rand(11, 1) + 0.5)
    made.update_target()
    assert torch.allclose(made.predictor.weight.norm(dim=1), unit)


@pytest.mark.parametrize("chosen", [{"freeze_steps": 3}, {"freeze_steps": 0, "freeze_epochs": 1.5}])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "larc"])
def test_prototypes_rest_for_the_first_steps(chosen: dict[str, Any], optimizer: str) -> None:
    made = encoder(**chosen)
    holder = torch.nn.Module()
    holder.components = torch.nn.ModuleDict({"encoder": made})
    maker = find("optimizers", optimizer).load()
    moves = make_optimizer(
        maker, maker.Settings(lr=0.1, weight_decay=0.1), holder, plan(), torch.device("cpu")
    )
    batch = Batch(torch.zeros(4, 3, 8, 8), torch.arange(4))
    for number in range(5):
        step = Step(number=number, steps_per_epoch=2, total_steps=10)
        before = made.predictor.weight.detach().clone()
        head = made.projector[0][0].weight.detach().clone()
        encoded = made.encode(views(), batch)
        weights = torch.linspace(-1, 1, 44).view(4, 11)
        torch.stack([(q * weights).sum() for q in encoded.queries.values()]).sum().backward()
        made.gradients_ready(step)
        assert (made.predictor.weight.grad is None) is (number < 3)
        moves.step()
        made.update_target()
        moves.zero_grad()
        moved = (before - made.predictor.weight).abs().max()
        assert moved < 1e-6 if number < 3 else moved > 1e-5
        assert not torch.equal(head, made.projector[0][0].weight)


def test_a_target_s_copy_has_no_prototypes() -> None:
    made = encoder()
    twin = made.without_predictor()
    assert twin.predictor is None
    assert made.predictor.weight.shape == (11, 5)
    assert set(twin.state_dict()) == {k for k in made.state_dict() if "predictor" not in k}


def test_the_released_head() -> None:
    """Linear(2048, 2048) with bias, batch norm, ReLU, Linear(2048, 128) with bias; 3000 x 128."""
    settings = coview.component("encoders", "prototypes", plan=plan()).Settings()
    assert (settings.dim, settings.hidden, settings.prototypes) == (128, 2048, 3000)
    made = coview.component("encoders", "prototypes", plan=plan())
    sizes = [p.numel() for p in made.projector.parameters()]
    assert sizes == [6 * 2048, 2048, 2048, 2048, 2048 * 128, 128]
    assert [p.numel() for p in made.predictor.parameters()] == [3000 * 128]
