"""What is said while a run goes on: what it is, how long it takes, and nothing silent for long."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import coview
from coview.hookspecs import hookimpl
from coview.training.introduction import introduction
from coview.training.observers import progress


def test_what_is_run_is_said_before_it_runs(run: Callable[..., Any], tiny: tuple[str, ...]) -> None:
    answer = run("train", "moco-v2", "--data", "digits", *tiny, "--max-steps", 2, "--out", "r")
    said = [line for line in answer.stderr.splitlines() if not line.startswith("note")]
    starts = [
        "training moco-v2 on digits: 1438 images, 2 steps on cpu",
        "network: resnet10-quarter",
    ]
    starts += ["batch 16: 89 steps an epoch", "measuring kNN before training"]
    starts += ["kNN top-1 before training: raw pixels 95.8 %, untrained network "]
    places = [next(i for i, line in enumerate(said) if line.startswith(s)) for s in starts]
    assert places == sorted(places)
    assert "measuring kNN after training" in said[places[-1] :]


class Kept:
    """Keeps a run as it is when the first evaluation begins."""

    @hookimpl
    def evaluation_started(self, run: Any, what: str) -> None:
        self.lines = introduction(run)
        self.said = [*getattr(self, "said", []), (what, run.step)]


def lines_of(out: Any, method: str = "simclr", **given: Any) -> tuple[list[str], Kept]:
    kept = Kept()
    options: dict[str, Any] = {"progress": False, "max_steps": 1, "observe": [kept], **given}
    coview.train(method, "digits", out=out, **options)
    return kept.lines, kept


def test_the_figures_are_those_of_the_run(tmp_path: Any) -> None:
    lines, kept = lines_of(tmp_path / "run", preset="tiny")
    trunk = coview.load_backbone(tmp_path / "run").backbone
    parameters = sum(p.numel() for p in trunk.parameters()) / 1000
    assert f"resnet10-quarter, {parameters:.3g} thousand parameters" in lines[1]
    assert lines[1].endswith("2 views of 32 x 32")
    assert lines[2] == (
        "batch 128: 11 steps an epoch, 60 epochs; adamw, learning rate 0.01, cosine schedule"
    )
    assert kept.said == [("kNN before training", 0), ("kNN after training", 1)]


def test_a_network_that_follows_another_has_parameters_too(tmp_path: Any) -> None:
    online, _ = lines_of(tmp_path / "online", "byol", preset="tiny")
    target, _ = lines_of(tmp_path / "target", "byol", preset="tiny", set={"evaluates": "target"})
    assert target[1] == online[1]
    assert "resnet10-quarter, 308 thousand parameters" in target[1]


def test_a_network_that_only_coview_has_is_said_before_training(tmp_path: Any) -> None:
    said = "timm and torchvision have no resnet10-quarter: for weights that load there, train with"
    lines, _ = lines_of(tmp_path / "a", preset="tiny")
    assert [line for line in lines if line.startswith(said)] and "resnet18" in " ".join(lines)
    other = {"preset": "tiny", "backbone": "resnet18", "image_size": 16, "batch_size": 8}
    lines, _ = lines_of(tmp_path / "b", **other)
    assert "timm" not in " ".join(lines)
    lines, _ = lines_of(tmp_path / "c", **{**other, "backbone": OwnNetwork()})
    assert "timm" not in " ".join(lines)


class OwnNetwork(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_rule_of_the_rate_is_told(tmp_path: Any) -> None:
    lines, _ = lines_of(tmp_path / "run", preset="small", backbone="resnet10-quarter")
    (rate, lr) = re.search(r"rate ([\d.]+) \(([\d.]+) by the \w+ rule\)", lines[2]).groups()  # type: ignore[union-attr]
    assert float(rate) != float(lr) > 0


def test_several_sizes_of_views_are_counted(tmp_path: Any) -> None:
    scales = [[0.5, 1.0], [0.2, 0.5]]
    views = {"views.count": [2, 3], "views.size": [32, 20], "views.crop_scale": scales}
    lines, _ = lines_of(tmp_path / "run", "swav", preset="tiny", batch_size=16, set=views)
    assert lines[1].endswith("2 views of 32 x 32 and 3 views of 20 x 20")


def test_long_epochs_are_not_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown, run = progress.ProgressObserver(), SimpleNamespace(step=0, last_step=1000)
    for _ in range(100):
        now[0] += 2.0
        run.step += 1
        shown.step_finished(run)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 2/1000: 2 s a step, about 33 minutes to go"
    # The second one after half a minute, and so on: 200 seconds have seven.
    assert [int(line.split()[1].partition("/")[0]) for line in lines] == [2, 17, 32, 47, 62, 77, 92]


@pytest.mark.parametrize(
    ("compile", "what"), [("on", "networks, views and losses"), ("views", "the views")]
)
def test_a_compilation_says_that_it_is_one_and_how_long(
    compile: str, what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    assert lines_of_steps(compile, now, capsys) == [
        f"compiling {what} in the first step: it may take a minute or two",
        "compiled: 80 s with the first step",
    ]
    assert not [line for line in lines_of_steps("off", now, capsys) if "compil" in line]


def lines_of_steps(compile: str, now: list[float], capsys: pytest.CaptureFixture[str]) -> list[str]:
    shown, settings = progress.ProgressObserver(), SimpleNamespace(compile=compile)
    run = SimpleNamespace(step=7, last_step=10, settings=settings)
    shown.introduced = True
    shown.run_started(run)
    for seconds in (80.0, 0.1, 0.1):
        now[0] += seconds
        run.step += 1
        shown.due = float("inf")
        shown.step_finished(run)
    return capsys.readouterr().err.splitlines()
