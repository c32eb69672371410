"""What the study measures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from coview_moco_v3.studies import peak_gradient


def test_the_peak_is_a_multiple_of_the_median() -> None:
    norms = [2.0, 1.0, 8.0, 2.0, float("inf")]
    rows = [{"loss": 1.0}, *({"grad_norm": norm} for norm in norms)]
    assert peak_gradient(SimpleNamespace(metrics=rows)) == pytest.approx(4.0)
