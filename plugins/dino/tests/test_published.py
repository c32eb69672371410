"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("dino")
    has(
        found,
        probe="sgd",
        probe__epochs=100,
        probe__batch_size=1024,
        probe__weight_decay=0.0,
        probe__init_std=0.01,
        probe__drops=(),
    )
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(1024) == pytest.approx(0.004)
