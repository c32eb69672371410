"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved

IMAGES = 1_281_167


def test_the_linear_probe_in_updates() -> None:
    """0.1, 0.01 and 0.001 for 50,000, 25,000 and 10,000 updates of 2048 images."""
    found = resolved("cpc")
    has(found, probe="sgd", probe__batch_size=2048, probe__factor=0.1, probe__weight_decay=0.0)
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(2048) == pytest.approx(0.1)
    updates = settings.epochs * (IMAGES // 2048)
    assert updates == pytest.approx(85_000, rel=0.001)
    assert [share * updates for share in settings.drops] == pytest.approx(
        [50_000, 75_000], rel=0.001
    )


@pytest.mark.parametrize("method", ["cpc-v2", "cpc-audio"])
def test_others_published_no_settings(method: str) -> None:
    has(resolved(method), probe="none", finetune="none")
