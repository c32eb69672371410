"""`coview new` writes a package that installs, passes its own tests, and keeps what is promised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from coview.cli import main
from coview.cli.new.kinds import KINDS
from coview.registry import KINDS as GROUPS

Run = Callable[..., Any]
OPTIONS = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package of each kind, written by the command; all installed in one place, offline."""
    place = tmp_path_factory.mktemp("new")
    for kind in KINDS:
        source = place / f"coview-my-{kind}"
        command = ["new", f"my-{kind}", "--kind", kind, "--out", str(source), "--json"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.stderr
        files = json.loads(done.stdout)["files"]
        there = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        assert sorted(files) == sorted(there)
        assert {"README.md", "pyproject.toml", f"tests/test_{kind}.py"} <= set(files)
    target, sources = place / "target", [str(place / f"coview-my-{kind}") for kind in KINDS]
    pip = [sys.executable, "-m", "pip", "install", *OPTIONS, "--target", str(target), *sources]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place, target


SESSION = """
import json, sys
from click.testing import CliRunner
from coview.cli import main

answers = []
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(main, arguments, prog_name="coview")
    answers.append([result.exit_code, result.stdout, result.stderr])
print(json.dumps(answers))
"""
PARTS = ("views", "encoder", "target", "negatives", "loss", "optimizer")


def test_every_kind_is_listed_and_used(
    written: tuple[Path, Path], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """One run made of all of them: data, five roles, wrapper, optimiser, observer, protocol."""
    _, target = written
    images = np.random.RandomState(0).randint(256, size=(60, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(60) % 3)
    uses = [f"--use={part}=my-{part}" for part in PARTS] + ["--use=wrap=my-wrapper"]
    recipe = 'base = "simclr"\n[probe]\nuse = "my-protocol"\n'
    (tmp_path / "mine.toml").write_text(recipe, encoding="utf-8")
    options = ["--data", f"my-data:{tmp_path / 'set.npz'}", *tiny, "--max-steps", "2"]
    observe = ["--observe", "my-observer:every=1", "--no-evaluate", "--out", "r"]
    only = ["--only", "builds", "--only", "goes-on-exactly"]
    commands = {
        "list": ["list", "--json"],
        "train": ["train", "mine.toml", *options, *uses, *observe, "--json"],
        "protocol": ["evaluate", "linear", "r", "--protocol", "paper", "--device", "cpu", "--json"],
        "registered": ["evaluate", "my-protocol", "r", "--device", "cpu", "--json"],
        "command": ["my-command", "r", "--device", "cpu", "--json"],
        "study": ["study", "list", "--json"],
        "check": ["check", "coview-my-wrapper", *only, "--json"],
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SESSION],
        input=json.dumps(list(commands.values())),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = dict(zip(commands, json.loads(done.stdout), strict=True))
    assert not [(name, *answer) for name, answer in answers.items() if answer[0] != 0]
    said = {name: json.loads(answer[1]) for name, answer in answers.items()}

    listed = {(row["kind"], row["name"]) for row in said["list"]}
    names = {(kind.group, kind.entry.replace("$name", f"my-{k}")) for k, kind in KINDS.items()}
    assert names <= listed
    used = tomllib.loads(Path("r/recipe.toml").read_text(encoding="utf-8"))
    assert all(used[part]["use"] == f"my-{part}" for part in (*PARTS, "wrap") if part != "wrap")
    assert used["wrap"]["use"] == "my-wrapper" and used["probe"]["use"] == "my-protocol"
    rows = Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum("recognition" in json.loads(row) for row in rows) == 2
    assert said["protocol"]["protocol"] == "nearest class mean, frozen features"
    assert said["registered"]["top1"] == said["protocol"]["top1"]
    assert 1 <= said["command"]["effective_rank"] <= said["command"]["width"]
    assert "my-study/crops" in {row["name"] for row in said["study"]}
    assert said["check"]["failed"] == said["check"]["skipped"] == 0
    assert {r["subject"] for r in said["check"]["results"]} == {
        "coview-my-wrapper:my-wrapper",
        "wrappers:my-wrapper",
    }


def test_every_kind_of_entry_has_a_template() -> None:
    without = {"methods", "backbones", "schedules", "view_backends", "catalogues", "reports"}
    without |= {"weights"}
    assert {kind.group for kind in KINDS.values()} == set(GROUPS) - without


@pytest.mark.parametrize("kind", KINDS)
def test_it_depends_on_what_it_uses(written: tuple[Path, Path], kind: str) -> None:
    source = written[0] / f"coview-my-{kind}"
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"coview-my-{kind}"
    others = ["coview-simclr", "coview-cpc"] if KINDS[kind].role else []
    others = ["coview-simclr"] if kind == "study" else others
    assert project["dependencies"] == [f"{name}>=0.1,<0.2" for name in ("coview", *others)]
    for path in (p for p in source.rglob("*") if p.is_file()):
        text = path.read_text("utf-8")
        assert "$" not in text, path
        assert max(map(len, text.splitlines()), default=0) <= 100, path
    # What it writes is lean: one component, its tests, and nothing to fill in.
    code = (source / f"src/coview_my_{kind}/{kind}.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 120 and "TODO" not in code and "NotImplemented" not in code


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_its_own_tests(written: tuple[Path, Path], kind: str, python: Run) -> None:
    place, target = written
    source = place / f"coview-my-{kind}"
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
    (problem,) = refused("new", "train", "--kind", "command")
    assert problem == "coview already has a command 'train'. Choose another name."
    assert "datasets:idx" in refused("new", "idx", "--kind", "data")[0]


def test_a_folder_that_cannot_be_written(run: Run) -> None:
    Path("file").touch()
    answer = run("new", "mine", "--out", "file/inside", status=1)
    assert answer.errors == ["file/inside cannot be written: Not a directory."]
