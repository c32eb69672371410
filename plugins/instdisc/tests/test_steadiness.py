"""The roughness of a loss, which a study measures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from coview_instdisc.steadiness import loss_roughness, roughness


def test_a_straight_line_is_not_rough() -> None:
    assert roughness([5.0, 4.0, 3.0, 2.0]) == pytest.approx(0, abs=1e-12)
    assert roughness([5.0, 1.0]) == 0


def test_a_zigzag_by_hand() -> None:
    """Around 3 without a slope: two up by 1 and two down by 1, so a deviation of 1."""
    assert roughness([4.0, 2.0, 2.0, 4.0]) == pytest.approx(1 / 3)


def test_only_the_second_half_counts() -> None:
    metrics = [{"loss": value} for value in (9.0, 1.0, 9.0, 1.0, 4.0, 2.0, 2.0, 4.0)]
    run = SimpleNamespace(metrics=[{"lr": 0.1}, *metrics])
    assert loss_roughness(run) == pytest.approx(1 / 3)
