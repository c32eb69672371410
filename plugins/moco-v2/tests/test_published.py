"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("moco-v2")
    has(
        found,
        probe="sgd",
        probe__epochs=100,
        probe__batch_size=256,
        probe__weight_decay=0.0,
        probe__factor=0.1,
    )
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(256) == pytest.approx(30.0)
    assert [round(share * 100) for share in settings.drops] == [60, 80]
