"""The command ``coview distill``."""

from __future__ import annotations

from pathlib import Path

import click

from coview.commands.options import percent, print_json
from coview.commands.weights import load_like, measuring
from coview.errors import RequestError


@click.command("distill")
@click.argument("teacher", metavar="TEACHER", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Images to train and test on.")
@click.option(
    "--student", metavar="BACKBONE", help="Default: the teacher's own (self-distillation)."
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write the student to.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    help="Default: 0.1 for the teacher's own backbone, 1 for another.",
)
@click.option(
    "--labels", metavar="SHARE", help="Use training labels too: 1%, 10%, ..., or N-per-class."
)
@click.option(
    "--distill-weight",
    type=click.FloatRange(min=0, max=1),
    help="Weight of the teacher's logits against the labels (with --labels).  [default: 0.5]",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate, multiplied by the square root of the batch size.",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), help="Default: 1e-4.")
@click.option("--epochs", type=click.IntRange(min=1), help="Default: 400.")
@click.option("--train-batch-size", type=click.IntRange(min=1), help="Default: 4096.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@measuring
def command(
    teacher: Path,
    data: str,
    student: str | None,
    out: Path | None,
    temperature: float | None,
    labels: str | None,
    distill_weight: float | None,
    lr: float | None,
    weight_decay: float | None,
    epochs: int | None,
    train_batch_size: int | None,
    seed: int,
    batch_size: int,
    workers: int,
    device: str,
    as_json: bool,
) -> None:
    """Train a student on a teacher's logits.

    This is the third stage of SimCLR v2.

    TEACHER is a file written by `coview evaluate finetune RUN --save TEACHER`, or
    another student.
    """
    if distill_weight is not None and labels is None:
        raise RequestError("--distill-weight needs labels to weigh against: add --labels.")
    import torch

    from coview.optim.protocols import changed
    from coview.training.device import pick_device
    from coview.weights.classifier import load_classifier, save_classifier, student_of
    from coview_simclr_v2.distillation import PAPER, distill

    place = pick_device(device)
    known = load_classifier(teacher)
    torch.manual_seed(seed)
    learner = student_of(known, student)
    own = learner.network.card.backbone == known.network.card.backbone
    result = distill(
        known,
        learner,
        load_like(data, known.network.card, workers),
        changed(
            PAPER, lr=lr, weight_decay=weight_decay, epochs=epochs, batch_size=train_batch_size
        ),
        temperature=temperature or (0.1 if own else 1.0),
        distill_weight=1.0 if labels is None else 0.5 if distill_weight is None else distill_weight,
        labels=labels,
        seed=seed,
        device=place,
        workers=workers,
    ).as_dict()
    if out is not None:
        save_classifier(learner, out)
    if as_json:
        print_json({"teacher": str(teacher), "out": None if out is None else str(out), **result})
        return
    click.echo(
        f"Student {result['student']}: top-1 {percent(result['top1'])} (teacher "
        f"{percent(result['teacher_top1'])}), temperature {result['temperature']:g}, "
        f"{result['epochs']} epochs on {result['train_images']} images, "
        f"{result['labelled_images']} of them with labels, {result['test_images']} test images"
    )
