"""What the studies of SimCLR v2 measure: its second and third stage on a finished run."""

from __future__ import annotations

from functools import cache
from typing import Any

from coview.studies.measures import BATCH, STEPS, crops, finetuned

FEW, MORE = "1%", "10%"


def few(run: Any) -> float:
    """Return the accuracy with 1 % of the labels, fine-tuned from the head's first layer."""
    return finetuned(run, FEW, "head.1", run.path / "teacher.safetensors")


def few_below(run: Any) -> float:
    """Return the same, fine-tuned from below the head."""
    return finetuned(run, FEW)


def more(run: Any) -> float:
    """Return the accuracy with 10 % of the labels, fine-tuned from the head's first layer."""
    return finetuned(run, MORE, "head.1")


def inside_few(run: Any) -> float:
    """Return what starting inside the head gains with 1 % of the labels."""
    return few(run) - few_below(run)


def inside_more(run: Any) -> float:
    """Return what starting inside the head gains with 10 % of the labels."""
    return more(run) - finetuned(run, MORE)


def few_over_more(run: Any) -> float:
    """Return accuracy with 1 % less that with 10 %; what helps most with few labels raises it."""
    return few(run) - more(run)


def distilled(run: Any) -> float:
    """Return the accuracy of a student of the fine-tuned network, taught on all images.

    It is taught for as many epochs as the network was pre-trained.
    """
    return _taught(run, everything=True)


def distilled_labelled(run: Any) -> float:
    """Return that of a student taught on the labelled images only, by teacher and labels."""
    return _taught(run, everything=False)


@cache
def _taught(run: Any, everything: bool) -> float:
    import attrs
    import torch

    from coview.data.splits import labelled_subset, part
    from coview.optim.protocols import Protocol
    from coview.weights.classifier import load_classifier, student_of
    from coview_simclr_v2.distillation import distill

    few(run)
    teacher = load_classifier(run.path / "teacher.safetensors")
    seed, data = run.settings.seed, run.data
    if not everything:
        labelled = part(data.reference, labelled_subset(data.reference.labels, FEW, seed))
        data = attrs.evolve(data, train=labelled, reference=labelled)
    batch = 2 * BATCH
    steps = run.step if everything else STEPS
    torch.manual_seed(seed)
    result = distill(
        teacher,
        student_of(teacher, None),
        data,
        Protocol(
            "coview's own, for studies",
            lr=0.1,
            epochs=max(1, steps // max(1, len(data.train) // batch)),
            batch_size=batch,
            nesterov=True,
        ),
        # The paper's for a student of the teacher's kind.
        temperature=0.1,
        distill_weight=1.0 if everything else 0.5,
        labels=None if everything else "100%",
        seed=seed,
        device=run.device,
        augment=crops(teacher.network.card),
    )
    top1: float = result.top1
    return top1
