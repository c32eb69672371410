"""Stochastic depth: dealt by the step, for the global batch."""

from __future__ import annotations

import pytest
import torch
from timm.layers.drop import DropPath
from torch import nn

from coview.nn import drop_path as depth
from coview.nn.drop_path import SharedDropPath, deal, drawing, share
from coview.records import Step


def network(probability: float = 0.5) -> tuple[nn.Sequential, list[SharedDropPath]]:
    made = nn.Sequential(DropPath(0.0), nn.Sequential(DropPath(probability)), DropPath(0.25))
    share(made)
    return made, [made[1][0], made[2]]


def test_those_that_drop_are_replaced() -> None:
    made = nn.Sequential(DropPath(0.0), nn.Sequential(DropPath(0.5)), DropPath(0.25))
    found = share(made)
    assert sorted(path.drop_prob for path in found) == [0.25, 0.5]
    assert {id(path) for path in found} == {id(made[1][0]), id(made[2])}
    assert type(made[0]) is DropPath and share(made) == []
    assert list(made.state_dict()) == []


def test_rows_are_dropped_whole_and_the_others_scaled() -> None:
    _, (path, _) = network(0.4)
    with drawing(Step(seed=1)):
        deal([path], views=2, rows=500)
    out = path(torch.ones(1000, 3, 2))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    values = out[:, 0, 0]
    dropped = values == 0
    torch.testing.assert_close(values[~dropped], torch.full_like(values[~dropped], 1 / 0.6))
    assert abs(int(dropped.sum()) - 400) < 5 * (1000 * 0.4 * 0.6) ** 0.5


def test_a_process_drops_its_rows_of_what_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    views, rows = 2, 6
    _, paths = network()
    with drawing(Step(number=3)):
        deal(paths, views, rows)
    whole = [path.kept.view(views, rows) for path in paths if path.kept is not None]
    monkeypatch.setattr(depth, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(depth, "rank", lambda rank=rank: rank)
        with drawing(Step(number=3)):
            deal(paths, views, rows // 3)
        for path, together in zip(paths, whole, strict=True):
            own = together[:, 2 * rank : 2 * rank + 2].flatten()
            assert path.kept is not None and torch.equal(path.kept, own)


def test_calls_of_a_step_and_layers_draw_apart() -> None:
    _, paths = network(0.25)
    seen = []
    with drawing(Step()):
        for _ in range(2):
            deal(paths, 1, 200)
            seen += [path.kept for path in paths]
    with drawing(Step(number=1)):
        deal(paths, 1, 200)
        seen.append(paths[0].kept)
    for number, one in enumerate(seen):
        assert not any(torch.equal(one, other) for other in seen[:number])


def test_without_a_step_or_in_evaluation_it_is_timms() -> None:
    made, paths = network(0.5)
    with drawing(Step()):
        deal(paths, 1, 8)
    rows = torch.randn(8, 3)
    made.eval()
    assert torch.equal(made(rows), rows)
    made.train()
    deal(paths, 1, 8)  # outside a step: what was dealt is forgotten
    torch.manual_seed(0)
    ours = paths[0](rows)
    torch.manual_seed(0)
    assert torch.equal(ours, DropPath(0.5).train()(rows))
