"""`coview new` writes a package that installs, passes its own tests, and keeps what is promised."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
OPTIONS = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package written by the command, and where it was installed without a network."""
    place = tmp_path_factory.mktemp("new")
    source, target = place / "coview-my-method", place / "target"
    command = [sys.executable, "-m", "coview", "new", "my-method", "--out", str(source), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    there = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
    assert sorted(files) == sorted(there)
    pip = [sys.executable, "-m", "pip", "install", *OPTIONS, "--target", str(target), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return source, target


def test_it_is_installed_and_checked(written: tuple[Path, Path], python: Run) -> None:
    _, target = written
    some = ("--only", "imports-no-other-plugin", "--only", "builds", "--only", "goes-on-exactly")
    command = ("-m", "coview", "check", "coview-my-method", *some, "--json")
    found = json.loads(python(*command, path=[target]).stdout)
    assert found["failed"] == found["skipped"] == 0 and found["ok"] == 6
    assert {r["subject"] for r in found["results"]} == {
        "coview-my-method:my-method",
        "losses:my-method",
    }


def test_it_depends_on_what_its_recipe_names(written: tuple[Path, Path]) -> None:
    source, _ = written
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "coview-my-method"
    assert project["dependencies"] == [
        "coview>=0.1,<0.2",
        "coview-simclr>=0.1,<0.2",
        "coview-cpc>=0.1,<0.2",
    ]
    assert not [p for p in source.rglob("*") if p.is_file() and "$" in p.read_text("utf-8")]


@pytest.mark.slow
def test_it_passes_its_own_tests(written: tuple[Path, Path], python: Run) -> None:
    source, target = written
    done = python("-m", "pytest", "-c", source / "pyproject.toml", source, path=[target])
    assert "passed" in done.stdout and "skipped" not in done.stdout


def test_nothing_is_overwritten(run: Run, refused: Run) -> None:
    run("new", "mine")
    before = {p: p.read_bytes() for p in Path("coview-mine").rglob("*") if p.is_file()}
    assert refused("new", "mine") == [
        "coview-mine already exists; nothing was written. Choose another --out."
    ]
    assert {p: p.read_bytes() for p in Path("coview-mine").rglob("*") if p.is_file()} == before
    Path("a-file").touch()
    assert "a-file already exists" in refused("new", "mine", "--out", "a-file")[0]
    Path("empty").mkdir()
    assert "next: pip install -e empty" in run("new", "mine", "--out", "empty").stdout


@pytest.mark.parametrize("name", ["My-Method", "my method", "3d", "a--b", "a-", "-a", "ü", "a.b"])
def test_a_name_that_is_none(refused: Run, name: str) -> None:
    (problem,) = refused("new", "--", name)
    assert "cannot be a method's name" in problem
    assert list(Path.cwd().iterdir()) == []


def test_a_name_that_is_taken(refused: Run) -> None:
    (problem,) = refused("new", "simclr")
    assert problem == "coview-simclr already has methods:simclr. Choose another name."
    assert "losses:info-nce" in refused("new", "info-nce")[0]


def test_a_folder_that_cannot_be_written(run: Run) -> None:
    Path("file").touch()
    answer = run("new", "mine", "--out", "file/inside", status=1)
    assert answer.errors == ["file/inside cannot be written: Not a directory."]
