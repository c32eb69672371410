"""`coview.toml`: defaults of a project below the command line, and where each value is from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coview

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which commands run, and a home directory without settings."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("COVIEW_NO_DEFAULTS", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "coview.toml").write_text(text, encoding="utf-8")


def users(project: Path) -> Path:
    return project.parent / "home" / ".config" / "coview"


def layer(shown: dict[str, Any], table: str, key: str) -> tuple[Any, str]:
    tables = {"training": shown["training"], "data": shown["data"]}
    found = tables.get(table) or shown["tables"][table][0]["settings"]
    return found[key]["value"], found[key]["layer"]


def test_show_says_which_file_set_a_value(project: Path, run: Run) -> None:
    write(users(project), "epochs = 5\nbatch_size = 32\nseed = 3\n")
    text = """
        batch-size = 64
        workers = 2
        backbone = "resnet10-quarter"
        temperature = 0.3
        set.optimizer.lr = 0.11
        set."optimizer.momentum" = 0.5
    """
    write(project, text)
    shown = run("show", "simclr", "--image-size", "32", "--set", "optimizer.lr=7", "--json").json
    assert layer(shown, "training", "epochs") == (5, "your coview.toml")
    assert layer(shown, "training", "batch_size") == (64, "coview.toml")
    assert layer(shown, "loss", "temperature") == (0.3, "coview.toml")
    assert layer(shown, "optimizer", "momentum") == (0.5, "coview.toml")
    assert layer(shown, "optimizer", "lr") == (7, "command line")
    assert layer(shown, "backbone", "stem") == ("3x3", "preset small")
    assert shown["tables"]["backbone"][0]["use"] == "resnet10-quarter"
    assert shown["run"] == {
        "seed": {"value": 3, "layer": "your coview.toml"},
        "workers": {"value": 2, "layer": "coview.toml"},
    }
    lines = run("show", "simclr").stdout.splitlines()
    assert "  batch_size = 64  (coview.toml)" in lines and "  workers = 2  (coview.toml)" in lines


def test_a_methods_own_table_wins_over_the_rest(project: Path, run: Run) -> None:
    text = """
        epochs = 5
        use.negatives = "queue"
        set.loss.temperature = 0.3
        [methods.simclr]
        epochs = 7
        use.negatives = "in-batch"
    """
    write(project, text)
    simclr, moco = (run("show", name, "--json").json for name in ("simclr", "moco-v2"))
    assert layer(simclr, "training", "epochs") == (7, "coview.toml")
    assert layer(moco, "training", "epochs") == (5, "coview.toml")
    assert simclr["tables"]["negatives"][0]["use"] == "in-batch"
    assert moco["tables"]["negatives"][0]["use"] == "queue"
    assert layer(simclr, "loss", "temperature") == (0.3, "coview.toml")


def photos(folder: Path) -> None:
    for number in range(12):
        pixels = np.random.RandomState(number).randint(0, 256, (28, 28, 3), np.uint8)
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("text", "size", "preset"),
    [
        ("image-size = 24", (24, "coview.toml"), "tiny"),
        ('image-size = 24\npreset = "none"', (24, "coview.toml"), None),
        ("seed = 1", (28, "data"), "tiny"),
    ],
)
def test_size_and_preset(
    project: Path, run: Run, text: str, size: tuple[int, str], preset: str | None
) -> None:
    photos(project / "photos")
    write(project, text)
    shown = run("show", "byol", "--data", "photos", "--json").json
    assert layer(shown, "data", "size") == size
    assert shown["preset"] == preset


def test_a_run_takes_them_and_says_so(project: Path, run: Run) -> None:
    write(project, 'max-steps = 1\nbatch-size = 16\nevaluate = false\nobserve = ["csv"]\n')
    options = ("--backbone", "resnet10-quarter", "--no-compile", "--out", "made")
    done = run("train", "simclr", *options, "--batch-size", "8")
    assert "defaults of coview.toml: max_steps, evaluate, observe, batch_size" in done.stderr
    made = json.loads(Path("made/run.json").read_text())["settings"]
    assert (
        made["max_steps"] == 1 and made["evaluate"] is False and Path("made/metrics.csv").exists()
    )
    recipe = coview.recipe("made/recipe.toml")
    assert recipe.batch_size == 8
    # What was recorded is whole: the file may go, or say something else.
    write(project, "max-steps = 3\nbatch-size = 4\nseed = 9\n")
    again = run("train", "made/recipe.toml", "--out", "again")
    assert "defaults of" not in again.stderr
    assert coview.recipe("again/recipe.toml").batch_size == 8
    assert json.loads(Path("again/run.json").read_text())["settings"]["seed"] == 0
    resumed = run("train", "--resume", "made", "--max-steps", "2")
    assert "defaults of" not in resumed.stderr
    assert coview.recipe("made/recipe.toml").batch_size == 8


def test_a_recipe_file_is_laid_over_them(project: Path, run: Run) -> None:
    whole = run("show", "simclr", "--toml", "--batch-size", "48").stdout
    Path("whole.toml").write_text(whole, encoding="utf-8")
    Path("part.toml").write_text('base = "simclr"\nbatch_size = 48\n', encoding="utf-8")
    write(project, "batch-size = 16\nepochs = 3\n")
    shown = run("show", "whole.toml", "--json").json
    assert shown["training"]["batch_size"]["value"] == 48
    assert shown["training"]["epochs"]["value"] != 3
    shown = run("show", "part.toml", "--json").json
    assert layer(shown, "training", "batch_size") == (48, "file")
    assert layer(shown, "training", "epochs") == (3, "coview.toml")


def test_a_variable_leaves_them_out(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "epochs = 5\n")
    monkeypatch.setenv("COVIEW_NO_DEFAULTS", "1")
    assert layer(run("show", "simclr", "--json").json, "training", "epochs")[1] != "coview.toml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize = 3", "coview.toml: There is no option called 'batchsize'. Did you mean"),
        ("[methods.byol]\nepoch = 3", "methods.byol.There is no option called 'epoch'"),
        ('workers = "many"', "coview.toml: workers must be a whole number, not 'many'"),
        ("epochs = ", "coview.toml cannot be read"),
        ("set = 3", "coview.toml: set must be a table, not 3"),
        ("use.negatives = 3", 'use takes names: use.negatives = "queue"'),
        ("methods = 3", "write [methods.NAME], not methods = 3"),
        ('backbone = "net.py:make"', "If you trust it, add: --backbone net.py:make"),
        ('use.views = "own.py:make"', "If you trust it, add: --use views=own.py:make"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(
    project: Path, run: Run, text: str, message: str
) -> None:
    write(project, text)
    for words in (("show", "simclr"), ("train", "simclr", "--dry-run")):
        failed = run(*words, status=2)
        assert message in " ".join(failed.stderr.split()), failed.stderr


def test_the_example_of_the_page(project: Path, run: Run) -> None:
    page = Path(__file__).parent.parent / "docs" / "running.md"
    section = page.read_text(encoding="utf-8").split("## A project's defaults")[1]
    write(project, section.split("```toml\n")[1].split("```")[0])
    shown = run("show", "moco-v2", "--json").json
    assert layer(shown, "training", "epochs") == (50, "coview.toml")
    assert layer(shown, "optimizer", "momentum") == (0.95, "coview.toml")
    assert {"data", "workers", "observe"} == set(shown["run"])
