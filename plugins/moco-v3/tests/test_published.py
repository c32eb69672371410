"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


@pytest.mark.parametrize(("preset", "rate"), [("none", 3.0), ("resnet", 0.1), ("small", 0.1)])
def test_the_linear_probe_of_a_transformer_and_of_a_resnet(preset: str, rate: float) -> None:
    found = resolved("moco-v3", preset)
    has(found, probe="sgd", probe__epochs=90, probe__batch_size=1024, probe__weight_decay=0.0)
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(1024) == pytest.approx(4 * rate)
    assert not settings.drops
