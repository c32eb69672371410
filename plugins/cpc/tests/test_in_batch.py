from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import coview
from coview import Encoded, Step, Targets


def source(**chosen: Any) -> Any:
    return coview.component("negatives", "in-batch", **chosen)


def two_views(rows: int = 3) -> tuple[dict[int, Tensor], Targets]:
    make = torch.Generator().manual_seed(0)
    keys = {v: torch.randn(rows, 2, generator=make, dtype=torch.float64) for v in (0, 1)}
    own = torch.arange(rows) + 10
    return keys, Targets(keys, dict.fromkeys(keys, own))


def test_every_view_s_keys_with_their_images() -> None:
    keys, targets = two_views()
    given = source().draw_negatives(targets)
    every = torch.cat([keys[0], keys[1]])
    for slot in (0, 1):
        assert torch.equal(given.vectors[slot], every)
        assert given.identities[slot].tolist() == [10, 11, 12, 10, 11, 12]
    assert not given.normalized


def test_the_key_s_view_alone() -> None:
    keys, targets = two_views()
    given = source(views="key").draw_negatives(targets)
    for slot in (0, 1):
        assert torch.equal(given.vectors[slot], keys[slot])
        assert given.identities[slot].tolist() == [10, 11, 12]


@pytest.mark.parametrize("views, negatives", [("all", 2 * (4 - 1)), ("key", 4 - 1)])
def test_how_many_negatives_a_query_has(views: str, negatives: int) -> None:
    """Equal embeddings cost log of the number of candidates, positive included."""
    same = torch.ones(4, 3, dtype=torch.float64)
    own = torch.arange(4)
    encoded = Encoded({0: same, 1: same}, {}, {0: own, 1: own}, ((0, 1), (1, 0)), {})
    targets = Targets({0: same, 1: same}, {0: own, 1: own})
    drawn = (source(views=views).draw_negatives(targets),)
    loss = coview.component("losses", "info-nce").compute_loss(encoded, targets, drawn, Step())
    assert loss.item() == pytest.approx(math.log(1 + negatives), abs=1e-12)


@pytest.mark.parametrize("views", ["all", "key"])
def test_gradient_flows_where_the_target_lets_it(views: str) -> None:
    keys, _ = two_views()
    own = torch.arange(3)
    for live in (True, False):
        rows = {v: k.clone().requires_grad_(live) for v, k in keys.items()}
        drawn = source(views=views).draw_negatives(Targets(rows, dict.fromkeys(rows, own)))
        assert all(vectors.requires_grad is live for vectors in drawn.vectors.values())
        if live:
            drawn.vectors[1].sum().backward()
            reached = [rows[v].grad is not None for v in (0, 1)]
            assert reached == [views == "all", True]


def test_an_image_twice_in_a_batch_is_no_negative_of_itself() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    own = torch.tensor([5, 5, 6])
    encoded = Encoded({0: rows}, {}, {0: own}, ((0, 1),), {})
    targets = Targets({0: rows, 1: rows}, {0: own, 1: own})
    drawn = (source(views="key").draw_negatives(targets),)
    loss = coview.component("losses", "info-nce", temperature=1).compute_loss(
        encoded, targets, drawn, Step()
    )
    similar = (rows @ rows.T).tolist()
    terms = [
        math.log(math.exp(1.0) + sum(math.exp(similar[i][j]) for j in others)) - 1.0
        for i, others in ((0, [2]), (1, [2]), (2, [0, 1]))
    ]
    assert loss.item() == pytest.approx(sum(terms) / 3, abs=1e-12)


def test_it_keeps_nothing() -> None:
    assert source().state_dict() == {}
