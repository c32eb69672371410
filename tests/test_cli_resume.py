"""Taking a run up again: after --max-steps, after Ctrl-C, and when it may not be."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import coview
from coview import hookimpl
from coview.recipes.configure import Changes
from coview.testing import same
from coview.training.loop import fit
from coview.training.start import Request, start

Run = Callable[..., Any]

CASES = {
    "byol": (
        "--set",
        "encoder.hidden=32",
        "--set",
        "encoder.predictor_hidden=32",
        "--set",
        "target.decay=cosine(0.9, 1.0)",
    ),
    "instdisc": (),
    "instdisc with NCE": ("--use", "loss=nce", "--set", "target.draws=20"),
    "moco": ("--set", "negatives.size=24"),
    "moco with shuffled groups": (
        *("--set", "negatives.size=24", "--set", "encoder.norm_groups=4"),
        *("--accumulate", "2"),
    ),
    "moco-v2": ("--set", "negatives.size=24", "--set", "encoder.hidden=32"),
    "simclr": (),
}
MEMORIES = {
    "instdisc": "components.target.rows",
    "moco": "components.negatives.rows",
    "moco-v2": "components.negatives.rows",
}


def checkpoint(path: str | Path) -> dict[str, Any]:
    return torch.load(Path(path) / "checkpoints" / "last.pt", weights_only=True)


def metrics(path: str | Path) -> list[dict[str, Any]]:
    lines = (Path(path) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    timeless = [json.loads(line) for line in lines]
    for entry in timeless:
        entry.pop("images_per_second", None)
    return timeless


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_equals_one_that_never_stopped(
    run: Run, idx: Path, tiny: tuple[str, ...], case: str
) -> None:
    method = case.split()[0]
    common = ("train", method, "--data", f"idx:{idx}", *tiny, *CASES[case], "--epochs", 3)
    run(*common, "--out", "whole", "--log-every", 1)
    # In the middle of the second of three epochs of three steps.
    run(*common, "--out", "cut", "--log-every", 1, "--max-steps", 4)
    assert checkpoint("cut")["step"] == 4
    assert not same(checkpoint("cut")["method"], checkpoint("whole")["method"])
    answer = run(
        "train", "--resume", "cut", "--max-steps", "none", "--log-every", 1, "--device", "cpu"
    )
    assert answer.stdout.endswith("run: cut\n")
    resumed, whole = checkpoint("cut"), checkpoint("whole")
    assert resumed["step"] == whole["step"] == 9
    for part in ("method", "optimizer", "scaler", "random"):
        assert same(resumed[part], whole[part]), part
    if method in MEMORIES:
        rows = whole["method"][MEMORIES[method]]
        lengths = rows.norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert metrics("cut") == metrics("whole")
    assert [e["step"] for e in metrics("cut") if "loss" in e] == [*range(1, 10)]
    weights = [(Path(p) / "backbone.safetensors").read_bytes() for p in ("cut", "whole")]
    assert weights[0] == weights[1]
    facts = json.loads(Path("cut/run.json").read_text(encoding="utf-8"))
    assert facts["steps"] == 9


def test_metrics_of_whole_epochs_are_those_of_a_run_that_never_stopped(
    run: Run, photos: Path, tiny: tuple[str, ...]
) -> None:
    common = ("train", "moco", "--data", photos, *tiny, "--epochs", 2)
    run(*common, "--out", "whole")
    run(*common, "--out", "cut", "--max-steps", 3)
    run("train", "--resume", "cut", "--max-steps", "none", "--device", "cpu")
    assert metrics("cut") == metrics("whole")


def test_a_run_may_be_cut_more_than_once(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    common = ("train", "moco", "--data", f"idx:{idx}", *tiny, "--epochs", 2, "--no-evaluate")
    run(*common, "--out", "whole")
    run(*common, "--out", "cut", "--max-steps", 1)
    for steps in (2, 5, 6):
        run("train", "--resume", "cut", "--max-steps", steps, "--no-evaluate", "--device", "cpu")
        assert checkpoint("cut")["step"] == steps
    assert same(checkpoint("cut")["method"], checkpoint("whole")["method"])


def test_metrics_beyond_the_checkpoint_are_cut(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--epochs", 2, "--no-evaluate", "--log-every", 1)
    run("train", "simclr", *options, "--out", "r", "--max-steps", 4)
    with Path("r/metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "epoch": 1.6667, "loss": 1.0}\n{"step": 6, "epo')
    run("train", "--resume", "r", "--max-steps", "none", "--log-every", 1, "--device", "cpu")
    assert [entry["step"] for entry in metrics("r")] == [1, 2, 3, 4, 5, 6]
    assert metrics("r")[4]["loss"] != 1.0


def request(idx: Path, out: str, **settings: Any) -> Request:
    changes = Changes(epochs=3, batch_size=16, backbone="resnet10-quarter")
    return Request(
        method="moco",
        data=f"idx:{idx}",
        changes=changes,
        out=Path(out),
        settings={"device": "cpu", "evaluate": False, **settings},
    )


class InterruptAfter:
    """Ctrl-C between two steps."""

    @hookimpl
    def step_finished(self, run: Any) -> None:
        if run.step == 4:
            raise KeyboardInterrupt


class InterruptInside:
    """Ctrl-C in the middle of a step: the optimiser has moved, the target has not."""

    @hookimpl(tryfirst=True)
    def update_target(self, step: Any) -> None:
        if step.number == 4:
            raise KeyboardInterrupt


class SignalInside:
    """The same as the system sends it: the step is done before it counts."""

    @hookimpl(tryfirst=True)
    def update_target(self, step: Any) -> None:
        if step.number == 4:
            signal.raise_signal(signal.SIGINT)


class InterruptAtTheStart:
    """Ctrl-C before the first step."""

    @hookimpl
    def run_started(self, run: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("observer", "kept"),
    [
        (InterruptAfter(), 4),
        # What was saved two steps before is whole; what is at hand is not.
        (InterruptInside(), 3),
        (SignalInside(), 5),
        (InterruptAtTheStart(), 0),
    ],
)
def test_ctrl_c_leaves_a_run_that_goes_on(run: Run, idx: Path, observer: object, kept: int) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fit(start(request(idx, "whole")))
        cut = start(request(idx, "cut", save_every="3"))
        cut.method.observe(observer, "interrupt")
        with pytest.raises(KeyboardInterrupt):
            fit(cut)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert checkpoint("cut")["step"] == kept
    assert json.loads(Path("cut/run.json").read_text(encoding="utf-8"))["finished"] is None
    run("train", "--resume", "cut", "--no-evaluate", "--device", "cpu")
    assert same(checkpoint("cut")["method"], checkpoint("whole")["method"])
    assert same(checkpoint("cut")["optimizer"], checkpoint("whole")["optimizer"])


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_a_real_ctrl_c_ends_with_a_sentence_and_a_checkpoint(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    arguments = ("train", "moco", "--data", f"idx:{idx}", "--out", "r", *tiny, "--no-evaluate")
    # A parent that ignores the signal (a shell's background job) would hand that down.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from coview.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments, "--epochs", "5000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("epoch 1/"):
            assert line, "it ended before the first epoch did"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1 and stdout == ""
    assert "checkpoint saved" in stderr and "coview train --resume r" in stderr
    assert "Traceback" not in stderr
    step = checkpoint("r")["step"]
    run("train", "--resume", "r", "--max-steps", step + 2, "--no-evaluate", "--device", "cpu")
    assert checkpoint("r")["step"] == step + 2


def test_what_cannot_be_resumed_is_refused(
    run: Run, refused: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    assert refused("train", "--resume", "nowhere") == ["There is no run at nowhere to resume."]
    options = ("--data", f"idx:{idx}", *tiny, "--no-evaluate")
    run("train", "simclr", *options, "--out", "r", "--epochs", 2, "--max-steps", 2)
    (problem,) = refused("train", "--resume", "r", "--out", "s", "--preset", "none")
    assert problem == "--resume continues the run as it was: leave out --out, --preset."
    assert "resume" in refused("train", "simclr", "--allow-change", "epochs")[0]
    assert "METHOD" in refused("train", "simclr", "--resume", "r")[0]
    assert "--dry-run" in refused("train", "--resume", "r", "--dry-run")[0]
    file = Path("r/recipe.toml")
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("batch_size = 16", "batch_size = 8"), encoding="utf-8")
    assert refused("train", "--resume", "r", "--device", "cpu") == [
        "batch_size differs from the saved run (16, now 8)."
    ]
    file.write_text(text, encoding="utf-8")
    shutil.rmtree("r/checkpoints")
    assert "There is no checkpoint at" in refused("train", "--resume", "r")[0]


def test_a_damaged_checkpoint_is_said_so(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    run("train", "simclr", "--data", f"idx:{idx}", *tiny, "--out", "r", "--max-steps", 1)
    for name in ("last.pt", "previous.pt"):
        file = Path("r/checkpoints") / name
        file.write_bytes(file.read_bytes()[:1000])
    answer = run("train", "--resume", "r", status=1)
    assert "last.pt is damaged" in answer.errors[0] and "Traceback" not in answer.stderr


def test_changed_data_are_noticed(
    run: Run, refused: Run, photos: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    run("train", "simclr", "--data", copy, *tiny, "--out", "r", "--max-steps", 1)
    next(copy.rglob("*.png")).unlink()
    (problem,) = refused("train", "--resume", "r", "--device", "cpu")
    assert problem.startswith("data differs from the saved run (")


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_setting_that_did_not_exist_then_may_have_its_default(
    run: Run, idx: Path, tiny: tuple[str, ...], share: float
) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--no-evaluate", "--epochs", 2, "--max-steps", 1)
    run("train", "simclr", *options, "--set", f"views.solarize_p={share}", "--out", "r")
    state = checkpoint("r")
    lines = state["identity"]["recipe"].splitlines(keepends=True)
    older = [line for line in lines if not line.startswith("solarize_p")]
    assert len(older) == len(lines) - 1
    state["identity"]["recipe"] = "".join(older)
    torch.save(state, "r/checkpoints/last.pt")
    answer = run("train", "--resume", "r", "--max-steps", 2, status=2 if share else 0)
    refusal = "views.solarize_p differs from the saved run (None, now 0.5)"
    assert (refusal in answer.stderr) == (share > 0)
    assert checkpoint("r")["step"] == (1 if share else 2)


def test_a_changed_setting_ends_with_the_command_that_would_do(
    run: Run, refused: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--no-evaluate", "--epochs", 1)
    run("train", "simclr", *options, "--out", "my run")
    asked = ("train", "--resume", "my run", "--epochs", 2, "--lr", 0.1, "--device", "cpu")
    answer = run(*asked, status=2)
    assert [problem.split()[0] for problem in answer.errors] == ["epochs", "optimizer.lr"]
    *_, start, mend = answer.stderr.splitlines()
    assert start == "  To change them:"
    assert mend == (
        "    coview train --resume 'my run' --epochs 2 --lr 0.1 --device cpu "
        "--allow-change epochs --allow-change optimizer.lr"
    )
    run(*shlex.split(mend)[1:])
    assert checkpoint("my run")["step"] == 6


def test_a_finished_run_says_so_and_how_to_go_on(
    run: Run, idx: Path, tiny: tuple[str, ...], terminal: Callable[..., str]
) -> None:
    common = ("train", "simclr", "--data", f"idx:{idx}", *tiny, "--epochs", 2, "--out", "r")
    first = run(*common, "--max-steps", 2, "--json")
    shown = terminal("train", "--resume", "r")
    cut = "This run is finished: it was to end after step 2 of 6 (--max-steps). To go on to the end"
    assert cut in shown and "measuring" not in shown
    (command,) = re.findall("^  coview (train --resume r .*)$", shown, re.MULTILINE)
    whole = run(*command.split())
    assert checkpoint("r")["step"] == 6
    files = {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()}
    again = run("train", "--resume", "r", "--log-every", 7)
    assert again.stdout == whole.stdout, "its accuracies are told again, and not measured"
    said = "\nThis run is finished: 6 steps, 2 epochs. To train it for longer:\n"
    command = "coview train --resume r --epochs 4 --allow-change epochs"
    assert f"{said}  {command}\n" in again.stderr
    assert {path: path.read_bytes() for path in Path("r").rglob("*") if path.is_file()} == files
    assert run("train", "--resume", "r", "--json").json.keys() == first.json.keys()
    longer = run(*command.split()[1:])
    assert "finished" not in longer.stderr and checkpoint("r")["step"] == 12


def test_a_run_killed_while_it_was_measured_is_not_finished(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    run("train", "simclr", "--data", f"idx:{idx}", *tiny, "--epochs", 1, "--out", "r")
    facts = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    Path("r/run.json").write_text(json.dumps({**facts, "finished": None}), encoding="utf-8")
    Path("r/backbone.safetensors").unlink()
    answer = run("train", "--resume", "r")
    assert "finished" not in answer.stderr and "kNN top-1" in answer.stdout
    assert Path("r/backbone.safetensors").exists()


def test_no_evaluate_is_kept(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--no-evaluate", "--epochs", 2, "--max-steps", 2)
    run("train", "simclr", *options, "--out", "r")
    answer = run("train", "--resume", "r", "--max-steps", "none")
    assert "measuring" not in answer.stderr and "kNN" not in answer.stdout
    assert not [entry for entry in metrics("r") if "knn" in entry]
    assert "kNN top-1" not in run("train", "--resume", "r").stdout
    # Asked for, it is measured after all.
    again = coview.train(resume="r", evaluate=True, progress=False)
    assert again.step == 6 and again.value("knn_top1") is not None


def test_a_finished_run_takes_no_change_that_no_step_would_see(
    refused: Run, run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--no-evaluate")
    run("train", "simclr", *options, "--out", "r", "--epochs", 1)
    before = Path("r/recipe.toml").read_text(encoding="utf-8")
    change = ("train", "--resume", "r", "--device", "cpu", "--lr", 0.003)
    allowed = (*change, "--allow-change", "lr")
    (problem,) = refused(*allowed)
    assert problem == (
        "This run is finished: no step is left to which optimizer.lr could apply. Give it more "
        "epochs too."
    )
    assert Path("r/recipe.toml").read_text(encoding="utf-8") == before
    mend = run(*allowed, status=2).stderr.splitlines()[-1]
    assert mend.endswith(" --lr 0.003 --allow-change lr --epochs 2 --allow-change epochs")
    # Before it is allowed, too: the command that is named is one that works.
    assert refused(*change) == [problem]
    mend = run(*change, status=2).stderr.splitlines()[-1]
    words = "--epochs 2 --allow-change optimizer.lr --allow-change epochs"
    assert mend.endswith(f" --lr 0.003 {words}")
    said = run(*shlex.split(mend)[1:], "--log-every", 1).stderr
    logged = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    (now,) = re.findall(r"learning rate \S+ .*?, (\S+) in the next step", said)
    rates = {line["step"]: line["lr"] for line in logged if "lr" in line}
    assert float(now) == pytest.approx(rates[4], rel=0.01)
    assert "lr = 0.003" in Path("r/recipe.toml").read_text(encoding="utf-8")
    with pytest.raises(coview.RequestError) as caught:
        coview.train(resume="r", lr=0.01, allow_change=["lr"])
    assert "epochs=4, allow_change=['lr', 'epochs']" in caught.value.__notes__[0]
    # Nor does one that is still to be measured.
    with pytest.raises(coview.RequestError, match="no step is left"):
        coview.train(resume="r", lr=0.01, allow_change=["lr"], evaluate=True, progress=False)
    assert "lr = 0.003" in Path("r/recipe.toml").read_text(encoding="utf-8")
