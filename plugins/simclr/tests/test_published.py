"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("simclr")
    has(found, probe="sgd", probe__epochs=90, probe__batch_size=4096, probe__nesterov=True)
    has(found, probe__weight_decay=0.0, probe__init_std=0.0, probe__warmup=0.0, probe__drops=())
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(4096) == pytest.approx(1.6)


@pytest.mark.parametrize(("labels", "epochs"), [("1%", 60), ("10%", 30)])
def test_fine_tuning(labels: str, epochs: int) -> None:
    found = resolved("simclr")
    has(found, finetune="sgd", finetune__nesterov=True, finetune__weight_decay=0.0)
    settings = found.part("finetune").settings.for_labels(labels)
    assert settings.lr * settings.scale(4096) == pytest.approx(0.8)
    assert (settings.epochs, settings.batch_size, settings.warmup) == (epochs, 4096, 0.0)
