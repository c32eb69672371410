"""One list of run settings: whatever is in it reaches every file of a run and comes back."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli_w
import torch
from hypothesis import given
from hypothesis import strategies as st

import coview
from coview.cli.train import command
from coview.distributed import PATIENCE
from coview.errors import RequestError
from coview.settings import plain
from coview.training.resume import settings_before
from coview.training.run_settings import LONGEST_TIMEOUT, RunSettings, names, run_table
from coview.weights.checkpoint import read

Run = Callable[..., Any]
FIELDS = [field.name for field in attrs.fields(RunSettings)]
# The word "none" means that there is none.
WORDS = st.text("abcdefghijklmnop-_:=./0123456789", min_size=1, max_size=12).filter(
    lambda word: word != "none"
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "data": WORDS,
    "preset": WORDS,
    "init": WORDS,
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
    "precision": st.sampled_from(["auto", "fp32", "bf16", "fp16"]),
    "compile": st.sampled_from(["auto", "on", "views", "off"]),
    "threads": st.integers(0, 256),
    "workers": st.integers(0, 64),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "max_steps": st.none() | st.integers(1, 2**40),
    "save_every": st.sampled_from(["500", "10m", "0.5m"]),
    "evaluate_every": st.integers(0, 1000),
    "log_every": st.integers(1, 1000),
    "evaluate": st.booleans(),
    "report": st.booleans(),
    "observe": st.lists(WORDS, max_size=3).map(tuple),
    "timeout": st.floats(1, LONGEST_TIMEOUT),
    "download": st.booleans(),
}
"""A strategy for every field: one that is added needs one here."""


def test_every_setting_is_tried() -> None:
    assert list(VALUES) == FIELDS


@given(st.fixed_dictionaries(VALUES))
def test_a_setting_survives_every_file(values: dict[str, Any]) -> None:
    """TOML, ``run.json``, a checkpoint, and a resumption that gives nothing anew."""
    settings = RunSettings(**values)
    table = settings.table()
    assert RunSettings.of(tomllib.loads(tomli_w.dumps({"run": table}))["run"]) == settings
    facts = json.loads(json.dumps({"settings": table, "data": {"name": values["data"]}}))
    again = RunSettings.of(settings_before(Path("run"), facts))
    for name in names(repeats=True):
        assert getattr(again, name) == getattr(settings, name), name
    for name in names(repeats=False):
        assert getattr(again, name) == getattr(RunSettings(), name), name
    identity = settings.identity()
    assert set(identity) == {*names(repeats=True)} - {"data"}
    for name, value in identity.items():
        assert value == plain(values[name])


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_can_be_given(name: str, run: Run) -> None:
    """On the command line and in Python; and nothing is lost on the way from either."""
    assert name in inspect.signature(coview.train).parameters
    written = {option for parameter in command.params for option in parameter.opts}
    shown = name.replace("_", "-")
    assert f"--{shown}" in written or f"--no-{shown}" in written
    assert f"{shown} " in run("train", "--help").stdout


@pytest.mark.parametrize("name", names(repeats=True))
def test_a_run_keeps_it(name: str, whole: Path) -> None:
    """In ``recipe.toml``, ``run.json`` and the checkpoint of a run that was started with it."""
    asked = plain(ASKED.get(name, getattr(RunSettings(), name)))
    assert run_table(whole / "recipe.toml")[name] == asked
    facts = json.loads((whole / "run.json").read_text())
    assert facts["settings"][name] == asked
    kept = read(whole / "checkpoints" / "last.pt")["identity"]
    if name != "data":
        assert kept[name] == asked
    assert getattr(RunSettings.of(settings_before(whole, facts)), name) == (
        getattr(RunSettings.of({name: asked}), name)
    )


ASKED = {
    "data": "digits",
    "preset": "small",
    "device": "cpu",
    "precision": "bf16",
    "compile": "off",
    "threads": 2,
    "seed": 7,
    "max_steps": 2,
    "save_every": "1",
    "evaluate_every": 3,
    "log_every": 1,
    "evaluate": False,
    "report": False,
    "observe": ("collapse", "csv"),
    "timeout": 60.0,
}
"""Other than the defaults, where a run of two steps can have it."""
SMALL = ("--backbone", "resnet10-quarter", "--batch-size", 32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from click.testing import CliRunner

    from coview.cli import main

    path = tmp_path_factory.mktemp("settings") / "run"
    words = ["train", "simclr", *SMALL, "--data", "digits", "--preset", "small", "--out", path]
    words += ["--device", "cpu", "--precision", "bf16", "--no-compile", "--seed", 7, "--threads", 2]
    words += ["--max-steps", 2, "--save-every", 1, "--evaluate-every", 3, "--log-every", 1]
    words += ["--no-evaluate", "--no-report", "--observe", "csv", "--timeout", 60]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return path


def test_resume_and_recipe_repeat_what_was_asked(whole: Path, run: Run, tmp_path: Path) -> None:
    """The limit, the skipped evaluation, the precision: none has to be said again."""
    import shutil

    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    assert "--max-steps none" in run("train", "--resume", copy).stderr
    assert read(copy / "checkpoints" / "last.pt")["step"] == 2
    again = coview.train(copy / "recipe.toml", out=tmp_path / "again", progress=False)
    assert again.step == 2
    assert again.settings == RunSettings.of(json.loads((copy / "run.json").read_text())["settings"])
    assert not [row for row in again.metrics if "knn_top1" in row]
    weights = (torch.load(p / "checkpoints" / "last.pt")["method"] for p in (copy, again.path))
    first, second = weights
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_computes_something_else_is_refused_and_the_rest_is_told(
    whole: Path, run: Run, refused: Run, tmp_path: Path
) -> None:
    import shutil

    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    assert refused("train", "--resume", copy, "--seed", 8, "--precision", "fp32") == [
        "precision differs from the saved run ('bf16', now 'fp32').",
        "seed differs from the saved run (7, now 8).",
    ]
    said = run("train", "--resume", copy, "--max-steps", 3, "--log-every", 2).stderr
    assert "max_steps changes from 2 to 3 after step 2." in said
    facts = json.loads((copy / "run.json").read_text())
    assert facts["settings"]["max_steps"] == 3
    assert facts["changes"][0]["changed"] == {"log_every": [1, 2], "max_steps": [2, 3]}


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        RunSettings.of({"seed": "x", "workers": -1, "worker": 2})
    assert len(caught.value.problems) == 3
    assert any("Did you mean 'workers'" in problem for problem in caught.value.problems)


def test_the_longest_timeout_is_as_long_as_others_wait() -> None:
    assert PATIENCE.total_seconds() == LONGEST_TIMEOUT
