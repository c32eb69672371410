"""Cross-view prediction, and what one view's network has learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import coview
from coview import Batch, Encoded, Layout, Plan, RequestError, Targets, Views
from coview_cmc.one_view import FirstView, first_view_knn
from coview_cmc.prediction import Pixels, SquaredError

BOTH = ((0, 1), (1, 0))


def plan(*channels: int, dim: int = 4) -> Plan:
    layout = Layout(((4, 4),) * len(channels), channels, (0, 1), (0, 1), BOTH)
    return Plan(layout=layout, dim=dim, batch_size=2)


def test_a_key_is_the_view_at_a_lower_resolution() -> None:
    """Quarters of a 4 x 4 picture of 0 to 15 have the means 2.5, 4.5, 10.5, 12.5."""
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    views = Views((picture, 2 * picture), (0, 1), (0, 1), BOTH)
    target = Pixels(Pixels.Settings(side=2), plan(1, 1))
    found = target.encode_targets(views, Batch(picture, torch.tensor([7])))
    assert found.keys[0].tolist() == [[2.5, 4.5, 10.5, 12.5]]
    assert found.keys[1].tolist() == [[5.0, 9.0, 21.0, 25.0]]
    assert found.identities[1].tolist() == [7]


@pytest.mark.parametrize("channels, dim", [((1, 1), 5), ((1, 2), 4)])
def test_the_head_must_have_a_value_for_each_pixel(channels: tuple[int, ...], dim: int) -> None:
    with pytest.raises(RequestError, match=r"set encoder\.dim"):
        Pixels(Pixels.Settings(side=2), plan(*channels, dim=dim))


def test_the_squared_error_by_hand() -> None:
    """Differences (1, -1) and (3, 0): means 1 and 4.5."""
    queries = {0: torch.tensor([[1.0, 0.0]]), 1: torch.tensor([[3.0, 2.0]])}
    keys = {0: torch.tensor([[0.0, 2.0]]), 1: torch.tensor([[0.0, 1.0]])}
    whose = dict.fromkeys((0, 1), torch.zeros(1, dtype=torch.int64))
    encoded, targets = Encoded(queries, queries, whose, BOTH, queries), Targets(keys, whose)
    for reduction, expected in (("sum", 5.5), ("mean", 2.75)):
        loss = SquaredError(SquaredError.Settings(reduction=reduction), plan(1, 1))
        assert float(loss.compute_loss(encoded, targets)) == expected


def test_prediction_trains_and_its_first_view_is_measured(tmp_path: Path) -> None:
    run = coview.train(
        "cmc",
        data="digits",
        preset="tiny",
        out=tmp_path / "run",
        max_steps=8,
        log_every=1,
        use={"target": "pixels", "negatives": "none", "loss": "squared-error"},
        set={"encoder.dim": 64, "target.side": 8, "optimizer.lr": 1e-3},
        progress=False,
    )
    losses = [entry["loss"] for entry in run.metrics if "loss" in entry]
    assert losses[-1] < losses[0]
    assert 0.1 < first_view_knn(run) < 1
    images = torch.rand(2, *run.data.train.images.shape[1:])
    views = run.method.components["views"]
    encoder = run.method.encoder.eval()
    with torch.no_grad():
        first = FirstView(encoder, views)(images)
        joined = encoder.backbone()(*views.evaluation_views(images).crops)
    assert torch.allclose(first, joined[:, : first.shape[1]], atol=1e-5)
