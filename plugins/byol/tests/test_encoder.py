from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coview
from coview import Batch, Layout, Plan, Views
from coview.nn.backbones import BackboneSpec
from coview.optim.groups import make_optimizer, set_rate
from coview.optim.optimizers import MakeSGD

LAYOUT = Layout(((2, 2),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))


class Trunk(nn.Module):
    """Pixels as features, at any width one asks for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def encoder(width: int = 12, **chosen: Any) -> Any:
    torch.manual_seed(0)
    spec = BackboneSpec("pixels", lambda c, s, _: Trunk(width))
    plan = Plan(batch_size=8, backbone=spec, layout=LAYOUT)
    small = {"hidden": 6, "predictor_hidden": 5, "dim": 4} if width == 12 else {}
    return coview.component("encoders", "predictor", plan=plan, **{**small, **chosen})


def views(seed: int = 0) -> Views:
    make = torch.Generator().manual_seed(seed)
    crops = torch.randn(2, 8, 3, 2, 2, generator=make, dtype=torch.float64)
    return Views((crops[0], 3 * crops[1] + 1), (0, 1), (0, 1), LAYOUT.pairs)


def batch() -> Batch:
    return Batch(torch.zeros(8, 3, 2, 2, dtype=torch.uint8), torch.arange(8))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def kinds(module: nn.Module) -> list[type]:
    return [type(m) for m in module.modules() if not isinstance(m, nn.Sequential)]


def test_the_paper_s_heads() -> None:
    made = encoder(2048)
    assert count(made.projector) == 9_449_472 and count(made.predictor) == 2_109_440
    for head, width in ((made.projector, 2048), (made.predictor, 256)):
        assert kinds(head) == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        first, last = head[0][0], head[-1][0]
        assert (first.in_features, first.out_features) == (width, 4096)
        assert (last.in_features, last.out_features) == (4096, 256)
        assert first.bias is not None and last.bias is None
        norm = head[0][1]
        assert (norm.eps, norm.momentum) == (1e-5, 0.1)


def slow_head(head: nn.Module, rows: Tensor) -> Tensor:
    """Linear, batch norm by hand, ReLU, linear; (N, in) -> (N, out)."""
    first, norm, last = head[0][0], head[0][1], head[1][0]  # type: ignore[index]
    hidden = rows @ first.weight.T + first.bias
    mean = hidden.sum(0) / len(hidden)
    variance = (hidden - mean).square().sum(0) / len(hidden)
    scaled = (hidden - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
    return scaled.clamp(min=0) @ last.weight.T


@pytest.mark.parametrize("norm_views", ["each", "joint"])
def test_projection_and_prediction(norm_views: str) -> None:
    """Each view alone, as in the paper, or both in one batch norm."""
    made = encoder(norm_views=norm_views).double()
    encoded = made.encode(views(), batch())
    parts = [crop.flatten(1) for crop in views().crops]
    if norm_views == "each":
        projections = [slow_head(made.projector, part) for part in parts]
        predictions = [slow_head(made.predictor, part) for part in projections]
    else:
        projections = list(slow_head(made.projector, torch.cat(parts)).split(8))
        predictions = list(slow_head(made.predictor, torch.cat(projections)).split(8))
    for view in (0, 1):
        assert torch.allclose(encoded.projections[view], projections[view], atol=1e-10)
        assert torch.allclose(encoded.queries[view], predictions[view], atol=1e-10)


def test_a_copy_does_not_predict() -> None:
    made = encoder()
    copy = made.without_predictor()
    assert made.predictor is not None and copy.predictor is None
    names = {name for name, _ in made.named_parameters()}
    assert {name for name, _ in copy.named_parameters()} == {
        name for name in names if not name.startswith("predictor")
    }
    projections = {0: torch.randn(3, 4)}
    assert copy.predict(projections) is projections


def test_a_momentum_target_does_not_predict() -> None:
    made = encoder().double()
    plan = Plan(batch_size=8, dim=4, encoder=made)
    target: Any = coview.component("targets", "momentum", plan=plan)
    keys = target.encode_targets(views(), None, batch(), coview.Step()).keys
    _, projections = made.project(views(), (0, 1))
    for view in (0, 1):
        assert torch.allclose(keys[view], projections[view].detach(), atol=1e-12)
    with torch.no_grad():
        [p.add_(1) for p in made.parameters()]
    target.update_target(made, coview.Step())


def test_without_a_predictor() -> None:
    made = encoder(predictor=False).double()
    encoded = made.encode(views(), batch())
    assert made.predictor is None
    assert all(encoded.queries[v] is encoded.projections[v] for v in (0, 1))


@pytest.mark.parametrize("norm, kind", [("none", None), ("layer", nn.LayerNorm)])
def test_heads_without_batch_statistics(norm: str, kind: type | None) -> None:
    made = encoder(norm=norm)
    for head in (made.projector, made.predictor):
        expected = [nn.Linear, *([kind] if kind else []), nn.ReLU, nn.Linear]
        assert kinds(head) == expected


def test_the_predictor_may_keep_its_rate() -> None:
    """SimSiam's: the schedule leaves the predictor's learning rate alone."""
    for fixed in (True, False):
        made = encoder(predictor_fixed_rate=fixed)
        method = nn.Module()
        method.components = nn.ModuleDict({"encoder": made})
        settings = MakeSGD.Settings(lr=0.5)
        optimizer = make_optimizer(
            MakeSGD, settings, method, Plan(batch_size=8), torch.device("cpu")
        )
        set_rate(optimizer, 0.1)
        rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert {rates[p] for p in made.predictor.parameters()} == {0.5 if fixed else 0.1}
        assert {rates[p] for p in made.projector.parameters()} == {0.1}


def test_a_predictor_that_is_not_trained() -> None:
    made = encoder(predictor_trained=False)
    trained = {name.partition(".")[0] for name, p in made.named_parameters() if p.requires_grad}
    assert "projector" in trained and "predictor" not in trained
    made.double().project(views(), (0,))
    assert [p.requires_grad for p in made.predictor.parameters()] == [False] * 5


def test_without_a_predictor_it_has_no_rate() -> None:
    assert encoder(predictor=False, predictor_fixed_rate=True).parameter_groups() == {}
    assert list(encoder(predictor_fixed_rate=True).parameter_groups()) == ["predictor.*"]
