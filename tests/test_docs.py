"""Documentation that is taken from the code says what the code says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["docs/hooks.md", "docs/cli.md", "docs/benchmarks.md", "README.md"]
)
def test_generated_documentation(name: str) -> None:
    written = load(ROOT / "docs" / "generate.py").generated()
    expected = {path.relative_to(ROOT).as_posix(): text for path, text in written.items()}[name]
    assert (ROOT / name).read_text(encoding="utf-8") == expected, "run: python docs/generate.py"


def test_the_readmes_table_is_the_measurement(
    benchmark_script: Callable[[str], ModuleType],
) -> None:
    import json

    digits = benchmark_script("digits")
    document = json.loads((ROOT / "benchmarks" / "results" / "digits.json").read_text())
    assert digits.table(document) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    import re

    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not (page.parent / link).exists():
                broken.append(f"{page.name}: {link}")
    assert broken == []
