from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import coview
from coview import Batch, Layout, Plan, Views
from coview.nn.backbones import BackboneSpec


class Pixels(nn.Module):
    """A trunk one can follow by hand: batch norm over channels, then pixels as features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.num_features = 3 * size * size

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(images).flatten(1)


class Identities(nn.Module):
    num_features = 27

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def plan(trunk: Any = None, batch: int = 8, views: int = 2) -> Plan:
    spec = BackboneSpec("pixels", trunk or (lambda c, s, _: Pixels(3)))
    pairs = tuple((i, j) for i in range(views) for j in range(views) if i != j)
    everyone = tuple(range(views))
    layout = Layout(((3, 3),) * views, (3,) * views, everyone, everyone, pairs)
    return Plan(batch_size=batch, backbone=spec, layout=layout)


def encoder(the_plan: Plan, **chosen: Any) -> Any:
    torch.manual_seed(0)
    made: Any = coview.component("encoders", "projection", plan=the_plan, **chosen)
    return made.double()


def crops(rows: int = 8, views: int = 2, seed: int = 1) -> tuple[Tensor, ...]:
    make = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(rows, 3, 3, 3, generator=make, dtype=torch.float64) * (v + 1) + v
        for v in range(views)
    )


def views_of(parts: tuple[Tensor, ...]) -> Views:
    everyone = tuple(range(len(parts)))
    pairs = tuple((i, j) for i in everyone for j in everyone if i != j)
    return Views(parts, everyone, everyone, pairs)


def standardised(rows: Tensor) -> Tensor:
    """Batch norm of (N, 3, 3, 3) by hand, eps 1e-5."""
    out = torch.empty_like(rows)
    for channel in range(3):
        values = rows[:, channel]
        mean = values.sum() / values.numel()
        variance = (values - mean).square().sum() / values.numel()
        out[:, channel] = (values - mean) / (variance + 1e-5).sqrt()
    return out.flatten(1)


def by_hand(made: Any, groups: list[Tensor]) -> Tensor:
    return torch.cat([standardised(group) for group in groups])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_a_view_are_normalised_apart(groups: int) -> None:
    made = encoder(plan(), norm_views="each", norm_groups=groups, output_norm="none", norm="none")
    parts = crops()
    features, projections = made.project(views_of(parts), (0, 1))
    size = 8 // groups
    for view in (0, 1):
        chunks = [parts[view][i : i + size] for i in range(0, 8, size)]
        expected = by_hand(made, chunks)
        assert torch.allclose(features[view], expected, atol=1e-12)
        assert torch.allclose(projections[view], made.projector(expected), atol=1e-12)


def test_groups_differ_from_the_whole_batch() -> None:
    made = encoder(plan(), norm_views="each", norm_groups=4)
    whole = encoder(plan(), norm_views="each", norm_groups=1)
    views = views_of(crops())
    apart, together = made.project(views, (0,))[0][0], whole.project(views, (0,))[0][0]
    assert (apart - together).abs().max() > 0.1


def test_joint_normalises_trunk_and_head_over_both_views() -> None:
    made = encoder(plan(), norm_views="joint")
    parts = crops()
    features, projections = made.project(views_of(parts), (0, 1))
    expected = standardised(torch.cat(parts))
    assert torch.allclose(torch.cat([features[0], features[1]]), expected, atol=1e-12)
    head = made.projector(expected)  # in training mode: statistics of all 16 rows
    assert torch.allclose(torch.cat([projections[0], projections[1]]), head, atol=1e-12)


def test_each_normalises_a_view_alone() -> None:
    made = encoder(plan(), norm_views="each")
    parts = crops()
    features, projections = made.project(views_of(parts), (0, 1))
    for view in (0, 1):
        assert torch.allclose(features[view], standardised(parts[view]), atol=1e-12)
        assert torch.allclose(projections[view], made.projector(features[view]), atol=1e-12)


def test_joint_groups_hold_the_same_images_of_every_view() -> None:
    """A device normalises both views of its own images together."""
    made = encoder(plan(), norm_views="joint", norm_groups=2)
    a, b = crops()
    features, _ = made.project(views_of((a, b)), (0, 1))
    for half in (slice(0, 4), slice(4, 8)):
        expected = standardised(torch.cat([a[half], b[half]]))
        assert torch.allclose(features[0][half], expected[:4], atol=1e-12)
        assert torch.allclose(features[1][half], expected[4:], atol=1e-12)


def test_joint_with_two_resolutions() -> None:
    """The trunk takes views of one size at a time, the head all of them."""

    def pooled(c: int, s: int, _: Any) -> nn.Module:
        trunk = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        trunk.num_features = 3  # type: ignore[assignment]
        return trunk

    made = encoder(plan(pooled, views=3), norm_views="joint")
    a, b, _ = crops(views=3)
    small = a[:, :, :2, :2] * 3
    features, projections = made.project(views_of((a, b, small)), (0, 1, 2))
    large = made.trunk(torch.cat([a, b]))
    assert torch.allclose(torch.cat([features[0], features[1]]), large, atol=1e-12)
    assert torch.allclose(features[2], made.trunk(small), atol=1e-12)
    head = made.projector(torch.cat([features[v] for v in (0, 1, 2)]))
    assert torch.allclose(torch.cat([projections[v] for v in (0, 1, 2)]), head, atol=1e-12)


@pytest.mark.parametrize("rows, groups", [(25, 8), (17, 8), (9, 4), (8, 3)])
def test_uneven_groups_differ_by_one_row(rows: int, groups: int) -> None:
    made = encoder(plan(batch=rows), norm_views="each", norm_groups=groups)
    (part,) = crops(rows, 1)
    features, _ = made.project(Views((part,), (0,), (0,), ()), (0,))
    sizes = [rows // groups + (i < rows % groups) for i in range(groups)]
    expected = by_hand(made, list(part.split(sizes)))
    assert min(sizes) >= 2
    assert torch.allclose(features[0], expected, atol=1e-12)


def test_without_batch_norm_groups_change_nothing() -> None:
    the_plan = plan(lambda c, s, _: Identities())
    plain = {"norm": "none", "output_norm": "none"}
    views = views_of(crops())
    results = [
        encoder(the_plan, norm_views=norm_views, norm_groups=groups, **plain).project(views, (0, 1))
        for norm_views in ("each", "resolution", "joint")
        for groups in (1, 4)
    ]
    for _, projections in results:
        for view in (0, 1):
            assert torch.allclose(projections[view], results[0][1][view], atol=1e-12)


def test_too_many_groups_are_refused() -> None:
    with pytest.raises(coview.RequestError, match="norm_groups = 8 leaves 1 image"):
        encoder(plan(batch=15), norm_groups=8)


def test_encode_gives_queries_features_and_identities() -> None:
    made = encoder(plan())
    batch = Batch(torch.zeros(8, 3, 3, 3, dtype=torch.uint8), torch.arange(8) + 5)
    encoded = made.encode(views_of(crops()), batch)
    assert encoded.pairs == ((0, 1), (1, 0)) and set(encoded.features) == {0, 1}
    for view in (0, 1):
        assert encoded.queries[view] is encoded.projections[view]
        assert encoded.queries[view].shape == (8, 128) and encoded.queries[view].requires_grad
        assert encoded.features[view].shape == (8, 27)
        assert torch.equal(encoded.identities[view], batch.indices)


def head_of(width: int, **chosen: Any) -> Any:
    class Trunk(nn.Module):
        num_features = width

    trunk = plan(lambda c, s, _: Trunk())
    made: Any = coview.component("encoders", "projection", plan=trunk, **chosen)
    return made.projector


def parameters(module: nn.Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def test_the_released_head() -> None:
    """Two layers without bias, batch norm after both, the last without a shift."""
    head = head_of(2048)
    kinds = [type(m) for m in head.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    linears = [m for m in head.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(2048, 2048), (2048, 128)]
    assert all(m.bias is None for m in linears)
    last = head[-1][-1]
    assert last.weight.requires_grad and not last.bias.requires_grad and not last.bias.any()
    # Both scales, the first shift: 2048 x 2048 + 2 x 2048 + 2048 x 128 + 128.
    assert parameters(head, trainable=True) == 4_460_672


def test_deeper_and_plainer_heads() -> None:
    assert parameters(head_of(2048, layers=3), trainable=True) == 8_659_072
    assert parameters(head_of(2048, norm="none", output_norm="none", bias=True)) == 4_458_624
    linear = head_of(512, layers=1, output_norm="none", bias=True)
    assert [type(m) for m in linear.modules() if not isinstance(m, nn.Sequential)] == [nn.Linear]
    assert parameters(head_of(512, hidden=64, output_norm="none")) == 512 * 64 + 128 + 64 * 128


def test_a_copy_keeps_the_weights() -> None:
    made = encoder(attrs.evolve(plan(), batch_size=8))
    copy = made.without_predictor()
    for a, b in zip(made.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()
