"""What needs neither torch nor the data is refused before torch is imported."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coview
from coview.cli.early import wrong_names
from coview.cli.source import NotKnownError, settings_of
from coview.errors import RequestError
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import AFTERWARDS, method_names
from coview.recipes.resolve import KINDS, look_up
from coview.registry import Entry, entries
from coview.settings import fields_of

COMPONENTS = [
    (table, entry)
    for table, kind in KINDS.items()
    if table not in (*AFTERWARDS, "backbone")
    for entry in entries(kind)
]


@pytest.mark.parametrize(
    ("table", "entry"), COMPONENTS, ids=[f"{table}-{entry.name}" for table, entry in COMPONENTS]
)
def test_the_source_tells_the_settings_that_an_import_shows(table: str, entry: Entry) -> None:
    imported = look_up(table, f"{entry.package}:{entry.name}")[1]
    assert settings_of(entry.value) == tuple(field.name for field in fields_of(imported))


WRONG: list[dict[str, Any]] = [
    {"set": {"loss.temperatur": 1}},
    {"set": {"temperatur": 1}},
    {"set": {"los.temperature": 1}},
    {"set": {"data.sze": 1}},
    {"set": {"backbone.stm": "3x3"}},
    {"set": {"optimizer.etta": 1}},
    {"set": {"schedule.warm": 1}},
    {"set": {"size": 5}},
    {"set": {"negatives.size": 5, "loss.temperatur": 1}},
    {"use": {"negatives": "quee"}},
    {"use": {"negatives": "queue"}, "set": {"negatives.sise": 5}},
    {"use": {"loss": ["info-nce", "regression"]}, "set": {"loss.temperature": 5}},
    {"use": {"los": "info-nce"}},
]
RIGHT: list[dict[str, Any]] = [
    {},
    {"set": {"temperature": 0.2, "lr": 0.1, "wd": 0.1, "tau": 0.1} | {"data.size": 32}},
    {"use": {"negatives": "queue"}, "set": {"negatives.size": 5}},
    {
        "use": {"negatives": "memory-bank", "target": "memory-bank"},
        "set": {"negatives.momentum": 0.1},
    },
    {"use": {"loss": ["info-nce", "regression"]}, "set": {"loss.regression.weight": 0.1}},
    {"backbone": "vit_tiny_patch16_224"},
    {"set": {"optimizer.eta": 0.1}},  # of LARS, which the presets replace
    {"set": {"finetune.lr": 0.1, "probe.epochs": 3}},
]


@pytest.mark.parametrize("given", WRONG, ids=str)
def test_it_says_what_would_be_said_later(given: dict[str, Any]) -> None:
    changes = Changes(**given, preset="none")
    with pytest.raises(RequestError) as later:
        configure("simclr", 32, changes, "command line")
    early = wrong_names("simclr", changes, "command line")
    # timm's networks are only known to be coview's concern once timm is imported.
    told = {
        problem.replace("'resnet50' (coview)", "'resnet50'") for problem in later.value.problems
    }
    assert early and set(early) <= told


@pytest.mark.parametrize("given", RIGHT, ids=str)
def test_what_may_be_right_is_let_through(given: dict[str, Any]) -> None:
    assert wrong_names("simclr", Changes(**given), "command line") == []


@pytest.mark.parametrize("method", method_names())
def test_every_recipe_and_preset_is_let_through(method: str) -> None:
    assert wrong_names(method, Changes(), "command line") == []


def test_a_setting_of_one_preset_counts(tmp_path: Path) -> None:
    """MoCo's small preset alone may have it; which preset is taken the images decide."""
    file = tmp_path / "own.toml"
    file.write_text('base = "simclr"\n[loss]\ntemperatur = 0.2\n')
    (said,) = wrong_names(str(file), Changes(), "command line")
    assert "Did you mean 'temperature'" in said


def test_code_of_the_users_own_is_not_judged(tmp_path: Path) -> None:
    changes = Changes(use={"views": f"{tmp_path}/own.py:make"}, set={"views.anything": 1})
    assert wrong_names("simclr", changes, "command line") == []
    with pytest.raises(NotKnownError):
        settings_of("coview.nowhere:Thing")
    with pytest.raises(NotKnownError):
        settings_of("coview.plan:Plan")


def test_a_number_that_a_run_may_not_have_is_refused_in_the_same_words(
    idx: Path, tiny: tuple[str, ...], run: Callable[..., Any], python: Callable[..., Any]
) -> None:
    run("train", "simclr", "--data", f"idx:{idx}", *tiny, "--max-steps", 1, "--out", "r")
    wrong = ("--lr", "0.5", "--epochs", "7", "--seed", "3", "--threads", "2")
    done = python("-c", PROBE, "train", "--resume", "r", *wrong)
    first, *early = done.stdout.splitlines()
    assert first == "2 False", done.stdout
    with pytest.raises(RequestError) as later:
        coview.train(resume="r", lr=0.5, epochs=7, seed=3, threads=2, progress=False)
    told = [line.removeprefix("Error: ") for line in early if line.startswith("Error: ")]
    assert told == list(later.value.problems) and len(told) == 4
    allowed = [line for line in early if "coview train --resume r" in line]
    assert allowed and allowed[0].count("--allow-change") == 4
    # What it says is accepted; a missing run is refused early.
    words = shlex.split(allowed[0])[1:]
    assert run(*words, "--max-steps", 2).status == 0
    done = python("-c", PROBE, "train", "--resume", "nowhere")
    assert done.stdout.startswith("2 False") and "There is no run at nowhere" in done.stdout
    done = python("-c", PROBE, "train", "--resume", "r", "--set", "loss.temperatur=1")
    assert done.stdout.startswith("2 False") and "Did you mean 'temperature'" in done.stdout


PROBE = """
import sys
from click.testing import CliRunner
from coview.cli import main
answer = CliRunner().invoke(main, sys.argv[1:])
print(answer.exit_code, "torch" in sys.modules)
print(answer.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("smclr",),
        ("simclr", "--set", "loss.temperatur=1"),
        ("simclr", "--use", "negatives=quee", "--dry-run"),
        ("simclr", "--out", "there"),
    ],
)
def test_torch_is_not_imported_to_refuse(
    words: tuple[str, ...], python: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "run.json").write_text("{}")
    done = python("-c", PROBE, "train", *words)
    first, *said = done.stdout.splitlines()
    assert first == "2 False", done.stdout
    assert any(line.startswith("Error: ") for line in said)
    assert "torch" in sys.modules  # here, where other tests have imported it
