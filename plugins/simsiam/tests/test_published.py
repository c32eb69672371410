"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("simsiam")
    has(
        found,
        probe="sgd",
        probe__epochs=90,
        probe__batch_size=4096,
        probe__weight_decay=0.0,
        probe__lars=True,
        probe__drops=(),
    )
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(4096) == pytest.approx(1.6)
