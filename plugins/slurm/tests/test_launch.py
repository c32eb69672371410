"""Jobs: the script, and real ones of submitit's local executor that are preempted."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import coview as library
from coview.cli import main
from coview.errors import RequestError
from coview_slurm.job import Train
from coview_slurm.launch import Asked, executor, minutes, script, submit, words_of_train

QUIET = ("simclr", "--data", "digits", "--backbone", "resnet10-quarter", "--batch-size", "16")
SHORT = (*QUIET, "--epochs", "6", "--no-compile", "--no-evaluate", "--set", "data.holdout=0.9")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # busy machines wait long for many
    torch.set_num_threads(1)


def launch(*words: str) -> Result:
    return CliRunner().invoke(main, ["launch", "slurm", *words])


def directives(text: str) -> dict[str, str]:
    pairs = (line.removeprefix("#SBATCH --") for line in text.splitlines() if "#SBATCH" in line)
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_script_asks_for_what_was_asked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = launch(
        *("--nodes", "2", "--gpus", "8", "--time", "2d", "--cpus", "6", "--warning", "120"),
        *("--sbatch", "partition=long", "--out", str(out), "--dry-run", "--", "train", *SHORT),
    )
    assert done.exit_code == 0, done.output
    found = directives(done.stdout)
    expected = {
        **{"nodes": "2", "gpus-per-node": "8", "ntasks-per-node": "8", "cpus-per-task": "6"},
        **{"time": "2880", "partition": "long", "signal": "USR2@120", "open-mode": "append"},
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "requeue" in found and "array" not in found
    assert "submitit.core._submit" in done.stdout
    assert "# runs: coview train simclr --data digits" in done.stderr and str(out) in done.stderr
    assert not out.exists() and not out.with_name("run-jobs").exists()


def test_seeds_are_an_array(tmp_path: Path) -> None:
    asked = Asked(words=SHORT, seeds=(3, 5), out=tmp_path / "runs", parallel=1)
    assert directives(script(asked))["array"] == "0-1%1"
    trainings = asked.trainings()
    assert [training.out.name for training in trainings] == ["seed-3", "seed-5"]
    assert trainings[1].command()[-4:-2] == ["--seed", "5"]


def test_what_is_submitted_has_the_options_of_the_script_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # submitit takes a machine for a cluster that has this command, which it only looks for.
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    asked = Asked(words=SHORT, out=tmp_path / "run", more={"partition": "long"})
    made = executor(asked)._executor
    submitted = made._make_submission_file_text(made._submitit_command_str, "dry-run")
    assert directives(submitted) == directives(script(asked))


@pytest.mark.parametrize(
    "words",
    [("evaluate", "knn", "run"), ("train",), ("train", "simclr", "--out", "x"),
     ("train", "--resume", "x"), ()],
)  # fmt: skip
def test_what_cannot_be_launched(words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError):
        words_of_train(words)
    assert launch("--dry-run", "--", *words).exit_code == 2


def test_times_and_seeds() -> None:
    assert (minutes("90m"), minutes("24h"), minutes("2d")) == (90, 1440, 2880)
    for wrong in ("24", "h", "0h", "1w"):
        with pytest.raises(RequestError):
            minutes(wrong)
    for seeds in ("1,1", "a", "1,,2", "-1"):
        assert launch("--seeds", seeds, "--dry-run", "--", "train", *SHORT).exit_code == 2


def test_where_there_is_no_cluster_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = launch("--out", str(tmp_path / "run"), "--", "train", *SHORT)
    assert done.exit_code == 1 and "Nothing can be submitted here" in done.stderr


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_comes_to_the_same_end(tmp_path: Path) -> None:
    asked = Asked(words=SHORT, out=tmp_path / "run", cluster="local", gpus=0, minutes=20)
    (job,) = submit(asked)
    metrics = tmp_path / "run" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 2):
        assert time.monotonic() < end and not job.done()
        time.sleep(0.05)
    for task in children(job._process.pid):  # submitit's own _interrupt reaches its parent alone
        os.kill(task, signal.SIGUSR2)
    assert job.result() == str(tmp_path / "run")
    assert "Calling checkpoint method" in job.stdout() and "Requeued job" in job.stdout()

    library.train(
        "simclr", data="digits", backbone="resnet10-quarter", batch_size=16, epochs=6,
        compile=False, evaluate=False, report=False, set={"data.holdout": 0.9},
        out=tmp_path / "whole",
    )  # fmt: skip
    weights = [tmp_path / name / "backbone.safetensors" for name in ("run", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_that_fails_fails_its_job(tmp_path: Path) -> None:
    words = ("--cluster", "local", "--gpus", "0", "--wait", "--out", str(tmp_path / "run"))
    done = launch(*words, "--", "train", "simclr", "--data", "nowhere")
    assert done.exit_code == 1 and "ended with status 2" in done.stderr


def test_a_job_begins_anew_or_goes_on(tmp_path: Path) -> None:
    training = Train(("simclr",), tmp_path)
    assert training.command()[3:] == ["train", "simclr", "--out", str(tmp_path)]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    assert training.command()[3:] == ["train", "--resume", str(tmp_path)]
