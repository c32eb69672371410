"""Names people guess: a setting by its last word, a method in any spelling, a tuple."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

import coview
from coview.cli.main import main
from coview.errors import RequestError
from coview.recipes.bare import OTHER_WORDS, SHORTCUTS
from coview.recipes.configure import Changes, configure


def resolved(method: str, use: Any = None, **changed: Any) -> Any:
    return configure(method, 32, Changes(set=changed, use=use or {}), "Python")


@pytest.mark.parametrize(
    ("method", "name", "value", "table", "key"),
    [
        ("simclr", "temperature", 0.3, "loss", "temperature"),
        ("simclr", "tau", 0.3, "loss", "temperature"),
        ("simclr", "lr", 0.7, "optimizer", "lr"),
        ("simclr", "learning_rate", 0.7, "optimizer", "lr"),
        ("simclr", "wd", 0.5, "optimizer", "weight_decay"),
        ("simclr", "warmup", 2, "schedule", "warmup_epochs"),
        ("moco-v3", "ema", 0.5, "target", "decay"),
        ("dino", "teacher_temperature", 0.05, "loss", "teacher_temperature"),
        ("simclr", "crop_scale", (0.5, 1), "views", "crop_scale"),
        # One component in two roles has one set of settings.
        ("instdisc", "draws", 64, "target", "draws"),
    ],
)
def test_a_bare_name_reaches_the_one_setting_of_that_name(
    method: str, name: str, value: Any, table: str, key: str
) -> None:
    part = resolved(method, **{name: value}).part(table)
    assert getattr(part.settings, key) == value
    assert part.origins[key] == "Python"
    assert (
        resolved(method, **{f"{table}.{key}": value}).recipe
        == resolved(method, **{name: value}).recipe
    )


def test_it_is_looked_for_in_the_components_that_are_used() -> None:
    used = resolved("byol", use={"loss": "info-nce", "negatives": "in-batch"}, temperature=0.4)
    assert used.part("loss").settings.temperature == 0.4
    with pytest.raises(RequestError, match="no setting called 'temperature' in byol"):
        resolved("byol", temperature=0.4)


@pytest.mark.parametrize("method", ["moco-v2", "instdisc"])
def test_one_of_several_is_asked_for(method: str) -> None:
    with pytest.raises(RequestError, match=r"'momentum' may mean target\.\w+ or optimizer\."):
        resolved(method, momentum=0.5)


def test_a_wrong_word_is_answered_by_the_full_name() -> None:
    with pytest.raises(RequestError, match=r"'temprature' in simclr\. Did you mean 'loss\.temp"):
        resolved("simclr", temprature=0.2)


def test_a_table_is_not_a_setting() -> None:
    with pytest.raises(RequestError, match=r"no setting called 'loss'.*loss\.KEY"):
        resolved("simclr", loss=0.2)


def test_a_wrong_component_is_reported_once() -> None:
    with pytest.raises(RequestError) as error:
        resolved("simclr", use={"loss": "nothing"}, lr=0.2)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("name", SHORTCUTS)
def test_the_options_are_the_arguments(name: str) -> None:
    said = ["train", "simclr", "--data", "digits", "--dry-run", "--json"]
    option = f"--{name.replace('_', '-')}"
    asked = ((option, "0.5"), ("--set", f"{name}=0.5"), ())
    given, full, neither = (_recipe([*said, *more]) for more in asked)
    assert given == full != neither


def _recipe(arguments: list[str]) -> dict[str, Any]:
    done = CliRunner().invoke(main, [*arguments, "--backbone", "resnet10-quarter"])
    document: dict[str, Any] = json.loads(done.stdout)
    del document["run"]  # the time that it took
    return document


def test_python_has_them_too(tmp_path: Any) -> None:
    run = coview.train(
        "SimCLR",
        "digits",
        preset="tiny",
        lr=0.02,
        temperature=0.4,
        warmup=0,
        weight_decay=0.0,
        max_steps=1,
        evaluate=False,
        progress=False,
        out=tmp_path / "run",
    )
    optimizer = run.resolved.part("optimizer").settings
    assert (optimizer.lr, optimizer.weight_decay) == (0.02, 0.0)
    assert run.resolved.part("loss").settings.temperature == 0.4
    assert run.resolved.part("schedule").settings.warmup_epochs == 0
    assert run.resolved.recipe.name == "simclr"


@pytest.mark.parametrize("spelled", ["SimCLR", "SIMCLR", "MoCo_v2", "moco v2", "DINO"])
def test_a_method_in_any_spelling(spelled: str) -> None:
    name = spelled.lower().replace("_", "-").replace(" ", "-")
    assert coview.recipe(spelled).name == name
    assert resolved(spelled).recipe == resolved(name).recipe


def test_a_component_in_any_spelling_is_written_as_its_package_spells_it() -> None:
    part = resolved("simclr", use={"loss": "Info_NCE"}).part("loss")
    assert part.name == "info-nce"


def test_other_words_lead_to_settings_that_exist() -> None:
    parts = [
        part
        for method in ("simclr", "moco-v2", "byol")
        for several in resolved(method).parts.values()
        for part in several
    ]
    keys = {key for part in parts for key in part.origins}
    assert {word for words in OTHER_WORDS.values() for word in words} <= keys


def test_a_resumed_run_takes_them(tmp_path: Any) -> None:
    options: Any = {"evaluate": False, "progress": False}
    path = tmp_path / "run"
    coview.train("simclr", "digits", preset="tiny", max_steps=1, out=path, **options)
    with pytest.raises(RequestError, match=r"allow_change=\['optimizer\.lr'\]$"):
        coview.train(resume=path, lr=0.02, max_steps=2, **options)
    run = coview.train(resume=path, lr=0.02, allow_change=["lr"], max_steps=2, **options)
    assert run.resolved.part("optimizer").settings.lr == 0.02
