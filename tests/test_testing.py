"""The tools for authors' tests: made-up records, one step, assertions, and what they say."""

from __future__ import annotations

from typing import Any

import pluggy
import pytest
import torch
from torch import Tensor, nn

import coview
from coview.errors import PluginError
from coview.hookspecs import PROJECT, hookimpl
from coview.method.border import Border
from coview.method.relay import BuiltComponent
from coview.records import Batch, Encoded, Targets
from coview.testing import (
    ConformanceError,
    a_batch,
    a_method_of,
    a_plan,
    a_step,
    an_encoded,
    assert_equal_between_processes,
    assert_gradient,
    assert_identical,
    assert_loss_gradient,
    one_step,
    same,
    some_negatives,
    some_targets,
    some_views,
)
from coview.testing.evidence import different, shown

# --- made-up records ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [a_batch, some_views, an_encoded, some_targets, some_negatives])
def test_records_are_the_same_in_every_call_and_others_with_another_seed(make: Any) -> None:
    def numbers(record: Any) -> list[Tensor]:
        name = {"Batch": "images", "Views": "crops", "Encoded": "queries", "Targets": "keys"}
        value = getattr(record, name.get(type(record).__name__, "vectors"))
        return list(value.values()) if isinstance(value, dict) else list(value)

    assert same(numbers(make()), numbers(make()))
    assert not same(numbers(make()), numbers(make(seed=99)))


@pytest.mark.parametrize(("rows", "dim", "views"), [(8, 16, 2), (3, 5, 3)])
def test_records_of_one_size_fit_each_other(rows: int, dim: int, views: int) -> None:
    slots = tuple(range(views))
    parts = [
        BuiltComponent(role, nn.Module(), (role,), "a", "coview-a")
        for role in ("views", "encoder", "target", "negatives", "loss")
    ]
    plan = a_plan(dim=dim, views=views, size=20)
    border = Border(parts, plan.layout, pluggy.PluginManager(PROJECT))
    batch = a_batch(rows, size=20)
    made = some_views(rows, count=views, size=20)
    encoded = an_encoded(rows, dim, views=views, dtype=torch.float32)
    targets = some_targets(rows, dim, slots=slots, dtype=torch.float32)
    shared = some_negatives(7, dim, slots=slots, identities=torch.arange(7), dtype=torch.float32)
    each = some_negatives(7, dim, rows=rows, slots=slots, dtype=torch.float32)
    given = {"batch": batch, "views": made, "encoded": encoded, "targets": targets}
    for hook, record in {
        "generate_views": made,
        "encode": encoded,
        "encode_targets": targets,
        "draw_negatives": (shared, each),
    }.items():
        assert border.problems(hook, record, given) == []
    other = {**given, "batch": a_batch(rows + 1, size=20)}
    assert f"must have {rows + 1} rows" in border.problems("generate_views", made, other)[0]
    assert encoded.queries[0].dtype == torch.float32
    assert an_encoded().queries[0].dtype == torch.float64
    assert encoded.queries[0].requires_grad and not targets.keys[0].requires_grad
    assert some_targets(gradient=True).keys[0].requires_grad
    backbone = plan.backbone.build(3, 20)
    assert backbone(made.crops[0]).shape == (rows, backbone.num_features)


# --- one step -----------------------------------------------------------------------------------


class Weighed(nn.Module):
    """A loss with a parameter, which looks at a field and logs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets, batch: Batch, step: Any) -> Tensor:
        step.log("seen", batch.fields["time"].float().mean())
        return self.scale * (encoded.queries[0] - targets.keys[1]).square().mean()


def test_one_step_is_a_step_of_gradient_descent() -> None:
    method = a_method_of({"loss": Weighed()})
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    batch = a_batch(fields={"time": torch.arange(8)})
    done = one_step(method, batch, a_step(3), lr=0.5)
    distance = (done.encoded.queries[0] - done.targets.keys[1]).square().mean()
    assert torch.isclose(done.loss, 2.0 * distance)
    assert torch.isclose(done.gradients["components.loss.scale"], distance)
    assert set(done.gradients) == set(before)
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter, before[name] - 0.5 * done.gradients[name])
    assert done.metrics == {"seen": 3.5} and done.negatives == ()
    assert torch.equal(done.views.crops[0], batch.images / 255)


def test_one_step_of_an_installed_method_has_all_records() -> None:
    done = one_step("moco")
    assert done.encoded.queries[0].shape[1] == done.targets.keys[1].shape[1]
    assert len(done.negatives) == 1 and done.loss.isfinite()


class Wrong(nn.Module):
    """A target that makes no record."""

    @hookimpl
    def encode_targets(self) -> None:
        """Return nothing."""


def test_one_step_checks_records_and_roles() -> None:
    with pytest.raises(PluginError, match="target 'Wrong' of package under test made a wrong"):
        one_step({"target": Wrong()})
    with pytest.raises(ValueError, match="by role .* not 'losses'"):
        one_step({"losses": Weighed()})


# --- assertions -----------------------------------------------------------------------------------


class Halved(torch.autograd.Function):
    """Squares with half of their gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows.square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        return gradients[0] * rows


def test_a_wrong_gradient_is_found() -> None:
    rows = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert_gradient(lambda x: x.square(), rows)
    with pytest.raises(ConformanceError, match="finite differences"):
        assert_gradient(Halved.apply, rows)


class HalfLoss(nn.Module):
    """A loss whose gradient is half of what it should be, to keys alone."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.constant_keys = constant

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        terms = [encoded.queries[q].sum() * Halved.apply(targets.keys[k]) for q, k in encoded.pairs]
        return torch.stack(terms).mean()


def test_a_losss_gradient_is_checked_to_queries_and_keys() -> None:
    assert_loss_gradient(coview.component("losses", "regression"))
    negatives = (some_negatives(5, 3),)
    assert_loss_gradient(coview.component("losses", "info-nce"), negatives=negatives)
    with pytest.raises(ConformanceError):
        assert_loss_gradient(HalfLoss(constant=False))
    assert_loss_gradient(HalfLoss(constant=True))


def test_a_difference_is_shown_by_the_first_row_that_differs() -> None:
    one = {"a": [torch.arange(12.0).view(4, 3)], "b": 1}
    other = {"a": [one["a"][0].clone()], "b": 1}
    assert_identical(one, other)
    other["a"][0][2, 1] += 0.5
    other["a"][0][3] += 1
    with pytest.raises(ConformanceError) as caught:
        assert_identical(one, other, "the states")
    assert caught.value.sentence == "the states differ in a[0]"
    assert caught.value.evidence == (
        "row 2, columns 0-2: [6, 7, 8] and [6, 7.5, 8]; 2 of 4 rows differ"
    )
    wide, wider = torch.zeros(2, 100), torch.zeros(2, 100)
    wider[1, 50] = 0.5
    assert shown(wide, wider) == (
        "row 1, columns 50-53: [0, 0, 0, 0] and [0.5, 0, 0, 0]; 1 of 2 rows differ"
    )
    assert shown(torch.zeros(2), torch.zeros(3)) == "shapes (2,) and (3,)"
    assert list(different({"a": 1}, {"b": 1})) == [("a", 1, None), ("b", None, 1)]
    assert list(different([1.0], [1])) == [("[0]", 1.0, 1)]
    assert list(different(torch.ones(2), torch.ones(2) + 1e-6, atol=1e-5)) == []


class Local(nn.Module):
    """Makes statistics of its own rows alone, as a loss that forgets the other processes does."""

    @hookimpl
    def compute_loss(self, encoded: Encoded) -> Tensor:
        return encoded.queries[0].std(dim=0).mean()


def test_processes_that_differ_are_found() -> None:
    with pytest.raises(ConformanceError) as caught:
        assert_equal_between_processes({"loss": Local()})
    assert "on process 0 of 2 differs" in caught.value.sentence
    assert "one process and process 0: row 0" in caught.value.evidence
