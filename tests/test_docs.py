"""Documentation that is taken from the code says what the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

import coview
from coview import components

ROOT = Path(__file__).resolve().parent.parent


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written() -> dict[Path, str]:
    made: dict[Path, str] = load(ROOT / "docs" / "generate.py").generated()
    return made


@pytest.mark.parametrize(
    "name",
    [
        *("docs/hooks.md", "docs/cli.md", "docs/data.md", "docs/python.md", "docs/benchmarks.md"),
        *("docs/studies.md", "README.md"),
        *(f"docs/authors/{name}.md" for name in ("promises", "components", "packages")),
    ],
)
def test_generated_documentation(name: str, written: dict[Path, str]) -> None:
    expected = {path.relative_to(ROOT).as_posix(): text for path, text in written.items()}[name]
    assert (ROOT / name).read_text(encoding="utf-8") == expected, "run: python docs/generate.py"


def test_every_command_of_this_repository_has_its_help_on_the_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = {"train", "evaluate"}
    for file in ROOT.glob("plugins/*/pyproject.toml"):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        commands |= set(project.get("entry-points", {}).get("coview.commands", {}))
    assert len(commands) > 8
    missing = [name for name in commands if f"## coview {name}\n" not in page]
    assert missing == []


def test_the_table_of_digits_is_the_measurement(
    benchmark_script: Callable[[str], ModuleType],
) -> None:
    import json

    digits = benchmark_script("digits")
    document = json.loads((ROOT / "benchmarks" / "results" / "digits.json").read_text())
    assert digits.table(document) in (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")


PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("docs/authors/*.md"),
    *ROOT.glob("docs/methods/*.md"),
)


def test_every_attribute_of_a_record_is_on_the_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert "Step.epoch: int\n\nEpochs completed before this step, so the first epoch is 0." in page
    assert "Step.generator: torch.Generator\n\nA generator on the device, seeded from" in page
    for name in ("Batch", "Views", "Encoded", "Targets", "Negatives", "Step", "Plan", "Layout"):
        kind = getattr(coview, name)
        given = {field.name for field in attrs.fields(kind) if field.name[0] != "_"}
        computed = {key for key, value in vars(kind).items() if isinstance(value, property)}
        section = page.partition(f"#### `coview.{name}`")[2].partition("####")[0]
        shown = {key for key in given if f"{key}: " in section}
        shown |= {key for key in computed if f"{name}.{key}: " in section}
        assert shown == given | computed, name


def test_what_a_component_may_declare_says_what_it_is_made_of() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    for name in ("Guard", "ParameterGroup"):
        section = page.partition(f"### {name}\n")[2]
        for field in attrs.fields(getattr(components, name)):
            assert f"{field.name}: " in section
    assert "fixed_rate: keep the peak learning rate" in page


def test_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not (page.parent / link).exists():
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_the_readme_has_the_installed_recipe_of_moco_v2() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from coview import Recipe, Use\n.*?)```", text, re.DOTALL)[
        :1
    ]
    made: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), made)
    installed = coview.recipe("moco-v2")
    shown = attrs.evolve(
        made["recipe"], name=installed.name, presets=installed.presets, probe=installed.probe
    )
    for field in attrs.fields(type(installed)):
        assert getattr(shown, field.name) == getattr(installed, field.name), field.name


def defined(file: Path) -> set[str]:
    """Return the names that a file defines: ``name``, and ``Class.name``."""
    found = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            targets = node.targets if isinstance(node, ast.Assign) else ()
            found.update(prefix + t.id for t in targets if isinstance(t, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def not_there(text: str) -> Iterator[str]:
    """Yield each ``folder/file.py:Name`` of a page that does not exist, as ``docs/`` writes it."""
    for path, name in re.findall(r"`([\w./-]+\.py)(?::([\w.]+))?`", text):
        places = (ROOT / "core/src/coview" / path, ROOT / path)
        file = next((place for place in places if place.is_file()), None)
        if file is None or (name and name not in defined(file)):
            yield f"{path}:{name}"


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert sorted(set(not_there(text))) == []
    assert len(re.findall(r"`[\w./-]+\.py", text)) > 80
    wrong = "`hookspecs.py:ROLES` `hookspecs.py:RULES` `gone.py` `records.py:Step.read`"
    assert list(not_there(wrong)) == ["hookspecs.py:RULES", "gone.py:"]


def test_the_architecture_draws_the_floors() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^ ?(\d+)  (\w.*?)  ", text, re.MULTILINE)
    floors = load(ROOT / "tests" / "test_arrows.py").FLOORS
    expected = [(str(number), " ".join(rooms)) for number, rooms in enumerate(floors)]
    assert drawn == expected[::-1]
