"""What studies measure on a finished run: numbers that follow from it, and leave it as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import coview
from coview.evaluation.features import state_hash
from coview.studies import measures
from coview.weights.classifier import load_classifier


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Any:
    options: dict[str, Any] = {"progress": False, "evaluate": False, "seed": 3}
    return coview.train(
        "simclr-v2",
        "digits",
        out=tmp_path_factory.mktemp("measures") / "run",
        preset="tiny",
        max_steps=60,
        **options,
    )


def test_fine_tuning_with_few_labels(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(measures, "STEPS", 20)
    before = state_hash(run.method)
    inside = measures.finetuned(run, "1%", "head.1", tmp_path / "kept.safetensors")
    # Digits differ even in random features, so a few steps beat chance.
    assert 0.15 < inside <= 1 and inside != measures.finetuned(run, "1%")
    assert state_hash(run.method) == before
    assert load_classifier(tmp_path / "kept.safetensors").last.in_features == 512


def test_every_share_has_as_many_steps() -> None:
    for count in (1, 40, 64, 430, 4300):
        protocol = measures.few_labels(count)
        steps = protocol.epochs * max(1, count // protocol.batch_size)
        assert abs(steps - measures.STEPS) <= 0.5 * max(1, count // protocol.batch_size)


def test_collapse_is_seen(run: Any) -> None:
    assert measures.rank(run) > 3 and measures.spread(run) > 0.1
    rows = measures.projections(run)
    assert rows.shape == (len(run.data.test), 128)
    network = coview.load_backbone(run.path)
    with torch.no_grad():
        images = run.data.test.images[:5].float() / 255
        expected = run.method.components["encoder"].eval().projector(network(images))
        run.method.components["encoder"].train()
    assert torch.allclose(rows[:5], expected, atol=1e-4)


def test_equal_projections_have_collapsed(monkeypatch: Any) -> None:
    monkeypatch.setattr(measures, "projections", lambda run: torch.ones(20, 8))
    nothing: Any = SimpleNamespace()
    assert measures.rank(nothing) == pytest.approx(1) and measures.spread(nothing) < 1e-6


def test_a_student_of_the_fine_tuned_network(run: Any, monkeypatch: Any) -> None:
    from coview_simclr_v2 import distillation
    from coview_simclr_v2 import measures as stages

    monkeypatch.setattr(measures, "STEPS", 20)
    monkeypatch.setattr(stages, "STEPS", 20)
    found = []

    def taught(*given: Any, **more: Any) -> Any:
        found.append(distill(*given, **more))
        return found[-1]

    distill = distillation.distill
    monkeypatch.setattr(distillation, "distill", taught)
    assert stages.distilled(run) == found[0].top1
    assert stages.distilled_labelled(run) == found[1].top1
    everything, labelled = found
    assert (everything.train_images, everything.labels) == (len(run.data.train), None)
    # One per class is 1 % of 140 and more.
    assert labelled.train_images == labelled.labelled_images == 10
    assert labelled.distill_weight == 0.5 and labelled.epochs == 20
    assert labelled.teacher_top1 == everything.teacher_top1 == stages.few(run)
    gain = stages.few(run) - stages.few_below(run)
    assert stages.inside_few(run) == pytest.approx(gain)
