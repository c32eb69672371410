"""Self-distillation against worked numbers and a slow reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import coview
from coview import Encoded, Plan, Step, Targets

DOUBLE = torch.float64
TEACHER = {0: (0.2, 0.1, 0.0), 1: (0.0, 0.3, 0.1)}
STUDENT = {0: (0.3, 0.1, -0.1), 1: (0.1, 0.2, 0.0), 2: (0.0, 0.1, 0.2)}
PAIRS = tuple((q, k) for q in range(3) for k in (0, 1) if q != k)


def rows(values: dict[int, Any]) -> dict[int, Tensor]:
    return {slot: torch.tensor([row], dtype=DOUBLE) for slot, row in values.items()}


def records(
    student: dict[int, Tensor], teacher: dict[int, Tensor], pairs: Any
) -> tuple[Encoded, Targets]:
    own = dict.fromkeys(student, torch.arange(len(student[0])))
    return Encoded(student, student, own, pairs, {}), Targets(teacher, own)


def made(width: int = 3, **chosen: Any) -> Any:
    return coview.component("losses", "self-distillation", plan=Plan(dim=width), **chosen).double()


def test_dino_toy_1() -> None:
    loss = made()
    loss.centre.copy_(torch.tensor([0.05, 0.1, 0.0]))
    terms = {(1, 0): 1.407606, (2, 0): 2.340222, (0, 1): 2.290816, (2, 1): 1.333664}
    for pair, expected in terms.items():
        found = loss.compute_loss(*records(rows(STUDENT), rows(TEACHER), (pair,)), Step())
        assert found.item() == pytest.approx(expected, abs=1e-6)
    logged: dict[str, Tensor] = {}
    encoded, targets = records(rows(STUDENT), rows(TEACHER), PAIRS)
    found = loss.compute_loss(encoded, targets, Step(sink=logged.__setitem__))
    assert found.item() == pytest.approx(1.843077, abs=1e-6)
    entropies = [0.214422, -sum(p * math.log(p) for p in (0.001781, 0.922496, 0.075723))]
    entropy = sum(entropies) / 2
    assert logged["assignment_entropy"].item() == pytest.approx(entropy / math.log(3), abs=1e-5)
    # Two pairs have either key, so that the mean over pairs takes off the mean entropy.
    assert logged["assignment_divergence"].item() == pytest.approx(1.843077 - entropy, abs=1e-5)
    alone = records(rows(STUDENT), rows(TEACHER), ((1, 0),))
    made_again = made()
    made_again.centre.copy_(torch.tensor([0.05, 0.1, 0.0]))
    made_again.compute_loss(*alone, Step(sink=logged.__setitem__))
    assert logged["assignment_divergence"].item() == pytest.approx(1.193184, abs=1e-6)
    loss.update_target(targets)
    assert loss.centre.tolist() == pytest.approx([0.055, 0.11, 0.005], abs=1e-7)


def test_the_teacher_s_probabilities_with_and_without_the_centre() -> None:
    for centring, expected in ((True, [0.955077, 0.022461, 0.022461]),
                               (False, [0.918423, 0.075389, 0.006188])):  # fmt: skip
        loss = made(centring=centring)
        loss.centre.copy_(torch.tensor([0.05, 0.1, 0.0]))
        given = loss._given(rows(TEACHER)[0], 0.04)
        assert given[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_centre_follows_a_constant_teacher() -> None:
    """c_n = (1 - 0.9^n) b, used before it is moved; at the end the teacher is uniform."""
    loss = made()
    constant = {0: torch.tensor([[1.0, 0, 0]], dtype=DOUBLE).repeat(4, 1)}
    targets = Targets(constant, {0: torch.arange(4)})
    expected = {1: 0.1, 2: 0.19, 5: 0.40951, 10: 0.651322}
    for number in range(1, 61):
        loss.update_target(targets)
        if number in expected:
            assert loss.centre[0].item() == pytest.approx(expected[number], abs=1e-6)
    given = loss._given(constant[0][:1], 0.04)[0].tolist()
    assert given == pytest.approx([0.343390, 0.328305, 0.328305], abs=1e-6)


@pytest.mark.parametrize("width, expected", [(65536, 11.090355), (4096, 8.317766)])
def test_a_uniform_student_costs_the_logarithm_of_the_outputs(width: int, expected: float) -> None:
    flat = {slot: torch.zeros(2, width, dtype=DOUBLE) for slot in (0, 1)}
    sharp = {slot: torch.randn(2, width, dtype=DOUBLE) for slot in (0, 1)}
    found = made(width).compute_loss(*records(flat, sharp, ((0, 1), (1, 0))), Step())
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_by_slow_loops_with_schedules() -> None:
    make = torch.Generator().manual_seed(0)
    student = {v: torch.randn(4, 5, generator=make, dtype=DOUBLE) for v in range(4)}
    teacher = {v: torch.randn(4, 5, generator=make, dtype=DOUBLE) for v in (0, 1)}
    loss = made(5, teacher_temperature="linear(0.04, 0.07, epochs=30, per='epoch', endpoint=True)")
    loss.centre.copy_(torch.linspace(-1, 1, 5))
    centre = loss.centre.tolist()
    pairs = tuple((q, k) for q in range(4) for k in (0, 1) if q != k)
    step = Step(number=2 * 15 + 1, steps_per_epoch=2, total_steps=200)
    found = loss.compute_loss(*records(student, teacher, pairs), step)
    total = 0.0
    for query, key in pairs:
        for b in range(4):
            t = [
                (x - c) / 0.055517241 for x, c in zip(teacher[key][b].tolist(), centre, strict=True)
            ]
            s = [x / 0.1 for x in student[query][b].tolist()]
            shift = max(t)
            weights = [math.exp(x - shift) for x in t]
            highest = max(s)
            normaliser = highest + math.log(sum(math.exp(x - highest) for x in s))
            for w, x in zip(weights, s, strict=True):
                total -= w / sum(weights) * (x - normaliser) / 4
    assert found.item() == pytest.approx(total / len(pairs), rel=1e-6)


def test_gradient_reaches_the_student_alone() -> None:
    student = {v: torch.randn(2, 3, dtype=DOUBLE, requires_grad=True) for v in (0, 1)}
    teacher = {v: torch.randn(2, 3, dtype=DOUBLE, requires_grad=True) for v in (0, 1)}
    made().compute_loss(*records(student, teacher, ((0, 1), (1, 0))), Step()).backward()
    assert all(rows.grad is not None for rows in student.values())
    assert all(rows.grad is None for rows in teacher.values())


def test_teacher_temperatures_of_the_sheet() -> None:
    schedule = coview.recipe("dino").loss.settings["teacher_temperature"]
    expected = {0: 0.04, 1: 0.041034, 5: 0.045172, 10: 0.050345, 15: 0.055517, 20: 0.060690,
                28: 0.068966, 29: 0.07, 30: 0.07, 99: 0.07}  # fmt: skip
    for epoch, value in expected.items():
        for within in (0, 1250):
            step = Step(number=epoch * 1251 + within, steps_per_epoch=1251, total_steps=125_100)
            assert schedule.at(step) == pytest.approx(value, abs=1e-6)
