"""How the method's authors measured its weights."""

from __future__ import annotations

from coview.testing import has, resolved


def test_a_support_vector_machine() -> None:
    has(resolved("instdisc"), probe="svm", probe__cost=1.0)
    has(resolved("instdisc", "small"), probe="svm")


def test_fine_tuning() -> None:
    found = resolved("instdisc")
    has(found, finetune="sgd", finetune__lr=0.01, finetune__epochs=70, finetune__factor=0.1)
    settings = found.part("finetune").settings
    assert [round(70 * share) for share in settings.drops] == [30, 60]
    assert settings.for_labels("1%") == settings
