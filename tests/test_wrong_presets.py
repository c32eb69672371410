"""What is wrong in a preset is said to be the preset's; a component named twice is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import coview
from coview import Use
from coview.errors import RequestError
from coview.recipes.configure import Changes, configure
from coview.testing import promises

Run = Callable[..., Any]
TWICE = (
    "names 'queue' twice. Settings go by name: for a second one, register it under another name."
)


def problems(preset: dict[str, Any], method: str = "moco-v2", **changes: Any) -> list[str]:
    """Return what is wrong with a recipe that has this preset."""
    own = attrs.evolve(coview.recipe(method), name="", presets={"odd": preset})
    with pytest.raises(RequestError) as caught:
        configure(own, None, Changes(preset="odd", **changes), "test")
    return list(caught.value.problems)


WRONG = {
    "an unknown setting": (
        {"loss": {"temprature": 1.0}},
        "loss 'info-nce' (coview-cpc) has no setting 'temprature'. Did you mean 'temperature'? ",
    ),
    "a value of a wrong type": (
        {"optimizer": {"lr": "fast"}},
        "optimizer.lr must be a number, not 'fast'.",
    ),
    "a value out of range": ({"loss": {"temperature": -1.0}}, "loss.temperature must be "),
    "another component": ({"loss": "info-nse"}, "There is no loss called 'info-nse'. Did you "),
    "another component's setting": (
        {"loss": Use("regression", temperature=1.0)},
        "loss 'regression' (coview-byol) has no setting 'temperature'.",
    ),
    "a component twice": ({"negatives": [Use("queue"), Use("queue")]}, f"negatives {TWICE}"),
    "two for one role": (
        {"target": [Use("shared"), Use("momentum")]},
        "target takes one component, not 2.",
    ),
    "an unknown table": ({"los": {"temperature": 1.0}}, "There is no key called 'los'. Did you "),
    "a number of the recipe": ({"epochs": 0}, "epochs must be at least 1, not 0."),
    "a setting of the data": ({"data": {"size": "big"}}, "data.size must be "),
    "a setting of no component": (
        {"negatives": {"in-batch": {"views": "key"}}},
        "negatives 'queue' (coview-moco) has no setting 'in-batch'.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_preset_is_named(case: str) -> None:
    preset, sentence = WRONG[case]
    (problem,) = problems(preset)
    assert problem.startswith(f"in preset odd: {sentence}")


def test_what_the_user_sets_is_not_the_presets() -> None:
    preset = {"loss": {"temperature": -1.0}}
    assert problems(preset, set={"loss.temperature": -2.0}) == [
        "loss.temperature must be above 0, not -2.0."
    ]
    both = problems(preset, set={"optimizer.lr": "fast"})
    assert [problem.startswith("in preset odd: loss.") for problem in both] == [True, False]
    assert both[1].startswith("optimizer.lr must be")


def test_the_command_names_the_preset(refused: Run) -> None:
    text = 'base = "moco"\n[presets.tiny.loss]\ntemprature = 1.0'
    Path("mine.toml").write_text(text, encoding="utf-8")
    (problem,) = refused("train", "mine.toml", "--preset", "tiny")
    assert problem.startswith("in preset tiny: loss 'info-nce' (coview-cpc) has no setting")


def test_check_tries_every_preset_and_names_the_wrong_one(run: Run) -> None:
    presets = {"right": {"epochs": 3}, "wrong": {"loss": {"temprature": 1.0}}}
    own = attrs.evolve(coview.recipe("moco-v2"), name="", presets=presets)
    (resolves,) = promises(own, only=["resolves"])
    with pytest.raises(RequestError, match="^in preset wrong: loss 'info-nce'"):
        resolves()


# --- twice --------------------------------------------------------------------------------------


def test_a_recipe_that_names_a_component_twice_is_refused() -> None:
    for table, uses in {
        "negatives": (Use("queue", size=8), Use("queue", size=16)),
        "loss": (Use("info-nce"), Use("info-nce", temperature=1.0)),
        "wrap": (Use("nearest-neighbours"), Use("nearest-neighbours")),
    }.items():
        own = attrs.evolve(coview.recipe("moco-v2"), presets={}, **{table: uses})
        with pytest.raises(RequestError) as caught:
            configure(own, None, Changes(), "test")
        assert f"{table} names {uses[0].name!r} twice. Settings go by" in str(caught.value)


def test_a_name_in_two_spellings_is_one_name() -> None:
    with pytest.raises(RequestError, match="loss names 'info-nce' twice"):
        configure("moco-v2", None, Changes(use={"loss": ["info-nce", "Info_NCE"]}), "test")


def test_under_another_name_it_is_a_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    info = tmp_path / "site" / "coview_second-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coview-second\nVersion: 1.0\n")
    points = "[coview.negatives]\nsecond-queue = coview_moco.queue:Queue\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    sizes = {"negatives.queue.size": 16, "negatives.second-queue.size": 32}
    changes = Changes(use={"negatives": ["queue", "second-queue"]}, set=sizes)
    parts = configure("moco-v2", None, changes, "test").parts["negatives"]
    assert [(part.name, part.settings.size, part.shared_with) for part in parts] == [
        ("queue", 16, None),
        ("second-queue", 32, None),
    ]
    use = ("--use", "negatives=queue,second-queue", "--only", "goes-on-exactly")
    settings = [word for path, size in sizes.items() for word in ("--set", f"{path}={size}")]
    assert run("check", "moco-v2", *use, *settings, "--json").json["ok"] == 1


# --- several in one role ------------------------------------------------------------------------


def test_settings_of_one_of_several_are_named_with_it() -> None:
    use = {"loss": ["info-nce", "regression"], "negatives": ["queue", "in-batch"]}
    values = {
        "loss.info-nce.temperature": -1.0,
        "loss.regression.weight": "much",
        "negatives.queue.size": 0,
    }
    with pytest.raises(RequestError) as caught:
        configure("moco-v2", None, Changes(use=use, set=values), "test")
    starts = [problem.partition(" ")[0].rstrip(":") for problem in caught.value.problems]
    assert sorted(starts) == sorted(values)
