"""A disk that fills while a run trains: the run ends with a sentence, and goes on later."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.errors import CoviewError
from coview.testing import same
from coview.training import checkpoints

pytestmark = pytest.mark.skipif(os.name == "nt", reason="limits are POSIX's")

OPTIONS: dict[str, Any] = {
    "data": "digits",
    "backbone": "resnet10-quarter",
    "image_size": 16,
    "batch_size": 16,
    "set": {"backbone.stem": "7x7"},
    "device": "cpu",
    "evaluate": False,
    "progress": False,
    "save_every": "1",
    "max_steps": 5,
}
GO_ON = {key: OPTIONS[key] for key in ("device", "evaluate", "progress", "max_steps")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    return coview.train("moco", out=tmp_path_factory.mktemp("whole") / "r", **OPTIONS).path


def last(run: Path) -> dict[str, Any]:
    return checkpoints.read(run / "checkpoints" / "last.pt")


class Fills:
    """Lets the disk be full from a step on."""

    def __init__(self, step: int, size: int) -> None:
        self.step, self.size = step, size
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @coview.hookimpl
    def step_finished(self, run: Any) -> None:
        if run.step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))


@pytest.mark.parametrize(
    ("step", "size", "file", "kept"),
    [(4, 100_000, "last.pt", 3), (4, 10, "last.pt", 3), (5, 100_000, "last.pt", 4)],
)
def test_a_disk_that_fills_ends_a_run_that_goes_on(
    tmp_path: Path, whole: Path, step: int, size: int, file: str, kept: int
) -> None:
    out = tmp_path / "r"
    fills = Fills(step, size)
    try:
        with pytest.raises(CoviewError, match=rf"{file} could not be written: File too large"):
            coview.train("moco", out=out, observe=[fills], **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, fills.before)
    assert last(out)["step"] == kept
    coview.train(resume=out, **GO_ON)
    assert same(last(out)["method"], last(whole)["method"])


def test_an_export_that_does_not_fit_leaves_the_checkpoint(tmp_path: Path, whole: Path) -> None:
    class FillsAtTheEnd(Fills):
        @coview.hookimpl
        def checkpoint_saved(self, run: Any) -> None:
            if run.step == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self.before[1]))

    out, fills = tmp_path / "r", FillsAtTheEnd(-1, 0)
    try:
        with pytest.raises(CoviewError, match=r"backbone.safetensors could not be written"):
            coview.train("moco", out=out, observe=[fills], **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, fills.before)
    assert same(last(out)["method"], last(whole)["method"])
    coview.train(resume=out, **GO_ON)
    assert (out / "backbone.safetensors").exists()


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_used(
    tmp_path: Path, whole: Path
) -> None:
    run = coview.train("moco", out=tmp_path / "r", **{**OPTIONS, "max_steps": 4})
    file = run.path / "checkpoints" / "last.pt"
    cut = file.read_bytes()[:-1000]
    file.write_bytes(cut)
    half = file.with_name(".last.pt.12345.tmp")
    half.write_bytes(b"what a writer left that was killed")
    resumed = coview.train(resume=run.path, **GO_ON)
    (notice,) = [text for text in resumed.resolved.notices if "damaged" in text]
    assert "last.pt is damaged" in notice and "continues from previous.pt" in notice
    assert (file.parent / "last.pt.damaged").read_bytes() == cut
    assert not half.exists()
    assert same(last(run.path)["method"], last(whole)["method"])
