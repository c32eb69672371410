"""What a run says of itself at its end: a verdict in words, and what to type next."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import coview
from coview.evaluation.chance import margin
from coview.evaluation.verdict import compared
from coview.training.outcome import accuracies, next_steps, told, verdict

share = st.floats(0.0, 1.0)


def run_with(
    trained: float, untrained: float = 0.5, raw: float = 0.5, images: int = 400, **more: Any
) -> Any:
    values = {"raw_pixels_knn_top1": raw, "untrained_knn_top1": untrained, "knn_top1": trained}
    values["knn"] = {"k": more.get("k", 20), "test_images": images}
    rates = more.get("rates", [1.0, 0.5, 0.1])
    labels = torch.arange(10).repeat_interleave(more.get("each", 40))
    return SimpleNamespace(
        value=values.get,
        path=more.get("path", Path("r")),
        last_step=len(rates),
        peak=1.0,
        earlier=None,
        observers={},
        schedule=SimpleNamespace(rate=lambda peak, step: peak * rates[step]),
        data=SimpleNamespace(reference=SimpleNamespace(labels=labels)),
    )


@given(share, share, st.integers(1, 10_000))
def test_the_margin_is_the_normal_interval_of_a_difference(a: float, b: float, n: int) -> None:
    spread = ((a * (1 - a) + b * (1 - b)) / n) ** 0.5
    assert margin(a, b, n) == pytest.approx(norm.ppf(0.975) * spread, rel=1e-4)
    assert margin(a, b, n) == margin(b, a, n)


def test_worked_by_hand() -> None:
    # 1.96 * sqrt((.25 + .24) / 400) = 6.86 points.
    assert verdict(run_with(0.6))[0] == (
        "Better than raw pixels by 10.0 points (chance: up to 6.9)."
    )
    assert verdict(run_with(0.4))[1] == (
        "Worse than the untrained network by 10.0 points (chance: up to 6.9)."
    )
    assert verdict(run_with(0.55))[0] == (
        "About as good as raw pixels: a difference of 5.0 points on 400 images may be chance "
        "(up to 6.9)."
    )


@given(share, share, st.integers(1, 10_000))
def test_more_images_never_hide_a_difference(a: float, b: float, images: int) -> None:
    def plain(n: int) -> bool:
        return "may be chance" not in verdict(run_with(a, raw=b, images=n))[0]

    assert plain(10 * images) or not plain(images)


@pytest.mark.parametrize(
    ("rates", "warmed"), [([0.1, 0.5, 1.0], True), ([0.5, 1.0, 0.9], False), ([1.0] * 3, False)]
)
def test_a_run_that_was_all_warm_up_says_so(rates: list[float], warmed: bool) -> None:
    assert any("warm-up" in line for line in verdict(run_with(0.9, rates=rates))) == warmed


@pytest.mark.parametrize(("each", "doubted"), [(19, True), (20, False)])
def test_more_neighbours_than_images_in_a_class(each: int, doubted: bool) -> None:
    said = [
        line
        for line in verdict(run_with(0.9, each=each))
        if "always come from other classes" in line
    ]
    assert bool(said) == doubted
    assert not said or said[0].endswith("coview evaluate knn r -k 19")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> Any:
    out = tmp_path_factory.mktemp("outcome") / "a run"
    return coview.train("simclr", "digits", preset="tiny", max_steps=2, out=out, progress=False)


def test_a_run_is_five_lines(trained: Any) -> None:
    lines = repr(trained).splitlines()
    assert len(lines) == 5 and lines == told(trained)
    assert lines[0] == "simclr (preset tiny) on digits: 1438 images, 359 to test on"
    assert lines[1].startswith("2 of 660 steps, loss ")
    assert lines[2].startswith("kNN top-1: raw pixels 95.8 %, untrained network ")
    assert lines[4] == f"run: {trained.path}"


def test_a_resumed_run_is_compared_with_what_it_was(trained: Any, tmp_path: Path) -> None:
    """Also where the resumed run is killed before its end, and resumed once more."""
    out = Path(shutil.copytree(trained.path, tmp_path / "run"))
    before = trained.value("knn_top1")

    class Killer:
        @coview.hookimpl
        def step_finished(self, run: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        coview.train(resume=out, max_steps=4, progress=False, observe=[Killer()])
    run = coview.train(resume=out, progress=False)
    assert run.step == 4
    label = "the run before it was resumed (step 2)"
    assert (label, before) in accuracies(run)
    now = run.value("knn_top1")
    said = compared(now, before, label, 359)
    assert said in verdict(run) and label in said
    # Once more: compared with what it was at its last end.
    last = coview.train(resume=out, max_steps=5, progress=False)
    assert ("the run before it was resumed (step 4)", now) in accuracies(last)
    # A finished one says what it said at its end.
    assert verdict(coview.train(resume=out, progress=False)) == verdict(last)


def test_what_was_measured_otherwise_is_not_compared(trained: Any) -> None:
    knn = trained.value("knn")
    for change in ({"k": knn["k"] + 1}, {"test_images": 7}, {"temperature": 0.1}):
        trained.earlier = {"step": 1, "knn": {**knn, **change}}
        assert len(accuracies(trained)) == 3
    trained.earlier = {"step": 1, "knn": knn}
    assert len(accuracies(trained)) == 4
    trained.earlier = None


def test_a_notebook_gets_a_table(trained: Any) -> None:
    html = trained._repr_html_()
    assert html.count("<tr>") == 4 and "<td>raw pixels</td><td>95.8 %</td>" in html


def test_what_it_says_to_type_next_works(trained: Any, tmp_path: Path) -> None:
    lines = next_steps(trained)
    assert Path(lines[0].removeprefix("weights: ")).is_file()
    assert lines[1] == f"in Python: coview.load_backbone({str(trained.path)!r})"
    assert lines[2] == (
        "timm and torchvision have no resnet10-quarter: for weights that load there, train with "
        "--backbone resnet18"
    )
    commands = [line.removeprefix("next: coview ") for line in lines if line.startswith("next")]
    assert len(commands) == 2
    embed = shlex.split(commands[1])
    subprocess.run([sys.executable, "-m", "coview", *embed], check=True, cwd=tmp_path)
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
def test_a_network_that_others_have_is_exported_for_them(stem: str, tmp_path: Path) -> None:
    run = coview.train(
        "simclr",
        "digits",
        out=tmp_path / "r",
        preset="tiny",
        backbone="resnet18",
        set={"backbone.stem": stem},
        max_steps=1,
        batch_size=8,
        evaluate=False,
    )
    line = next_steps(run)[2]
    assert line.startswith(f"for timm or torchvision: coview export {tmp_path / 'r'} --out ")
    assert ("the first layer is the one for small images" in line) == (stem == "3x3")


def test_k_is_cut_to_the_smallest_class_and_said(photos: Path, run: Callable[..., Any]) -> None:
    """60 pictures in 3 classes: 16 of each are trained on."""
    options = ("--preset", "tiny", "--max-steps", 1, "--device", "cpu", "--out", "p")
    answer = run("train", "simclr", "--data", photos, *options)
    assert "kNN top-1 (k = 16, " in answer.stdout
    said = "16 neighbours vote, as many as the smallest class has training images."
    assert said in answer.stdout and "coview evaluate knn p -k" not in answer.stdout
    again = run("evaluate", "knn", "p")
    assert "k = 16" in again.stdout and said in again.stdout + again.stderr
    assert run("evaluate", "knn", "p", "-k", 30, "--json").json["k"] == 30
    assert coview.evaluate("p", "knn")["k"] == 16


def test_the_vote_of_the_authors_keeps_its_k(photos: Path) -> None:
    options = {"preset": "tiny", "max_steps": 1, "device": "cpu", "evaluate": False}
    coview.train("dino", photos, out="d", progress=False, **options)
    found = coview.evaluate("d", "knn")
    assert (found["k"], found["published"]["k"]) == (16, 20)


def test_the_terminal_says_it(run: Callable[..., Any], tiny: tuple[str, ...]) -> None:
    answer = run("train", "simclr", "--data", "digits", *tiny, "--max-steps", 2, "--out", "r")
    assert "than raw pixels by" in answer.stdout and "than the untrained" in answer.stdout
    assert answer.stdout.endswith("run: r\n")
    assert "next: coview evaluate linear r" in answer.stderr


@pytest.mark.parametrize(
    ("labelled", "several", "worth"),
    [
        (True, False, "was not measured: coview evaluate knn 'a run' does that."),
        (False, True, "was not measured: coview evaluate knn 'a run' does that."),
        (False, False, "cannot be measured, but looked at: coview neighbours."),
    ],
)
def test_what_was_not_measured_is_not_said_to_be_beyond_measure(
    labelled: bool, several: bool, worth: str
) -> None:
    run = run_with(0.5, path=Path("a run"))
    run.value = {"collapse/effective_rank": 7.3}.get
    run.metrics = []
    run.data.labelled, run.data.multi_label = labelled, several
    (said,) = verdict(run)
    assert "have not collapsed (they spread over 7 directions). " in said
    assert said.endswith(worth)


def test_the_last_step_of_a_short_run_shows_whether_it_collapsed(tmp_path: Path) -> None:
    images = torch.randint(0, 255, (64, 3, 32, 32), dtype=torch.uint8)
    given = {"backbone": "resnet10-quarter", "batch_size": 16, "epochs": 1, "progress": False}
    run = coview.train("simclr", images, out=tmp_path / "run", device="cpu", **given)
    assert "have not collapsed (they spread over " in verdict(run)[0]
    assert not any("collapse/std" in entry for entry in run.metrics), "it is not logged"
    off = coview.train("simclr", images, out=tmp_path / "off", on_collapse="ignore", **given)
    assert not any("collapsed" in line for line in verdict(off))


def test_a_run_that_ends_collapsed_says_so_however_short(tmp_path: Path) -> None:
    black = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    given = {"preset": "tiny", "batch_size": 16, "epochs": 1, "progress": False}
    run = coview.train("simclr", black, out=tmp_path / "bare", device="cpu", **given)
    said = verdict(run)[0]
    assert said.startswith("The run ends collapsed: embeddings of different images are nearly the")
    assert said.endswith(" With 4 steps that may only be how training begins.")
    assert not any("have not collapsed" in line for line in verdict(run))
    labels = torch.arange(64) % 2
    run = coview.train("simclr", (black, labels), out=tmp_path / "labelled", **given)
    assert run.value("knn") is not None and verdict(run)[0].startswith("The run ends collapsed: ")
    assert "all the same" in " ".join(run.resolved.notices)


def test_without_labels_it_says_why_there_is_no_accuracy(tmp_path: Path) -> None:
    images = torch.randint(0, 255, (64, 3, 32, 32), dtype=torch.uint8)
    out = tmp_path / "run"
    watch = ["collapse:every=1"]
    run = coview.train(
        "simclr", images, preset="tiny", max_steps=2, batch_size=8, out=out, observe=watch
    )
    lines = next_steps(run)
    assert any("no labels" in line for line in lines)
    assert f"next: coview neighbours {out}" in lines
    assert "have not collapsed (they spread over " in told(run)[3]
    assert told(run)[2] == "kNN top-1: not measured"
