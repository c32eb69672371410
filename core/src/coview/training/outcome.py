"""Did it work? A run's result in words, from its own numbers.

Every ``run`` is a :class:`coview.training.run.Run`, which tells itself with these.
"""

from __future__ import annotations

import shlex
from typing import Any

from timm.models.resnet import ResNet

from coview.evaluation.verdict import BASELINES, compared, doubt_of_votes
from coview.registry import entries
from coview.terminal import shown
from coview.training.introduction import FOR_OTHERS, LESS_WARMUP, all_warmup, own_to_coview

INSTALL = "pip install ./plugins/report"

LABELS = {**BASELINES, "knn_top1": "trained network"}
"""The accuracies that a run logs, in the order in which they are told."""


SAME = ("k", "temperature", "test_images")
"""What two results must share to be compared."""


def accuracies(run: Any) -> list[tuple[str, float]]:
    """Return what was measured: (of what, kNN top-1 as a share)."""
    found = [(label, run.value(name)) for name, label in LABELS.items()]
    if before := _earlier(run):
        found.insert(-1, before)
    return [(label, value) for label, value in found if value is not None]


def _earlier(run: Any) -> tuple[str, float] | None:
    """Return what a run that was resumed after its end had reached, if measured in the same way."""
    earlier, now = run.earlier, run.value("knn")
    if earlier is None or now is None:
        return None
    if any(earlier["knn"].get(key) != now[key] for key in SAME):
        return None
    return f"the run before it was resumed (step {earlier['step']})", earlier["knn"]["top1"]


def figures(run: Any) -> str:
    """Return what was measured as text: ``raw pixels 68.9 %, untrained network 47.0 %``."""
    return ", ".join(f"{label} {100 * share:.1f} %" for label, share in accuracies(run))


def verdict(run: Any) -> list[str]:
    """Return sentences that say whether training worked, and what makes the figures doubtful."""
    measured, collapsed = run.value("knn"), _collapsed(run)
    if measured is None:
        return [*(collapsed or _spread(run)), *_doubts_of_training(run)]
    trained, images = run.value("knn_top1"), measured["test_images"]
    sentences = [
        compared(trained, other, label, images)
        for label, other in accuracies(run)
        if label != LABELS["knn_top1"]
    ]
    votes = doubt_of_votes(run.data.reference.labels, measured["k"], run.path)
    return [*collapsed, *sentences, *_doubts_of_training(run), *votes]


def _collapsed(run: Any) -> list[str]:
    """Return a sentence if the last step's embeddings no longer told images apart."""
    watcher = run.observers.get("collapse")
    sentence = watcher and watcher.observer.ended(run)
    return [sentence] if sentence else []


def _spread(run: Any) -> list[str]:
    """Return what can be said without an accuracy: whether the embeddings tell images apart."""
    collapsed = next((m["warning"] for m in reversed(run.metrics) if "collapse" in m), None)
    if collapsed is not None:
        return [str(collapsed)]
    watcher = run.observers.get("collapse")
    at_end = watcher.observer.end if watcher else {}
    rank = at_end.get("effective_rank", run.value("collapse/effective_rank"))
    if rank is None:
        return []
    measurable = run.data.labelled or run.data.multi_label
    worth = (
        f"What they are worth was not measured: coview evaluate knn {_quoted(run)} does that."
        if measurable
        else "Without labels their worth cannot be measured, but looked at: coview neighbours."
    )
    spread = f"The embeddings have not collapsed (they spread over {rank:.0f} directions)."
    return [f"{spread} {worth}"]


def _doubts_of_training(run: Any) -> list[str]:
    if not all_warmup(run):
        return []
    return [
        f"All {run.last_step} steps were warm-up: the learning rate was still rising at the end. "
        f"{LESS_WARMUP.capitalize()}."
    ]


def _quoted(run: Any) -> str:
    """Return a run's directory as one word of a command."""
    return shlex.quote(str(run.path))


def next_steps(run: Any) -> list[str]:
    """Return where the weights lie, and the commands that most people want next."""
    weights = run.path / "backbone.safetensors"
    if not weights.exists():
        return []
    lines = [
        *_reported(run),
        f"weights: {weights}",
        f"in Python: coview.load_backbone({str(run.path)!r})",
        *_elsewhere(run),
    ]
    if run.data.labelled:
        first = f"next: coview evaluate linear {_quoted(run)}"
    elif run.data.multi_label:
        first = f"next: coview evaluate knn {_quoted(run)}"
        lines.append(
            "These images have several classes each, which a run does not measure: coview "
            f"evaluate knn {_quoted(run)} does."
        )
    else:
        first = f"next: coview neighbours {_quoted(run)}"
        lines.append(
            "These images have no labels, so no accuracy was measured: a folder needs a sub-folder "
            "for each class, other data a label for each image."
        )
    return [*lines, first, f"next: coview embed {_quoted(run)} --out embeddings.npz"]


def _elsewhere(run: Any) -> list[str]:
    """Return how to load the weights without coview, or why that cannot be."""
    if run.card.given:
        return []
    if own_to_coview(run):
        return [f"timm and torchvision have no {shown(run.card.backbone)}: {FOR_OTHERS}"]
    line = f"for timm or torchvision: coview export {_quoted(run)} --out weights.safetensors"
    if run.card.settings.get("stem") == "3x3" and isinstance(run.method.backbone(), ResNet):
        line += (
            "  (the first layer is the one for small images, so a stock network needs another: "
            "export prints the lines)"
        )
    return [line]


def _reported(run: Any) -> list[str]:
    """Return where the run's reports are; where nothing writes one, what would."""
    if run.reports:
        return [f"report: {path}" for path in run.reports]
    if not run.settings.report or entries("reports"):
        return []
    return [f"for a page with curves, mistakes and a map, in a clone of coview: {INSTALL}"]


def told(run: Any) -> list[str]:
    """Return a run in five lines: what trained on what, how far, accuracies, verdict, place."""
    name = run.settings.preset
    preset = f" (preset {name})" if name not in (None, "none") else ""
    held_out = "" if run.data.test is None else f", {len(run.data.test)} to test on"
    loss = run.value("loss")
    steps = f"{run.step} of {run.plan.total_steps} steps"
    return [
        f"{run.resolved.recipe.name or 'a recipe'}{preset} on {shown(run.data.name)}: "
        f"{len(run.data.train)} images{held_out}",
        steps if loss is None else f"{steps}, loss {loss:.4f}",
        f"kNN top-1: {figures(run) or 'not measured'}",
        " ".join(verdict(run)) or "no verdict: nothing to compare with",
        f"run: {shown(run.path)}",
    ]
