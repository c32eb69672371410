"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


@pytest.mark.parametrize("method", ["simclr-v2", "simclr-v2-memory"])
def test_the_linear_probe_is_simclrs(method: str) -> None:
    found = resolved(method)
    has(found, probe="sgd", probe__epochs=90, probe__batch_size=4096, probe__nesterov=True)
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(4096) == pytest.approx(1.6)


@pytest.mark.parametrize(("labels", "epochs"), [("1%", 60), ("10%", 30), ("100%", 30)])
def test_the_second_stage(labels: str, epochs: int) -> None:
    found = resolved("simclr-v2")
    has(found, finetune="sgd", finetune__lars=True, finetune__weight_decay=0.0)
    settings = found.part("finetune").settings.for_labels(labels)
    assert settings.lr * settings.scale(1024) == pytest.approx(0.16)
    assert (settings.epochs, settings.batch_size, settings.warmup) == (epochs, 1024, 0.0)
