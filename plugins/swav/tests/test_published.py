"""How the method's authors measured its weights."""

from __future__ import annotations

import pytest

from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("swav")
    has(found, probe="sgd", probe__lr=0.3, probe__weight_decay=1e-6, probe__epochs=100)
    has(found, probe__batch_size=256, probe__drops=())


@pytest.mark.parametrize(("labels", "trunk", "head"), [("1%", 0.02, 5.0), ("10%", 0.01, 0.2)])
def test_fine_tuning(labels: str, trunk: float, head: float) -> None:
    found = resolved("swav")
    has(found, finetune="sgd", finetune__weight_decay=0.0, finetune__factor=0.2)
    settings = found.part("finetune").settings.for_labels(labels)
    assert (settings.lr, settings.head_lr) == (trunk, head)
    assert (settings.epochs, settings.batch_size) == (20, 256)
    assert [round(20 * share) for share in settings.drops] == [12, 16]
