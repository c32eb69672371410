"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("byol")
    has(
        found,
        probe="sgd",
        probe__epochs=80,
        probe__batch_size=1024,
        probe__weight_decay=0.0,
        probe__nesterov=True,
        probe__drops=(),
    )
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(1024) == pytest.approx(0.8)
