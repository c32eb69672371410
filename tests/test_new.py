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

import attrs
import numpy as np
import pytest
from click.testing import CliRunner

import coview
from coview import Use
from coview.cli import main
from coview.cli.new.based import mirrors
from coview.cli.new.kinds import KINDS
from coview.cli.new.scaffold import plugin_files
from coview.recipes.recipe import Recipe, by_path, method_names, to_document
from coview.registry import KINDS as GROUPS
from coview.registry import find

Run = Callable[..., Any]
WRITTEN = {f"my-{kind}": (kind, ()) for kind in KINDS}
WRITTEN["my-based"] = ("method", ("--base", "moco-v2"))
"""Names, each with its kind and further options."""
OPTIONS = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A package of each kind, written by the command; all installed in one place, offline."""
    place = tmp_path_factory.mktemp("new")
    for name, (kind, options) in WRITTEN.items():
        source = place / f"coview-{name}"
        command = ["new", name, "--kind", kind, *options, "--out", str(source), "--json"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.stderr
        files = json.loads(done.stdout)["files"]
        there = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        assert sorted(files) == sorted(there)
        assert {"README.md", "pyproject.toml", f"tests/test_{kind}.py"} <= set(files)
    target, sources = place / "target", [str(place / f"coview-{name}") for name in WRITTEN]
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
        "method": ["check", "coview-my-method", *only, "--json"],
        "based": ["check", "my-based", *only, "--only", "imports-no-torch", "--json"],
        "show": ["show", "my-based", "--toml"],
        "base": ["show", "moco-v2", "--toml"],
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
    shown = {name: tomllib.loads(answers.pop(name)[1]) for name in ("show", "base")}
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
    # A method of its own parts, which are checked with it, and one based on another's.
    assert said["method"]["failed"] == said["method"]["skipped"] == 0
    of_parts = {f"{KINDS[part].group}:my-method" for part in KINDS["method"].parts}
    assert {r["subject"] for r in said["method"]["results"]} == {
        "coview-my-method:my-method",
        *of_parts,
    }
    assert said["based"]["ok"] == 3
    mine, base = shown["show"], shown["base"]
    assert mine["views"] == {**base["views"], "flip_p": 0.0} and base["views"]["flip_p"] == 0.5
    differing = {key for key in mine if mine[key] != base[key]}
    assert differing == {"name", "summary", "views"}


def test_every_kind_of_entry_has_a_template() -> None:
    without = {"backbones", "schedules", "view_backends", "catalogues", "reports"}
    without |= {"weights", "peers"}
    assert {kind.group for kind in KINDS.values()} == set(GROUPS) - without


@pytest.mark.parametrize("name", WRITTEN)
def test_it_depends_on_what_it_uses(written: tuple[Path, Path], name: str) -> None:
    source, (kind, options) = written[0] / f"coview-{name}", WRITTEN[name]
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"coview-{name}"
    others = ["coview-simclr", "coview-cpc"] if KINDS[kind].role else []
    others = ["coview-simclr"] if kind == "study" else others
    others = ["coview-moco-v2"] if options else others
    assert project["dependencies"] == [f"{name}>=0.1,<0.2" for name in ("coview", *others)]
    tested = ["coview-cpc>=0.1,<0.2"] if kind == "method" and not options else []
    assert project["optional-dependencies"] == {"test": ["pytest>=8", *tested]}
    for path in (p for p in source.rglob("*") if p.is_file()):
        text = path.read_text("utf-8")
        assert "$" not in text, path
        assert max(map(len, text.splitlines()), default=0) <= 100, path
    # What it writes is lean: one component, its tests, and nothing to fill in.
    for path in (source / "src").rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert len(code.splitlines()) <= 120 and "TODO" not in code and "NotImplemented" not in code
    readme = (source / "README.md").read_text(encoding="utf-8")
    assert ("moco-v2 (coview-moco-v2) with one change" in readme) == bool(options)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_it_passes_its_own_tests(written: tuple[Path, Path], name: str, python: Run) -> None:
    place, target = written
    source = place / f"coview-{name}"
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


@pytest.mark.parametrize("base", method_names())
def test_every_method_may_be_a_base(base: str) -> None:
    files = plugin_files("mine", "method", base)
    scope: dict[str, Any] = {"__name__": "mine"}
    exec(compile(files["src/coview_mine/__init__.py"], "__init__.py", "exec"), scope)
    recipe, theirs = scope["recipe"], coview.recipe(base)
    differing = [f.name for f in attrs.fields(type(recipe)) if differs(recipe, theirs, f.name)]
    assert differing == ["summary", "epochs" if base == "cpc-audio" else "views"]
    entry = find("methods", base)
    assert f'"{entry.package}>=0.1,<0.2"' in files["pyproject.toml"]
    # The test that is written names the setting and its value.
    path, value = "views.flip_p", 0.0
    if base == "cpc-audio":
        path, value = "epochs", 2 * theirs.epochs
    assert f'CHANGED = {{"{path}": {value}}}' in files["tests/test_method.py"]
    found = dict(by_path(to_document(recipe)))
    assert found[path] == value


def differs(one: Recipe, other: Recipe, field: str) -> bool:
    return bool(getattr(one, field) != getattr(other, field))


@pytest.mark.parametrize(
    "changes",
    [
        {"presets": {"small": {"views": {"flip_p": 0.1}}}},
        {"presets": {"small": {"views": Use("simclr")}}},
        {"presets": {"small": {"views": "instdisc"}}},
        {"views": Use("simclr", flip_p=0.0)},
        {"views": (Use("simclr"), Use("instdisc"))},
        {"views": Use("frames")},
    ],
)
def test_where_mirroring_is_not_the_recipes_alone_it_is_not_changed(changes: Any) -> None:
    recipe = coview.recipe("simclr")
    assert mirrors(recipe)
    assert not mirrors(attrs.evolve(recipe, **changes))


def test_a_written_test_finds_a_second_change(written: tuple[Path, Path], python: Run) -> None:
    place, target = written
    test = place / "coview-my-based" / "tests" / "test_method.py"
    config = place / "coview-my-based" / "pyproject.toml"
    recipe = target / "coview_my_based" / "__init__.py"
    right = recipe.read_text(encoding="utf-8")
    try:
        recipe.write_text(right.replace("base,\n", "base,\n    accumulate=2,\n", 1), "utf-8")
        done = python("-m", "pytest", "-q", "-c", config, test, path=[target], status=1)
    finally:
        recipe.write_text(right, "utf-8")
    assert "3 failed" in done.stdout and "'accumulate': 2" in done.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--base", "moco"), "--base needs --kind method, not loss."),
        (("--kind", "method", "--base", "moco-v4"), "There is no method called 'moco-v4'. Did you"),
        (("--kind", "method", "--base", "my.toml"), "--base takes an installed method, not the"),
    ],
)
def test_a_base_that_cannot_be_one(refused: Run, options: tuple[str, ...], sentence: str) -> None:
    (problem,) = refused("new", "mine", *options)
    assert problem.startswith(sentence) and list(Path.cwd().iterdir()) == []


def test_a_method_takes_the_names_of_its_parts(refused: Run, run: Run) -> None:
    (problem,) = refused("new", "queue", "--kind", "method")
    assert problem == "coview-moco already has negatives:queue. Choose another name."
    # Based on another it has none.
    assert "coview check queue" in run("new", "queue", "--kind", "method", "--base", "moco").stdout
