"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest
import torch

from coview.testing import has, resolved


@pytest.mark.parametrize(("preset", "rate"), [("none", 3.0), ("resnet", 0.1), ("small", 0.1)])
def test_the_linear_probe_of_a_transformer_and_of_a_resnet(preset: str, rate: float) -> None:
    found = resolved("moco-v3", preset)
    has(found, probe="sgd", probe__epochs=90, probe__batch_size=1024, probe__weight_decay=0.0)
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(1024) == pytest.approx(4 * rate)
    assert not settings.drops


def test_every_residual_branch_of_the_resnet_starts_at_zero() -> None:
    """As in the released code, whose argument for it is on by default."""
    part = resolved("moco-v3", "resnet").part("backbone")
    with torch.device("cpu"):
        net = part.factory(3, 224, part.settings)
    lasts = [m.bn3.weight for m in net.modules() if hasattr(m, "bn3")]
    assert len(lasts) == 16
    assert all(weight.eq(0).all() for weight in lasts)
