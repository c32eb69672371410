"""The page of recipes: one based on another's, and one with several losses, do what it says."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from small_packages import install, write

import coview
from coview import Use
from coview.cli.new.scaffold import plugin_files
from coview.errors import RequestError
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import by_path, to_document
from coview.testing import promises, resolved

Run = Callable[..., Any]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "authors" / "recipes.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w./-]+)`:\n\n```(?:python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = dict(FILE.findall(TEXT))
MADE = {"upright": ("method", "moco-v2"), "two": ("loss", "")}
CHECKED = (
    *("loads", "imports-no-torch", "imports-no-other-plugin", "resolves", "reads-back", "builds"),
    *("gives-a-loss-with-gradient", "goes-on-exactly", "holds-in-the-last-epoch"),
)
SMALL = ("--data", "digits", "--backbone", "resnet10-quarter", "--batch-size", 16)
OPTIONS = (*SMALL, "--max-steps", 3, "--no-evaluate", "--out", "r", "--device", "cpu")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both packages: what `coview new` writes, with the page's files laid over."""
    for name, (kind, base) in MADE.items():
        place = f"src/coview_{name}/__init__.py"
        files = {**plugin_files(name, kind, base), place: SHOWN[place]}
        if name == "two":
            files["pyproject.toml"] = with_two_names(files["pyproject.toml"])
        write(tmp_path / name, files)
        install(tmp_path / name, name, monkeypatch)
    return tmp_path


def with_two_names(project: str) -> str:
    """Return a pyproject.toml with the page's table in place of its own of losses."""
    (table,) = (code for kind, code in BLOCK.findall(TEXT) if "coview.losses" in code)
    changed, count = re.subn(
        r'^\[project\.entry-points\."coview\.losses"\]\n.*\n', table, project, flags=re.MULTILINE
    )
    assert count == 1
    assert len(tomllib.loads(changed)["project"]["entry-points"]["coview.losses"]) == 2
    return changed


def test_the_page_shows_three_files() -> None:
    assert set(SHOWN) == {
        "src/coview_upright/__init__.py",
        "src/coview_two/__init__.py",
        "upright.toml",
    }


@pytest.mark.parametrize("name", MADE)
def test_promises(packages: Path, run: Run, name: str) -> None:
    only = [word for promise in CHECKED for word in ("--only", promise)]
    found = run("check", name, *only, "--json").json
    assert found["ok"] == len(CHECKED) and found["failed"] == found["skipped"] == 0


# --- based on another's -------------------------------------------------------------------------


def settings(method: str, preset: str) -> dict[str, Any]:
    found = configure(method, None, Changes(preset=preset), "test")
    return dict(by_path(to_document(found.recipe)))


@pytest.mark.parametrize("preset", ["none", "small", "tiny"])
@pytest.mark.parametrize("form", ["package", "file"])
def test_two_settings_differ_with_every_preset(packages: Path, preset: str, form: str) -> None:
    (packages / "upright.toml").write_text(SHOWN["upright.toml"], encoding="utf-8")
    method = "upright" if form == "package" else str(packages / "upright.toml")
    mine, base = settings(method, preset), settings("moco-v2", preset)
    differing = {key: mine[key] for key in mine if mine[key] != base[key]}
    differing.pop("name", None)
    assert differing.pop("summary") == "MoCo v2 without mirrored images and with a faster target"
    # The base's own preset for minutes has the same decay.
    same = {"target.decay"} if preset == "tiny" else set()
    expected = {"views.flip_p": 0.0, "target.decay": 0.99}
    assert differing == {key: value for key, value in expected.items() if key not in same}


def test_what_the_page_says_of_the_shortest_use_is_true() -> None:
    base = coview.recipe("moco-v2")
    short = attrs.evolve(base, name="", views=Use(base.views.name, flip_p=0.0))
    found = configure(short, None, Changes(preset="none"), "test").part("views").settings
    assert found.flip_p == 0.0 and found.symmetric != base.views.settings["symmetric"]


def test_without_its_function_presets_would_keep_the_old_decay(packages: Path) -> None:
    import coview_upright as mine  # type: ignore[import-not-found]

    careless = attrs.evolve(mine.recipe, name="", presets=mine.base.presets)
    decays = {
        preset: str(configure(careless, None, Changes(preset=preset), "t").part("target").settings)
        for preset in ("none", "small")
    }
    assert "decay=0.99," in decays["none"] and "decay=0.99," not in decays["small"]
    assert resolved("upright", "small").part("target").settings.decay == 0.99


def test_a_preset_for_a_replaced_loss_is_refused_in_the_pages_words(packages: Path) -> None:
    path = packages / "upright" / "src" / "coview_upright" / "__init__.py"
    text = path.read_text(encoding="utf-8")
    changed = text.replace("    views=Use(", '    loss=Use("regression"),\n    views=Use(')
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    (check,) = promises("upright", only=["resolves"])
    with pytest.raises(RequestError) as caught:
        check()
    (said,) = (code.strip() for kind, code in BLOCK.findall(TEXT) if kind == "text")
    assert caught.value.problems[0].startswith(said)


def test_a_recipe_that_is_no_packages_leaves_out_what_does_not_fit() -> None:
    own = attrs.evolve(coview.recipe("moco-v2"), loss=Use("regression"))
    assert configure(own, None, Changes(preset="small"), "test").part("loss").name == "regression"


# --- several losses -----------------------------------------------------------------------------


def weights(metrics: list[dict[str, Any]]) -> list[float]:
    """Return, of each row, the second loss's weight in the sum."""
    rows = [row for row in metrics if "loss" in row]
    return [(row["loss"] - row["loss_two"]) / row["loss_vicreg"] for row in rows]


def test_the_second_loss_comes_in_slowly(packages: Path, tmp_path: Path) -> None:
    recipe = attrs.evolve(coview.recipe("two"), backbone=Use("resnet10-quarter"), batch_size=512)
    run = coview.train(
        recipe,
        "digits",
        out=tmp_path / "run",
        epochs=2,
        log_every=1,
        evaluate=False,
        device="cpu",
        progress=False,
        preset="none",
    )
    steps = [row["step"] for row in run.metrics if "loss" in row]
    ten_epochs = 10 * max(steps) / 2
    expected = [0.01 * (step - 1) / ten_epochs for step in steps]
    assert weights(run.metrics) == pytest.approx(expected, abs=1e-5) and len(steps) > 3


def test_the_commands_of_the_page(packages: Path, run: Run) -> None:
    lines = [
        line for kind, code in BLOCK.findall(TEXT) if kind == "sh" for line in code.split("\n")
    ]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("coview ")]
    assert [command[1] for command in commands] == ["simclr", "two"]
    for number, command in enumerate(commands):
        options = [f"r{number}" if word == "r" else word for word in OPTIONS]
        run(*command, *options)
        rows = Path(f"r{number}/recipe.toml").read_text(encoding="utf-8")
        used = {loss["use"]: loss for loss in tomllib.loads(rows)["loss"]}
        if number == 0:
            assert list(used) == ["info-nce", "vicreg"] and used["vicreg"]["weight"] == 0.01
        else:
            assert used["two-sharp"]["temperature"] == 0.02 and used["two-sharp"]["weight"] == 0.5
            assert used["two"]["temperature"] == 0.5  # the preset's


def test_a_wrong_setting_and_a_name_twice_are_told_in_the_pages_words(
    packages: Path, refused: Run
) -> None:
    (problem,) = refused("train", "two", "--set", "loss.two.temperature=-1.0", "--dry-run")
    assert f"`{problem}`" in TEXT
    (problem,) = refused("train", "two", "--use", "loss=two,two", "--dry-run")
    assert problem.startswith("loss names 'two' twice. Settings go by name")
