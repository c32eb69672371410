"""The workspace: every plugin is whole, declared and documented; the hooks do not change unseen."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import coview
from coview.hookspecs import OPEN_HOOKS, ROLE_HOOKS, ROLES, LifeHooks, StepHooks
from coview.recipes.recipe import Recipe, Use
from coview.registry import KINDS, find, kind_of_role

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {path.parent.name: path.parent for path in ROOT.glob("plugins/[!_]*/pyproject.toml")}


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def needed(name: str) -> set[str]:
    """Return the distributions that one of ours depends on, through others too."""
    found = {name}
    for requirement in project(ROOT / "plugins" / name.removeprefix("coview-"))["dependencies"]:
        other = re.split(r"[<>=\s\[]", requirement)[0]
        if other.startswith("coview-"):
            found |= needed(other)
    return found


def test_every_plugin_is_found() -> None:
    assert set(FOLDERS) >= {"byol", "cpc", "instdisc", "moco", "moco-v2", "simclr"}


def test_every_plugin_is_a_requirement_of_contributors_and_of_all() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    editable = {line.removeprefix("-e ") for line in lines if line.startswith("-e ")}
    assert editable == {"./core", *(f"./plugins/{name}" for name in FOLDERS)}
    extra = project(ROOT / "core")["optional-dependencies"]["all"]
    assert sorted(extra) == sorted(f"coview-{name}" for name in FOLDERS)


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_plugin_is_whole(name: str) -> None:
    folder, about = FOLDERS[name], project(FOLDERS[name])
    module = f"coview_{name.replace('-', '_')}"
    assert about["name"] == f"coview-{name}"
    assert about["version"] == coview_version() and about["license"] == "MIT"
    assert about["requires-python"] == ">=3.11" and about["description"]
    assert (folder / about["readme"]).is_file()
    assert (folder / "src" / module / "py.typed").exists()
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert list((folder / "tests").glob("test_*.py"))
    for requirement in about["dependencies"]:
        if requirement.startswith("coview"):
            assert requirement.endswith(series()), requirement


def coview_version() -> str:
    return str(project(ROOT / "core")["version"])


def series() -> str:
    """Return the range of versions that work together: ``>=0.1,<0.2`` for a core 0.1.0."""
    major, minor = map(int, coview_version().split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"


def test_the_cores_version_is_the_one_place_of_ranges() -> None:
    files = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/example_plugin/*.toml")]
    found = {
        place
        for path in files
        for place in re.findall(r"\bcoview[\w-]*(>=[\d.]+,<[\d.]+)", path.read_text("utf-8"))
    }
    assert found == {series()}


def test_a_library_has_one_lower_bound_in_all_packages() -> None:
    bounds: dict[str, set[str]] = {}
    for folder in (ROOT / "core", *FOLDERS.values()):
        about = project(folder)
        extras = about.get("optional-dependencies", {}).values()
        for text in chain(about["dependencies"], *extras):
            requirement = Requirement(text)
            if not requirement.name.startswith("coview"):
                bounds.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {name: each for name, each in bounds.items() if len(each) > 1 or "" in each} == {}


def test_containers_get_a_version_of_every_library_that_the_packages_allow() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines]
    here = {one.name: one for one in pinned if one.marker is None or one.marker.evaluate()}
    for folder in (ROOT / "core", *FOLDERS.values()):
        for needed in map(Requirement, project(folder)["dependencies"]):
            if not needed.name.startswith("coview"):
                (version,) = here[needed.name].specifier
                assert version.operator == "==" and version.version in needed.specifier, needed


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_plugin_is_installed_as_it_is_written(name: str) -> None:
    written = project(FOLDERS[name])
    installed = metadata.distribution(f"coview-{name}")
    assert installed.version == written["version"]
    groups = {
        group: dict(points)
        for group, points in written["entry-points"].items()
        if group.startswith("coview.")
    }
    found: dict[str, dict[str, str]] = {}
    for point in installed.entry_points:
        found.setdefault(point.group, {})[point.name] = point.value
    assert found == groups, "install the workspace again: pip install -r requirements.txt"
    assert {group.removeprefix("coview.") for group in groups} <= set(KINDS)


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_entry_points_load_and_are_documented(name: str) -> None:
    readme = (FOLDERS[name] / "README.md").read_text(encoding="utf-8")
    for point in metadata.distribution(f"coview-{name}").entry_points:
        loaded = point.load()
        kind = point.group.removeprefix("coview.")
        # A family of backbones may be described by its pattern.
        word = re.search(rf"(?<![\w-]){re.escape(point.name)}(?![\w-])", readme)
        assert word or kind == "backbones", f"the README does not name {kind}: {point.name}"
        if kind == "methods":
            assert isinstance(loaded, Recipe) and loaded.summary and loaded.paper
        elif kind in map(kind_of_role, ROLES):
            assert loaded.__doc__ and loaded.Settings.__doc__


def recipes() -> dict[str, Recipe]:
    points = metadata.entry_points(group="coview.methods")
    return {point.dist.name: point.load() for point in points if point.dist.name[7:] in FOLDERS}


@pytest.mark.parametrize("package", sorted(recipes()))
def test_a_package_depends_on_those_its_recipe_takes_parts_from(package: str) -> None:
    recipe = recipes()[package]
    uses = [(role, use) for role in ROLES for use in recipe.uses(role)]
    for preset in recipe.presets.values():
        for role in ROLES:
            value = preset.get(role, ())
            several = value if isinstance(value, (list, tuple)) else [value]
            uses += [(role, use) for use in several if isinstance(use, Use)]
    owners = {find(kind_of_role(role), use.name).package for role, use in uses}
    assert owners <= needed(package) | {"coview"}


def test_the_core_alone_is_light() -> None:
    brings = {point.group for point in metadata.distribution("coview").entry_points}
    assert not brings & {"coview.methods", "coview.losses", "coview.encoders", "coview.views"}


HOOKS = {
    "generate_views": ("batch", "step"),
    "encode": ("views", "batch", "step"),
    "encode_targets": ("encoder", "views", "encoded", "batch", "step"),
    "draw_negatives": ("views", "encoded", "targets", "batch", "step"),
    "compute_loss": ("encoder", "views", "encoded", "targets", "negatives", "batch", "step"),
    "gradients_ready": ("step",),
    "update_target": ("encoder", "views", "encoded", "targets", "batch", "step"),
    "evaluation_started": ("run", "what"),
    "run_started": ("run",),
    "step_finished": ("run", "step", "loss"),
    "epoch_finished": ("run", "epoch", "metrics"),
    "checkpoint_saved": ("run", "path"),
    "run_finished": ("run",),
}
"""The public contract. Adding an argument breaks nobody; renaming or removing one does."""


def specs() -> dict[str, Any]:
    return {
        name: member
        for group in (StepHooks, LifeHooks)
        for name, member in vars(group).items()
        if hasattr(member, "coview_spec")
    }


def test_hooks_and_their_arguments_are_as_published() -> None:
    found = {n: tuple(inspect.signature(f).parameters)[1:] for n, f in specs().items()}
    assert found == HOOKS
    for name, function in specs().items():
        parameters = list(inspect.signature(function).parameters.values())
        # pluggy 1.6 and 1.7 treat defaults differently, and neither takes keyword-only ones.
        assert all(p.default is p.empty for p in parameters), name
        assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters), name


def test_one_answer_is_taken_where_one_is_meant() -> None:
    first = {name for name, function in specs().items() if function.coview_spec["firstresult"]}
    assert first == {ROLE_HOOKS[role] for role in ROLES if role != "negatives"}


@pytest.mark.parametrize("name", [*ROLE_HOOKS.values(), *OPEN_HOOKS])
def test_a_hooks_docstring_is_its_contract(name: str) -> None:
    text = inspect.getdoc(specs()[name]) or ""
    assert "Example::" in text and "@hookimpl" in text and f"def {name}(self" in text
    if name in ROLE_HOOKS.values():
        assert "Returns:" in text and ("(B," in text or "(N, " in text or "scalar" in text)
    example = re.search(rf"def {name}\(self(.*?)\)", text)
    assert example
    assert {a.strip() for a in example[1].split(",") if a.strip()} <= set(HOOKS[name])


def test_names_of_the_top_level() -> None:
    promised = {
        *("hookimpl", "setting", "Recipe", "Use", "Plan", "Layout", "cosine", "linear", "Schedule"),
        *("Batch", "Views", "Encoded", "Targets", "Negatives", "Step"),
        *("train", "recipe", "component", "build", "load_backbone"),
        *("CoviewError", "RequestError", "PluginError"),
    }
    assert promised <= set(coview.__all__)
    for name in coview.__all__:
        assert getattr(coview, name).__doc__, name


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
PAGES += ROOT.glob("docs/authors/*.md")
PAGES += ROOT.glob("plugins/*/README.md")
PIP = re.compile(r"pip install ((?:\./|-r )[^`#\n]*)")


def installed_by(line: str) -> set[str]:
    """Return the folders of ``./core ./plugins/{cpc,simclr} ./plugins/digits``."""
    found = set()
    for word in line.split():
        several = re.fullmatch(r"(.*)\{(.*)\}", word)
        names = several.group(2).split(",") if several else [""]
        found |= {f"{several.group(1) if several else word}{name}" for name in names}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_to_install_can_be_installed_from_a_clone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"pip install [\"']?coview", text), "no package index has coview"
    for line in PIP.findall(text):
        folders = installed_by(line)
        if line.startswith("-r "):
            assert (ROOT / line.split()[1]).is_file()
            continue
        assert all((ROOT / folder / "pyproject.toml").is_file() for folder in folders), line
        plugins = {Path(folder).name for folder in folders - {"./core"}}
        whole = set().union(*(needed(f"coview-{name}") for name in plugins))
        assert {f"coview-{name}" for name in plugins} == whole, "some packages are missing"
