"""Folders that cannot be written, and the permissions of files that can."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.errors import CoviewError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
Run = Callable[..., Any]
NOBODY = 65534


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, idx: Path) -> Path:
    out = tmp_path_factory.mktemp("trained") / "r"
    given: dict[str, Any] = {"backbone": "resnet10-quarter", "batch_size": 16, "device": "cpu"}
    return coview.train(
        "simclr", f"idx:{idx}", out=out, epochs=1, evaluate=False, progress=False, **given
    ).path


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Copy a folder to where only its owner may write, and be another user."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / folder.name))
        for path in (Path(place), copy, *copy.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield copy
        finally:
            if root:
                os.seteuid(0)
            for path in (Path(place), copy, *copy.rglob("*")):
                path.chmod(0o755)


def test_a_run_that_cannot_be_written_to(run: Run, trained: Path, idx: Path) -> None:
    run("evaluate", "knn", trained, "--data", f"idx:{idx}")  # everything is imported
    data = Path(tempfile.mkdtemp())
    data.chmod(0o755)
    shutil.copytree(idx, data / "idx")
    for path in data.rglob("*"):
        path.chmod(0o755)
    try:
        with read_only(trained) as out:
            answer = run("evaluate", "knn", out, "--data", f"idx:{data / 'idx'}", "--json")
            refused = run("train", "--resume", out, "--max-steps", 1, status=1)
            taken = run("export", out, "--out", out / "w.safetensors", status=1)
            into = ("--data", f"idx:{data / 'idx'}", "--out", out / "x/y")
            new = run("train", "simclr", *into, status=2)
    finally:
        shutil.rmtree(data)
    assert 0 <= answer.json["top1"] <= 1
    (kept,) = [line for line in answer.stderr.splitlines() if "not kept" in line]
    assert kept.startswith(f"The result was not kept with the run: {out} cannot be written")
    assert refused.errors == [f"{out} cannot be written to: Permission denied."]
    assert "w.safetensors could not be written: Permission denied" in taken.errors[0]
    assert new.errors == [f"{out / 'x/y'} cannot be made for the run: Permission denied."]


def test_a_result_that_cannot_be_kept_is_printed(
    run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise CoviewError("evaluations.jsonl could not be written: No space left on device.")

    monkeypatch.setattr("coview.evaluation.results.write_text", full)
    answer = run("evaluate", "knn", trained, "--json")
    assert 0 <= answer.json["top1"] <= 1 and "No space left on device" in answer.stderr


def test_files_have_the_permissions_of_the_umask(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    before = os.umask(0o002)
    try:
        data = ("--data", f"idx:{idx}")
        options = (*data, *tiny, "--epochs", 1, "--observe", "csv", "--out", "a/b/r")
        run("train", "simclr", *options)
        run("evaluate", "knn", "a/b/r")
        run("export", "a/b/r", "--out", "a/e/w.safetensors")
        run("pack", f"idx:{idx}", "--out", "a/p", "--workers", 0)
        for ending in ("npy", "npz", "safetensors"):
            run("embed", "a/b/r", "--out", f"a/e/x.{ending}")
        run("views", "simclr", *data, "--out", "a/e/v.png")
    finally:
        os.umask(before)
    modes = {path.as_posix(): stat.S_IMODE(path.stat().st_mode) for path in Path("a").rglob("*")}
    wanted = {name: 0o775 if Path(name).is_dir() else 0o664 for name in modes}
    assert modes == wanted and len(modes) > 15
    assert json.loads(Path("a/b/r/run.json").read_text())["finished"]
