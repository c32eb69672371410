"""Metrics of an epoch are means over its steps, whatever was logged when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coview.training.loop import _joined

VALUES = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(st.integers(1, 50), VALUES), min_size=1, max_size=8))
def test_windows_count_by_their_steps(windows: list[tuple[int, float]]) -> None:
    steps = sum(n for n, _ in windows)
    expected = sum(n * loss for n, loss in windows) / steps
    assert _joined([(n, {"loss": loss}) for n, loss in windows]) == {
        "loss": pytest.approx(expected, abs=1e-9)
    }


def test_a_metric_that_is_logged_now_and_then_is_the_mean_of_when_it_was() -> None:
    windows = [(50, {"loss": 2.0, "first": 5.0}), (25, {"loss": 1.0}), (25, {"loss": 1, "late": 3})]
    assert _joined(windows) == {"loss": 1.5, "first": 5.0, "late": 3.0}
    assert _joined([]) == {}
