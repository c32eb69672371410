"""SimCLR v2's third stage: the loss, who moves, and all three stages from the shell."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from coview.cli import main
from coview.data.base import ImageData, Split
from coview.errors import CoviewError, RequestError
from coview.evaluation.features import state_hash
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.optim.protocols import Protocol
from coview.weights.classifier import (
    Classifier,
    load_classifier,
    save_classifier,
    student_of,
)
from coview.weights.exported import ExportedBackbone
from coview_simclr_v2.distillation import PAPER, distill, distillation_loss


@pytest.mark.parametrize(
    ("student", "temperature", "expected"),
    [
        ((0.0, 0.0), 1.0, 0.693147),
        ((0.0, 0.0), 0.1, 0.693147),
        ((1.0, 0.0), 1.0, 0.432465),
        ((2.0, 0.0), 1.0, 0.365334),
        ((1.0, 0.0), 0.1, 4.54195e-5),
        ((1.0, 0.0), 2.0, 0.608548),
    ],
)
def test_worked_numbers(student: tuple[float, float], temperature: float, expected: float) -> None:
    rows = torch.tensor([student], dtype=torch.float64)
    loss = distillation_loss(rows, torch.tensor([[2.0, 0.0]], dtype=torch.float64), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_worked_gradient() -> None:
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[2.0, 0.0]], requires_grad=True)
    distillation_loss(student, teacher, 1.0).backward()
    assert student.grad.tolist()[0] == pytest.approx([-0.149738, 0.149738], abs=1e-6)
    assert teacher.grad is None


def test_loss_against_loops() -> None:
    random = np.random.RandomState(0)
    student, teacher = random.randn(6, 4) * 3, random.randn(6, 4) * 3
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        mass = sum(math.exp(value / 0.7) for value in other)
        own_mass = sum(math.exp(value / 0.7) for value in own)
        for mine, theirs in zip(own, other, strict=True):
            total -= math.exp(theirs / 0.7) / mass * math.log(math.exp(mine / 0.7) / own_mass)
    got = distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher), 0.7)
    assert got.item() == pytest.approx(total / 6, rel=1e-12)


def teacher(classes: int = 3) -> Classifier:
    torch.manual_seed(0)
    settings = {"stem": "3x3", "zero_init_last": False, "drop_path": 0.0, "patch": None}
    backbone = find_backbone("resnet10-quarter")[0](1, 16, BackboneSettings(**settings))
    meta = {"mean": [0.5], "std": [0.25], "size": 16, "image_size": 16, "channels": 1}
    meta |= {"method": "simclr", "backbone": "resnet10-quarter", "settings": settings}
    head = nn.Sequential(nn.Sequential(nn.Linear(128, 8), nn.BatchNorm1d(8), nn.ReLU()))
    return Classifier(ExportedBackbone(backbone, meta), head, nn.Linear(8, classes)).eval()


def data() -> ImageData:
    images = torch.zeros(48, 1, 16, 16, dtype=torch.uint8)
    for row in range(48):
        images[row, :, row % 3 * 5 : row % 3 * 5 + 5] = 200 + row % 7
    labels = torch.arange(48) % 3
    train, test = Split(images, labels), Split(images[:9], labels[:9])
    return ImageData("bars", train, test, train, tuple("abc"), 1, 16, (0.5,), (0.25,), "x")


SHORT = Protocol("test", 1.0, 15, batch_size=24)


def right(images: torch.Tensor) -> torch.Tensor:
    """Know where the bar is; no gradient is needed to see it."""
    rows = images.mean(dim=(1, 3))
    return 20 * torch.stack([rows[:, at : at + 5].mean(1) for at in (0, 5, 10)], dim=1)


def test_a_student_learns_without_labels_and_the_teacher_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = teacher()
    monkeypatch.setattr(known, "forward", right)
    learner = student_of(known, None)
    before, start = state_hash(known), state_hash(learner)
    result = distill(known, learner, data(), SHORT, temperature=1.0)
    assert result.teacher_top1 == 1.0 and result.top1 > 0.6
    assert state_hash(known) == before and state_hash(learner) != start
    assert (result.labels, result.labelled_images, result.train_images) == (None, 0, 48)
    assert isinstance(learner.head, nn.Identity)


def test_labels_alone_teach_what_a_teacher_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = teacher()
    monkeypatch.setattr(known, "forward", lambda images: torch.zeros(len(images), 3))
    scores = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        result = distill(
            known,
            student_of(known, None),
            data(),
            SHORT,
            temperature=1.0,
            labels="50%",
            distill_weight=weight,
        )
        scores[weight] = result.top1
        assert result.labelled_images == 24
    assert scores[0.0] > 0.6 > scores[1.0]


def test_a_teacher_that_moves_is_refused() -> None:
    known = teacher()

    def move(module: Any, *_: Any) -> None:
        module.last.bias.data.add_(1)

    known.register_forward_hook(move)
    with pytest.raises(CoviewError, match="changed while"):
        distill(known, student_of(known, None), data(), SHORT, temperature=1.0)


def test_a_classifier_is_read_as_it_was_written(tmp_path: Path) -> None:
    known = teacher()
    save_classifier(known, tmp_path / "t")
    again = load_classifier(tmp_path / "t")
    images = torch.rand(4, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(images), known(images))
    smaller = student_of(again, "test_resnet")
    assert smaller.last.out_features == 3 and smaller.network.width != 128
    (tmp_path / "no").write_bytes((tmp_path / "t").read_bytes()[:50])
    with pytest.raises(CoviewError, match="not a complete safetensors file"):
        load_classifier(tmp_path / "no")
    with pytest.raises(RequestError, match="There is no classifier"):
        load_classifier(tmp_path / "none")
    known.head = nn.Sequential(nn.Tanh())
    with pytest.raises(RequestError, match="A head with a Tanh cannot be saved"):
        save_classifier(known, tmp_path / "t2")


def test_the_papers_schedule() -> None:
    assert PAPER.scale(4096) * PAPER.lr == pytest.approx(6.4)
    assert (PAPER.schedule, PAPER.epochs) == ("warm-up 5 %, cosine", 400)


def coview(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="coview")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if "--json" in arguments else result


def test_three_stages_from_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("--backbone", "resnet10-quarter", "--batch-size", 64, "--device", "cpu")
    options = (*small, "--max-steps", 2, "--no-evaluate", "--out", "run")
    coview("train", "simclr-v2", "--data", "digits", *options)
    tuned = coview(
        *("evaluate", "finetune", "run", "--labels", "1%", "--from", "head.1"),
        *("--epochs", 2, "--save", "teacher.safetensors", "--json"),
    )
    assert (tuned["start"], tuned["labels"]) == ("head.1", "1%")
    short = ("--data", "digits", "--epochs", 1, "--train-batch-size", 256, "--lr", 0.01)
    own = coview("distill", "teacher.safetensors", *short, "--out", "own.safetensors", "--json")
    assert own["temperature"] == 0.1 and own["teacher_top1"] == pytest.approx(tuned["top1"])
    assert own["source"].endswith("but lr 0.01, epochs 1, batch size 256")
    other = coview(
        *("distill", "own.safetensors", *short, "--student", "test_resnet"),
        *("--labels", "1%", "--json"),
    )
    assert (other["student"], other["temperature"]) == ("test_resnet", 1.0)
    assert (other["distill_weight"], other["labelled_images"]) == (0.5, tuned["train_images"])
    assert other["teacher_top1"] == pytest.approx(own["top1"])
    refused = coview("distill", "own.safetensors", *short, "--distill-weight", 1, status=2)
    assert "add --labels" in refused.stderr
