"""Every number of the methods' official configurations: ours is equal, or a reason says why not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest
from click.testing import CliRunner

from coview import Recipe, Use
from coview.cli.main import main
from coview.recipes.recipe import find_recipe, method_names
from coview.testing import official
from coview.testing.official import OURS, Official, Row

ROOT = Path(__file__).resolve().parent.parent
TWELVE = (
    *("instdisc", "cpc", "cmc", "moco", "simclr", "moco-v2", "simclr-v2", "swav", "byol"),
    *("simsiam", "moco-v3", "dino"),
)
ALL = (
    *TWELVE,
    *("vicreg", "barlow-twins", "nnclr", "supcon", "densecl", "mae", "ibot"),
    *("cpc-v2", "cpc-audio", "simclr-v2-memory"),
)
WHOLE = (
    *("backbone.use", "backbone.stem", "backbone.stem_padding", "backbone.zero_init_last"),
    *("views.crop_scale", "views.interpolation", "views.jitter", "views.order"),
    *("optimizer.peak", "optimizer.weight_decay", "epochs", "batch_size"),
)
"""What a published preset for small images must have a number for, whatever else it sets."""


def found(method: str) -> Official:
    one = official.read(method)
    assert one is not None, f"{method} has no file {method}.toml"
    return one


def test_these_are_all_methods() -> None:
    assert sorted(name for name in method_names() if official.read(name)) == sorted(ALL)


@pytest.mark.parametrize("method", ALL)
def test_every_number_is_equal_or_has_a_reason(method: str) -> None:
    one = found(method)
    for preset in ("none", *one.presets):
        assert official.problems(one, preset) == []
        assert official.uncovered(one, preset) == []
    assert one.idea and one.wrong and one.deviations and one.published and one.precision
    assert len(official.rows(one)) > 20


@pytest.mark.parametrize("method", ALL)
def test_a_preset_is_published_as_a_whole_or_ours(method: str) -> None:
    one, recipe = found(method), find_recipe(method)
    published = {n for n, p in recipe.presets.items() if not p["source"].startswith(f"{OURS}: ")}
    assert published == set(one.presets)
    for name in published:
        rows = official.rows(one, name)
        assert [row.path for row in rows if not row.equal or row.reason] == []
        if name == "small":
            assert {*WHOLE} - {row.path for row in rows} == set()


def test_the_schedules_of_published_small_presets_end_as_published() -> None:
    ends = {}
    for method in ALL:
        one = found(method)
        if "small" in one.presets:
            rows = {row.path: row.official for row in official.rows(one, "small")}
            ends[method] = rows.get("schedule.final", rows.get("schedule.gamma"))
    solo = ("moco-v2", "byol", "simsiam", "moco-v3", "dino", "vicreg", "barlow-twins", "nnclr")
    assert {method: ends[method] for method in solo} == dict.fromkeys(solo, 0.0)
    rows = {row.path: row.ours for row in official.rows(found("dino"), "small")}
    assert rows["target.decay"] == "cosine(0.9995, 1.0)"


def changed(method: str, **numbers: Any) -> Official:
    one = found(method)
    return attrs.evolve(one, numbers={**one.numbers, **numbers})


def test_a_difference_needs_a_reason_and_an_equal_number_none() -> None:
    (said,) = official.problems(changed("moco", epochs=[300, "P"]))
    assert said == "moco, preset none: epochs is 200, officially 300, without a reason."
    assert official.problems(changed("moco", epochs=[300, "P", "Ours is shorter."])) == []
    (said,) = official.problems(changed("moco", epochs=[200, "P", "Ours is shorter."]))
    assert said.endswith("epochs is the official 200, and needs no reason.")
    (said,) = official.problems(changed("moco", epochs=[200, "X"]))
    assert said.endswith("epochs has a source 'X' that [sources] lacks.")


def test_a_number_without_a_row_is_missed() -> None:
    one = found("moco")
    loss = {key: value for key, value in one.numbers["loss"].items() if key != "temperature"}
    less = attrs.evolve(one, numbers={**one.numbers, "loss": loss})
    assert official.uncovered(less) == ["loss.temperature"]


@pytest.mark.parametrize(
    "one, other, equal",
    [
        (0.1 + 0.2, 0.3, True),
        (1, 1.0, True),
        (1, True, False),
        ([0.2, [1, 2]], [0.2, [1.0, 2]], True),
        ([1, 2], [1, 2, 3], False),
        ("none", 0.0, False),
    ],
)
def test_what_is_the_same(one: Any, other: Any, equal: bool) -> None:
    assert official.same(one, other) is equal
    assert Row("x", one, other, "P").equal is equal


STRANGER = """
idea = "Nothing."
[sources]
P = "arXiv:0000.00000"
[numbers]
epochs = [3, "P"]
batch_size = [64, "P"]
optimizer.use = ["sgd", "P"]
optimizer.peak = [0.5, "P"]
loss.temperature = [0.3, "P", "Theirs is colder."]
"""


def test_a_stranger_s_method_says_its_numbers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange.py").write_text(
        "from coview import Recipe, Use\n"
        "recipe = Recipe(summary='s', views=Use('simclr'), encoder=Use('projection'),\n"
        "    negatives=Use('in-batch'), loss=Use('info-nce', temperature=0.1), epochs=3,\n"
        "    batch_size=64, optimizer=Use('sgd', lr=2.0, lr_rule='linear'),\n"
        "    schedule=Use('cosine'))\n"
    )
    (tmp_path / "odd.toml").write_text(STRANGER)
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[coview.methods]\nodd = strange:recipe\n")
    monkeypatch.syspath_prepend(tmp_path)
    one = found("odd")
    assert official.problems(one) == []
    rows = {row.path: row for row in official.rows(one)}
    assert (rows["optimizer.peak"].ours, rows["optimizer.peak"].equal) == (0.5, True)
    assert (rows["loss.temperature"].ours, rows["loss.temperature"].equal) == (0.1, False)
    assert "views.crop_scale" in official.uncovered(one)


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["show", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_show_says_where_a_preset_is_from() -> None:
    assert "preset's source: solo-learn 9187ea3" in shown("moco-v2", "--preset", "small")
    assert "preset's source: ours: for a network of 0.3" in shown("moco-v2", "--preset", "tiny")
    assert "preset's source" not in shown("moco-v2")


def test_a_preset_s_source_changes_nothing() -> None:
    preset = {"source": "ours: a test", "epochs": 7}
    recipe = Recipe(
        summary="s",
        views=Use("simclr"),
        encoder=Use("projection"),
        negatives=Use("in-batch"),
        loss=Use("info-nce"),
        optimizer=Use("sgd"),
        schedule=Use("cosine"),
        presets={"mine": preset},
    )
    from coview.recipes.configure import Changes, configure

    made = configure(recipe, None, Changes(preset="mine"), "test")
    assert (made.training.epochs, made.preset_source) == (7, "ours: a test")


@pytest.fixture(scope="module")
def pages() -> dict[Path, str]:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        module: ModuleType = __import__("methods_pages")
    finally:
        sys.path.remove(str(ROOT / "docs"))
    made: dict[Path, str] = module.pages()
    return made


def test_the_pages_are_what_the_packages_say(pages: dict[Path, str]) -> None:
    there = set((ROOT / "docs" / "methods").iterdir())
    assert there == set(pages)
    old = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert old == [], "run: python docs/generate.py"


def test_the_figures_name_what_fills_each_role(pages: dict[Path, str]) -> None:
    for method in ALL:
        tree = ElementTree.fromstring(pages[ROOT / "docs" / "methods" / f"{method}.svg"])
        words = {element.text for element in tree.iter() if element.tag.endswith("text")}
        recipe = find_recipe(method)
        for role in ("views", "encoder", "target", "loss"):
            assert ", ".join(use.name for use in recipe.uses(role)) in words
        constant = recipe.target.name != "shared"
        assert ("no gradient" in words) == constant
