"""Images that cannot be read, seen from the command line: named, counted, left out, survived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coview.data.base import DataSettings
from coview.data.sources.folder import Folder
from coview.testing import same

Run = Callable[..., Any]
SIDE = 64
IN_TRAIN, IN_TEST = "class0/126.png", "class0/018.png"
LAZILY = ("--set", "data.resident_mib=1")
"""130 images of 64 pixels are 1.5 MiB: too many for memory."""


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 noisy images of two classes; one of the training and one of the test images is bad."""
    folder, random = tmp_path_factory.mktemp("spoilt"), np.random.RandomState(0)
    for number in range(130):
        place = folder / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        noise = random.randint(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(place / f"{number:03}.png", compress_level=1)
    data = Folder(str(folder)).load(DataSettings())
    assert (data.train.names[50], data.test.names[3]) == (IN_TRAIN, IN_TEST)
    (folder / IN_TRAIN).write_bytes(b"no image at all")
    (folder / IN_TEST).write_bytes((folder / IN_TEST).read_bytes()[:2000])
    return folder


@pytest.fixture
def common(spoilt: Path, tiny: tuple[str, ...]) -> tuple[Any, ...]:
    return ("train", "instdisc", "--data", spoilt, *tiny, "--batch-size", 30, "--no-evaluate")


def facts(path: str) -> dict[str, Any]:
    return json.loads((Path(path) / "run.json").read_text(encoding="utf-8"))["data"]["bad_images"]


def metrics(path: str) -> list[dict[str, Any]]:
    lines = (Path(path) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "images_per_second"} for x in lines]


def state(path: str) -> dict[str, Any]:
    return torch.load(Path(path) / "checkpoints" / "last.pt", weights_only=True)


@pytest.mark.parametrize("options", [(), LAZILY, (*LAZILY, "--workers", 1)])
def test_a_run_goes_on_and_names_them(
    run: Run, common: tuple[Any, ...], options: tuple[Any, ...]
) -> None:
    answer = run(*common, *options, "--epochs", 2, "--out", "r")
    found = facts("r")
    # Those of a set in memory are known at once; others when they are looked at.
    expected = {"train": IN_TRAIN} if options else {"train": IN_TRAIN, "test": IN_TEST}
    assert found.keys() == expected.keys()
    for kind, name in expected.items():
        assert found[kind]["count"] == 1 and name in found[kind]["first"][0]
        assert f"{name} cannot be decoded" in answer.stderr
    logged = [entry for entry in metrics("r") if "bad_image" in entry]
    assert [entry["row"] for entry in logged] == [50]


@pytest.mark.parametrize("options", [(), LAZILY])
def test_or_stops_at_the_first(run: Run, common: tuple[Any, ...], options: tuple[Any, ...]) -> None:
    answer = run(*common, *options, "--on-bad-image", "stop", "--out", "r", status=1)
    (error,) = answer.errors
    assert "cannot be decoded" in error and "--on-bad-image skip" in error
    assert "Traceback" not in answer.stderr


def test_what_is_asked_for_is_in_the_recipe(run: Run, common: tuple[Any, ...]) -> None:
    asked = run(*common, "--dry-run", "--json").json["data"]["on_bad_image"]
    assert asked["value"] == "skip"


def test_a_dry_run_reads_the_images_too(run: Run, common: tuple[Any, ...]) -> None:
    answer = run(*common, "--on-bad-image", "stop", "--dry-run", status=1)
    assert "cannot be decoded" in answer.errors[0]


@pytest.mark.parametrize("options", [(), LAZILY])
def test_too_many_end_the_run(
    run: Run, common: tuple[Any, ...], spoilt: Path, tmp_path: Path, options: tuple[Any, ...]
) -> None:
    folder = tmp_path / "worse"
    for place in spoilt.iterdir():
        (folder / place.name).mkdir(parents=True)
        for number, path in enumerate(sorted(place.iterdir())):
            content = b"" if number % 20 == 3 else path.read_bytes()
            (folder / place.name / path.name).write_bytes(content)
    answer = run(*common, *options, "--data", folder, "--out", "r", status=1)
    assert (
        len(answer.errors) == 1
        and "images cannot be read, more than the 1% allowed" in answer.stderr
    )
    assert answer.stderr.count("cannot be decoded") <= 11 and "Traceback" not in answer.stderr


def test_a_run_that_stops_for_it_is_saved_and_goes_on(run: Run, common: tuple[Any, ...]) -> None:
    run(*common, *LAZILY, "--epochs", 2, "--out", "whole", "--log-every", 1)
    known = {entry["step"] for entry in metrics("whole") if "bad_image" in entry}
    first = min(known)
    stop = ("--set", "data.on_bad_image=stop", "--log-every", 1, "--epochs", 2)
    run(*common, *LAZILY, *stop, "--out", "stopped", status=1)
    assert state("stopped")["step"] == first - 1
    # On the way it is allowed what it was refused before: nothing is lost.
    allow = ("--on-bad-image", "skip", "--allow-change", "data.on_bad_image", "--log-every", 1)
    run("train", "--resume", "stopped", "--no-evaluate", "--device", "cpu", *allow)
    for part in ("method", "optimizer", "step"):
        assert same(state("whole")[part], state("stopped")[part]), part


def sharded(folder: Path) -> str:
    """Put the files of a folder into two shards here."""
    webdataset = pytest.importorskip("webdataset")
    files = sorted(folder.glob("*/*.png"))
    for number, some in enumerate((files[:70], files[70:])):
        with webdataset.TarWriter(f"some-{number}.tar") as shard:
            for path in some:
                shard.write({"__key__": path.stem, "png": path.read_bytes()})
    return "wds:some-{0..1}.tar"


@pytest.mark.parametrize("kind", ["on demand", "by a worker", "packed", "shards"])
def test_a_position_in_the_data_is_kept(
    run: Run, common: tuple[Any, ...], spoilt: Path, kind: str
) -> None:
    options: tuple[Any, ...] = LAZILY
    if kind == "by a worker":
        options = (*LAZILY, "--workers", 1)
    if kind == "packed":
        run("pack", spoilt, "--out", "packed", "--size", SIDE, "--workers", 0)
        options = (*LAZILY, "--data", "packed")
    if kind == "shards":
        # Without labels nothing would be held out, and both bad images be in one split.
        options = (*LAZILY, "--data", sharded(spoilt), "--set", "data.holdout=0.2")
    options = (*options, "--epochs", 2, "--log-every", 1)
    run(*common, *options, "--out", "whole")
    # In the middle of the first epoch of three steps, and of the second.
    run(*common, *options, "--out", "parts", "--max-steps", 2)
    run("train", "--resume", "parts", "--no-evaluate", "--log-every", 1, "--max-steps", 4)
    run("train", "--resume", "parts", "--max-steps", "none")
    for part in ("method", "optimizer", "step"):
        assert same(state("whole")[part], state("parts")[part]), part
    assert metrics("whole") == metrics("parts") and facts("whole") == facts("parts")


def test_packed_data_train_as_the_data_do(run: Run, common: tuple[Any, ...], spoilt: Path) -> None:
    run("pack", spoilt, "--out", "packed", "--size", SIDE, "--workers", 0)
    run(*common, *LAZILY, "--epochs", 1, "--out", "a")
    run(*common, *LAZILY, "--epochs", 1, "--out", "b", "--data", "pack:packed")
    assert same(state("a")["method"], state("b")["method"])


def test_embeddings_keep_their_rows(run: Run, common: tuple[Any, ...], spoilt: Path) -> None:
    run(*common, "--epochs", 1, "--max-steps", 1, "--out", "r")
    answer = run("embed", "r", "--out", "e.npz", "--json")
    with np.load("e.npz") as table:
        names, rows = table["names"].tolist(), table["embeddings"]
        labels = table["labels"].tolist()
    assert names == sorted(names) and len(names) == len(rows) == 130
    gone = [names.index(name) for name in (IN_TRAIN, IN_TEST)]
    gone.sort()
    assert np.isnan(rows).any(axis=1).nonzero()[0].tolist() == gone
    assert answer.json["missing_rows"] == gone
    assert [f"class{label}" for label in labels] == [name[:6] for name in names]
    assert f"{IN_TRAIN} cannot be decoded" in answer.stderr


def test_accuracies_are_of_the_images_there_are(run: Run, common: tuple[Any, ...]) -> None:
    run(*common, "--epochs", 1, "--max-steps", 1, "--out", "r")
    result = run("evaluate", "knn", "r", "-k", 5, "--json").json
    assert result["train_images"] + result["test_images"] == 128
    assert sum(kind["count"] for kind in result["bad_images"].values()) == 2
    answer = run("evaluate", "knn", "r", "-k", 5, "--on-bad-image", "stop", status=1)
    assert "cannot be decoded" in answer.stderr


def test_no_noise_on_stdout_and_no_traceback(common: tuple[Any, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "coview", *map(str, common), "--max-steps", "1", "--json"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "r")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and json.loads(done.stdout)["steps"] == 1
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


@pytest.mark.slow
def test_several_processes_know_of_each_others(common: tuple[Any, ...], tmp_path: Path) -> None:
    for count in (1, 2):
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += ["-m", "coview", *map(str, (*common, *LAZILY)), "--epochs", "2"]
        done = subprocess.run(
            [sys.executable, *command, "--out", str(tmp_path / str(count))],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(f"{IN_TRAIN} cannot be decoded") == 1
    assert facts(str(tmp_path / "1")) == facts(str(tmp_path / "2"))
