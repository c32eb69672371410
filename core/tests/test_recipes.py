"""Recipes as data, and what resolving makes of them. Uses the core's own components and fakes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from coview.errors import RequestError
from coview.plan import Plan
from coview.recipes.override import Layers
from coview.recipes.recipe import Recipe, Use, from_document, read_recipe, to_document, to_toml
from coview.recipes.resolve import resolve


def a_recipe(**changes: object) -> Recipe:
    values = {
        "summary": "for a test",
        "views": Use("some-views", size=8),
        "encoder": Use("some-encoder"),
        "loss": Use("some-loss", temperature=0.1),
        "optimizer": Use("sgd", lr=0.1),
        "schedule": Use("constant"),
        "presets": {"small": {"loss": {"temperature": 0.5}, "batch_size": 8}},
        "name": "a",
    }
    return Recipe(**{**values, **changes})  # type: ignore[arg-type]


def test_names_become_uses() -> None:
    recipe = a_recipe(encoder="linear", negatives=["queue", Use("in-batch")])
    assert recipe.encoder == Use("linear")
    assert recipe.negatives == (Use("queue"), Use("in-batch"))
    assert a_recipe().target == Use("shared")


def test_toml_round_trip(tmp_path: Path) -> None:
    recipe = a_recipe(negatives=(Use("queue", size=4), Use("in-batch")))
    path = tmp_path / "r.toml"
    path.write_text(to_toml(recipe, run={"data": "digits"}))
    read = read_recipe(path)
    assert to_document(read) == to_document(recipe)


def test_a_file_may_hold_only_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coview.recipes.recipe.find_recipe", lambda name: a_recipe(name=name))
    document = {"base": "a", "epochs": 3, "loss": {"temperature": 0.2}, "negatives": "queue"}
    recipe = from_document(document)
    assert recipe.epochs == 3
    assert recipe.loss == Use("some-loss", temperature=0.2)
    assert recipe.views == Use("some-views", size=8)
    assert recipe.negatives == (Use("queue"),)
    assert from_document({"base": "a", "loss": {"use": "other"}}).loss == Use("other")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = ", "cannot be read as TOML"),
        ("ephocs = 3", "There is no key called 'ephocs'. Did you mean 'epochs'"),
        ("summary = 'x'", "incomplete recipe"),
        ("base = 3", "base must be a method's name"),
        ("views = 3", "views must be a table"),
        ("[views]\nsize = 3", "views needs a name"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(RequestError, match="r.toml") as caught:
        read_recipe(path)
    assert said in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no recipe file"):
        read_recipe(tmp_path / "none.toml")


def test_later_layers_win_and_are_remembered() -> None:
    layers = Layers(a_recipe())
    layers.change({"loss": {"temperature": 0.5}, "batch_size": 8}, "preset small")
    layers.set("losses.temperature", 0.7, "command line")
    layers.set("epochs", 2, "command line")
    (loss,) = layers.tables["loss"]
    assert (loss.settings, loss.origins) == ({"temperature": 0.7}, {"temperature": "command line"})
    assert layers.scalars["batch_size"] == 8
    assert layers.origins == {
        "epochs": "command line",
        "batch_size": "preset small",
        "accumulate": "recipe",
        "evaluates": "recipe",
    }
    assert layers.problems == []


def test_using_another_component_drops_settings_and_the_same_keeps_them() -> None:
    layers = Layers(a_recipe())
    layers.use("loss", ["some-loss"], "command line")
    assert layers.tables["loss"][0].settings == {"temperature": 0.1}
    layers.use("loss", ["other"], "command line")
    assert layers.tables["loss"][0].settings == {}


def test_one_of_several_sources_is_named() -> None:
    layers = Layers(a_recipe(negatives=(Use("queue"), Use("in-batch"))))
    layers.set("negatives.queue.size", 5, "x")
    assert layers.tables["negatives"][0].settings == {"size": 5}
    layers.set("negatives.size", 5, "x")
    assert (
        "Write what you mean: negatives.queue.size or negatives.in-batch.size."
        in layers.problems[0]
    )


def test_a_preset_reaches_one_of_several_by_its_name() -> None:
    layers = Layers(a_recipe(negatives=(Use("queue"), Use("in-batch"))))
    layers.change({"negatives": {"queue": {"size": 5, "dim": 3}}}, "preset")
    assert layers.tables["negatives"][0].settings == {"size": 5, "dim": 3}
    assert layers.tables["negatives"][1].settings == {} and not layers.problems


def test_wrong_places_are_problems_with_the_nearest_name() -> None:
    layers = Layers(a_recipe())
    layers.set("los.temperature", 1, "x")
    layers.use("encodr", ["linear"], "x")
    layers.use("encoder", ["a", "b"], "x")
    layers.change({"ephocs": 1}, "x")
    assert [p.split(".")[0] for p in layers.problems][:2] == [
        "There is no setting called 'los",
        "There is no role called 'encodr'",
    ]
    assert "encoder takes one component, not 2." in layers.problems
    assert "Did you mean 'epochs'" in layers.problems[-1]


def test_everything_wrong_is_told_at_once() -> None:
    recipe = a_recipe(optimizer=Use("sdg"), schedule=Use("constant", gamma=1), epochs=0)
    with pytest.raises(RequestError) as caught:
        resolve(Layers(recipe))
    text = str(caught.value)
    for said in ("some-views", "some-encoder", "some-loss", "Did you mean 'sgd'", "'gamma'"):
        assert said in text
    assert "epochs" in text
    assert len(caught.value.problems) == 6


def test_plans_have_defaults() -> None:
    assert Plan(batch_size=256, world_size=4).local_batch_size == 64
    assert attrs.evolve(Plan(), dim=3).dim == 3
