"""The pages for authors: their files and code do what the pages say."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from small_packages import install, write

import coview
from coview.cli import main
from coview.cli.new.scaffold import plugin_files
from coview.recipes.recipe import Recipe
from coview.testing import ConformanceError, an_encoded, promises, some_targets
from coview.testing.kit import PAGE, PROMISES, PROMISES_OF_DATA

Run = Callable[..., Any]
HERE = Path(__file__).resolve().parent.parent / "docs" / "authors"
FILE = re.compile(r"^`([\w./-]+)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OTHERS = ("# lightly", "# solo-learn", "# stable-pretraining")


def page(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of the tutorial: what `coview new` writes, with the page's files laid over."""
    folder = tmp_path / "coview-my-vicreg"
    shown = dict(FILE.findall(page("tutorial.md")))
    assert set(shown) == {
        "tests/test_loss.py",
        "src/coview_my_vicreg/loss.py",
        "src/coview_my_vicreg/__init__.py",
    }
    write(folder, {**plugin_files("my-vicreg", "loss"), **shown})
    install(folder, "my-vicreg", monkeypatch)
    return folder


def module_of(folder: Path) -> ModuleType:
    module = ModuleType("the_tutorials_tests")
    code = (folder / "tests" / "test_loss.py").read_text(encoding="utf-8")
    exec(compile(code, "test_loss.py", "exec"), vars(module))
    return module


def test_the_tutorials_loss_passes_the_tutorials_tests(tutorial: Path) -> None:
    tests = module_of(tutorial)
    names = {name for name in vars(tests) if name.startswith("test_")}
    assert names == {
        "test_the_formula",
        "test_the_gradient",
        "test_a_step_logs_the_three_terms",
        "test_two_processes_equal_one",  # minutes of processes: below
    }
    for scale in (0.1, 1.0):
        tests.test_the_formula(scale)
    tests.test_the_gradient()
    tests.test_a_step_logs_the_three_terms()


def test_the_tutorials_test_finds_a_wrong_formula(tutorial: Path) -> None:
    path = tutorial / "src" / "coview_my_vicreg" / "loss.py"
    right = path.read_text(encoding="utf-8")
    assert right.count("relu(1 - ") == 1
    path.write_text(right.replace("relu(1 - ", "relu(2 - "), encoding="utf-8")
    with pytest.raises(AssertionError):
        module_of(tutorial).test_the_formula(1.0)


def test_the_tutorials_method_keeps_its_promises(tutorial: Path, run: Run) -> None:
    only = ("resolves", "builds", "gives-a-loss-with-gradient", "accumulates")
    found = run("check", "my-vicreg", *(f"--only={name}" for name in only), "--json").json
    assert found["ok"] == len(only) and found["failed"] == found["skipped"] == 0
    (accumulates,) = (r for r in found["results"] if r["promise"] == "accumulates")
    assert f"`coview check` says `accumulates: {accumulates['sentence']}`" in page("tutorial.md")


@pytest.mark.slow
def test_the_tutorials_method_keeps_all_promises(tutorial: Path, run: Run) -> None:
    found = run("check", "my-vicreg", "--json").json
    assert found["failed"] == found["skipped"] == 0


def test_without_gather_two_processes_do_not_equal_one(tutorial: Path) -> None:
    path = tutorial / "src" / "coview_my_vicreg" / "loss.py"
    right = path.read_text(encoding="utf-8")
    wrong = right.replace(
        "one, other = gather(queries), gather(keys)", "one, other = queries, keys"
    )
    assert wrong != right
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(ConformanceError, match="differs from a single process's"):
        module_of(tutorial).test_two_processes_equal_one()


def commands(text: str) -> list[list[str]]:
    """Return the `coview` lines of a page's shell blocks, as words."""
    lines = [
        line for kind, code in BLOCK.findall(text) if kind == "sh" for line in code.splitlines()
    ]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("coview ")]


@pytest.mark.parametrize("name", [path.name for path in sorted(HERE.glob("*.md"))])
def test_commands_and_options_exist(name: str) -> None:
    made = {"my-command"}  # brought by what the page writes
    for words in commands(page(name)):
        if words[0] in made or words[:2] == ["evaluate", "my-protocol"]:
            continue
        command = main.get_command(None, words[0])  # type: ignore[arg-type]
        assert command is not None, words
        if words[0] in ("evaluate", "study"):
            command = command.get_command(None, words[1])  # type: ignore[attr-defined]
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= known, words


def test_every_promise_has_its_place_on_the_page() -> None:
    headings = re.findall(r"^## (.*)$", page("promises.md"), re.MULTILINE)
    every = (*PROMISES, *PROMISES_OF_DATA)
    assert headings == [promise.name for promise in every]
    for promise in every:
        assert promise.page == f"{PAGE}#{promise.name}"
    assert PAGE == "docs/authors/promises.md"


# --- moving from other libraries ------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved() -> dict[str, Any]:
    """All that the page's code for coview defines; other libraries' code is at least Python."""
    scope: dict[str, Any] = {"__name__": "moved"}
    blocks = [code for kind, code in BLOCK.findall(page("moving.md")) if kind == "python"]
    theirs = [code for code in blocks if code.startswith(OTHERS)]
    assert [code.splitlines()[0] for code in theirs] == list(OTHERS)
    for code in blocks:
        ast.parse(code)
        if code not in theirs:
            exec(compile(code, "moving.md", "exec"), scope)
    return scope


def test_the_loss_that_was_moved_is_the_papers(moved: dict[str, Any]) -> None:
    loss = moved["BarlowTwins"](moved["BarlowTwins"].Settings(off_diagonal=0.3), coview.Plan())
    encoded, targets = an_encoded(6, 3), some_targets(6, 3)
    expected = []
    for query, key in encoded.pairs:
        columns = [
            zip(*z.tolist(), strict=True) for z in (encoded.queries[query], targets.keys[key])
        ]
        one, other = ([standard(column) for column in part] for part in columns)
        total = 0.0
        for i, x in enumerate(one):
            for j, y in enumerate(other):
                correlation = sum(a * b for a, b in zip(x, y, strict=True)) / 6
                total += (correlation - 1) ** 2 if i == j else 0.3 * correlation**2
        expected.append(total)
    seen = loss.compute_loss(encoded, targets).item()
    assert seen == pytest.approx(sum(expected) / len(expected), abs=1e-9)


def standard(column: tuple[float, ...]) -> list[float]:
    mean = sum(column) / len(column)
    spread = (sum((x - mean) ** 2 for x in column) / len(column)) ** 0.5
    return [(x - mean) / spread for x in column]


@pytest.mark.parametrize("name", ["mine", "two"])
def test_recipes_that_were_moved_train(moved: dict[str, Any], name: str) -> None:
    recipe = moved[name]
    assert isinstance(recipe, Recipe)
    for promise in promises(recipe, only=["builds", "gives-a-loss-with-gradient"]):
        promise()


def test_the_observer_that_was_moved_logs(moved: dict[str, Any], tmp_path: Path) -> None:
    recipe = attrs.evolve(moved["two"], backbone=coview.Use("resnet10-quarter"), batch_size=16)
    run = coview.train(
        recipe,
        "digits",
        out=tmp_path / "run",
        observe=[moved["EmbeddingNorm"]()],
        max_steps=1,
        log_every=1,
        evaluate=False,
        device="cpu",
        progress=False,
    )
    row = next(row for row in run.metrics if "loss" in row)
    assert row["embedding_norm"] > 0
    assert row["loss"] == pytest.approx(row["loss_info-nce"] + 0.1 * row["loss_regression"])


def test_the_table_has_a_place_for_each_column() -> None:
    rows = [line for line in page("moving.md").splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1 and len(rows) > 10
