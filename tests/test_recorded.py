"""Recorded studies are of the studies as they stand: what ran, and the rule that judged it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from coview.registry import entries
from coview.studies import find_study
from coview.studies.report import judged
from coview.studies.verdict import overall

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "studies"
RECORDED = sorted(FOLDER.glob("*.json"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def document(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_study_is_the_study(path: Path) -> None:
    found = document(path)
    study = find_study(found["study"])
    assert path.stem == found["study"].replace("/", "-")
    assert found["common"] == study.common.words(), "it has changed since: record it again"
    words = {name: variant.words() for name, variant in study.variants.items()}
    assert {name: one["changes"] for name, one in found["variants"].items()} == words


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_verdict_follows_from_the_runs(path: Path) -> None:
    found = document(path)
    runs = {name: one["runs"] for name, one in found["variants"].items()}
    findings = judged(find_study(found["study"]), runs)
    expected = json.loads(json.dumps([attrs.asdict(finding) for finding in findings]))
    for mine, theirs in zip(expected, found["findings"], strict=True):
        difference, recorded = mine.pop("difference"), theirs.pop("difference")
        assert difference == pytest.approx(recorded), mine["rule"]
        assert mine == theirs
    assert found["verdict"] == overall(findings)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_it_was_recorded_in_full(path: Path) -> None:
    found = document(path)
    assert not found["quick"] and not found["left_out"] and len(found["seeds"]) >= 3
    assert path.with_suffix(".svg").read_text(encoding="utf-8").startswith("<?xml")


def test_every_recorded_study_is_installed() -> None:
    installed = {entry.name.replace("/", "-") for entry in entries("studies")}
    assert {path.stem for path in RECORDED} <= installed


def test_the_readme_has_words_and_a_table_only_of_what_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = load(FOLDER.parent / "recorded.py")
    studies, rivals = tmp_path / "studies", tmp_path / "rivals.md"
    studies.mkdir()
    rivals.write_text("Measured: nothing yet.", encoding="utf-8")
    monkeypatch.setattr(recorded, "FOLDER", studies)
    assert recorded.methods() == ""
    rivals.write_text("| byol | 67.0 |", encoding="utf-8")
    assert recorded.methods() == f"{recorded.RIVALS}\n"
    runs = [
        {"values": {"raw": 0.3, "untrained": 0.4, "knn": share}} for share in (0.5, 0.6, 0.7, 0.8)
    ]
    found = {"study": "methods/moved-digits", "variants": {"byol": {"runs": runs}}}
    (studies / "moved.json").write_text(json.dumps(found), encoding="utf-8")
    text = recorded.methods()
    assert "over 4 seeds" in text and "4,314 handwritten digits" in text
    assert "| byol | 65.0 ± 20.5 | 50.0 | 40.0 |" in text and "Fashion" not in text
    assert "`coview study run methods/moved-digits` measures it again." in text
    assert text.endswith(f"{recorded.RIVALS}\n")
