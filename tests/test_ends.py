"""Work at the end of an epoch or a run is done again after a kill or a signal, or was done."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.testing import same
from coview.training import measure
from coview.training.loop import fit
from coview.training.start import start

OPTIONS: dict[str, Any] = {
    **{"backbone": "resnet10-quarter", "batch_size": 24, "device": "cpu", "progress": False},
    **{"epochs": 3, "save_every": "1", "log_every": 1, "evaluate_every": 1},
}
LOGGED = "online_knn_top1"


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing catches it, nothing is saved."""


class Tells:
    """Says which epochs ended, and by which means."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, list[str]]] = []

    @coview.hookimpl
    def epoch_finished(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        self.ended.append((epoch, sorted(metrics)))


def train(out: Path, idx: Path, observe: tuple[Any, ...] = ()) -> Path:
    return coview.train("simclr", f"idx:{idx}", out=out, observe=observe, **OPTIONS).path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, idx: Path) -> Path:
    """A run that nothing stopped: three epochs of two steps."""
    return train(tmp_path_factory.mktemp("whole") / "r", idx)


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in li.items() if k != "images_per_second"} for li in lines]


def end(run: Path) -> dict[str, Any]:
    """Return all that a finished run leaves, without times."""
    files = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())
    state = coview.training.checkpoints.read(run / "checkpoints" / "last.pt")
    del state["identity"]
    facts = json.loads((run / "run.json").read_text())
    return {
        **{"files": files, "metrics": metrics(run), "state": state},
        **{"finished": facts["finished"] is not None, "steps": facts.get("steps")},
        "backbone": (run / "backbone.safetensors").read_bytes(),
    }


def checked(run: Path, whole: Path) -> None:
    found, wanted = end(run), end(whole)
    assert same(found.pop("state"), wanted.pop("state"))
    assert found == wanted


Ends = Callable[[], None]


def killed() -> None:
    raise Killed


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("ends", [killed, interrupted])
@pytest.mark.parametrize("place", [("_exported", 1), ("evaluate_knn", 3), ("evaluate_knn", 6)])
def test_measuring_is_done_again(
    tmp_path: Path,
    whole: Path,
    idx: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: Ends,
    place: tuple[str, int],
) -> None:
    """Before training, at the end of the first epoch, and at the end of the run."""
    name, number = place
    real, calls = getattr(measure, name), iter(range(1, 100))

    def once(*given: Any, **named: Any) -> Any:
        if next(calls) == number:
            ends()
        return real(*given, **named)

    with monkeypatch.context() as patch, pytest.raises((Killed, KeyboardInterrupt)):
        patch.setattr(measure, name, once)
        train(tmp_path / "r", idx)
    coview.train(resume=tmp_path / "r", progress=False)
    checked(tmp_path / "r", whole)


class AtTheEpochsEnd:
    """Ends the run between an epoch's last step and the work that follows."""

    def __init__(self, ends: Ends, hook: str, step: int) -> None:
        self.ends, self.hook, self.step = ends, hook, step

    @coview.hookimpl(trylast=True)
    def step_finished(self, run: Any) -> None:
        if self.hook == "step_finished" and run.step == self.step:
            self.ends()

    @coview.hookimpl(tryfirst=True)
    def epoch_finished(self, run: Any) -> None:
        if self.hook == "epoch_finished" and run.step == self.step:
            self.ends()

    @coview.hookimpl
    def checkpoint_saved(self, run: Any, path: Path) -> None:
        if self.hook == path.name and run.step == self.step:
            self.ends()


@pytest.mark.parametrize(
    ("ends", "hook"),
    [
        (interrupted, "step_finished"),
        (killed, "step_finished"),
        (interrupted, "epoch_finished"),
        (killed, "epoch_finished"),
        (interrupted, "last.pt"),
        (killed, "last.pt"),
        (interrupted, "epoch-0002.pt"),
    ],
)
def test_an_epochs_end_is_reached_again(
    tmp_path: Path, whole: Path, idx: Path, ends: Ends, hook: str
) -> None:
    observer = AtTheEpochsEnd(ends, hook, 4)
    with pytest.raises((Killed, KeyboardInterrupt)):
        train(tmp_path / "r", idx, (observer,))
    tells = Tells()
    coview.train(resume=tmp_path / "r", observe=[tells], progress=False)
    # Once the epoch's own checkpoint is written, its end is done.
    assert [epoch for epoch, _ in tells.ended] == ([2] if hook == "epoch-0002.pt" else [1, 2])
    assert all({"loss", "lr"} <= set(means) for _, means in tells.ended)
    checked(tmp_path / "r", whole)


def test_a_run_killed_before_its_first_step_can_be_resumed(
    tmp_path: Path, whole: Path, idx: Path
) -> None:
    from coview.recipes.configure import Changes
    from coview.training.request import Request

    class First:
        @coview.hookimpl
        def run_started(self) -> None:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "r", idx, (First(),))
    run = start(Request(resume=tmp_path / "r", changes=Changes()))
    assert run.step == 0
    fit(run)
    checked(tmp_path / "r", whole)


def test_a_finished_run_makes_what_it_lacks(tmp_path: Path, whole: Path) -> None:
    import shutil

    for lost in ("backbone.safetensors", "metrics.jsonl"):
        run = Path(shutil.copytree(whole, tmp_path / lost))
        if lost == "metrics.jsonl":
            lines = (run / lost).read_text().splitlines(keepends=True)
            (run / lost).write_text("".join(line for line in lines if '"knn"' not in line))
        else:
            (run / lost).unlink()
        coview.train(resume=run, progress=False)
        checked(run, whole)


class Fails:
    @coview.hookimpl
    def epoch_finished(self, run: Any) -> None:
        raise ValueError("out of paper")


def test_a_run_that_failed_says_so_until_it_goes_on(idx: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="out of paper"):
        train(tmp_path / "r", idx, (Fails(),))
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    assert facts["failed"] == "out of paper" and facts["finished"] is None
    coview.train(resume=tmp_path / "r", progress=False)
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    assert "failed" not in facts and facts["finished"]
