"""The page of larger examples: its packages install, train and keep their promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small_packages import install, write

import coview
from coview.cli.new.scaffold import plugin_files
from coview.testing import ConformanceError

Run = Callable[..., Any]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "authors" / "larger.md"
FILE = re.compile(r"^`([\w./-]+)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAST = re.compile(r"text tower included:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"mixes": "wrapper", "captions": "encoder"}
CHECKED = (
    *("loads", "resolves", "reads-back", "documents-its-settings", "builds"),
    *("gives-a-loss-with-gradient", "descends", "draws-from-the-step-alone", "sees-no-labels"),
    *("reads-memory-before-writing", "never-waits-for-the-device", "goes-on-exactly"),
    *("accumulates", "exports"),
)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both packages: what `coview new` writes, with the page's files laid over."""
    shown = dict(FILE.findall(PAGE.read_text(encoding="utf-8")))
    for name, kind in KINDS.items():
        module = f"coview_{name}"
        mine = {
            place: text
            for place, text in shown.items()
            if module in place or place == f"tests/test_{kind}.py"
        }
        assert f"src/{module}/{kind}.py" in mine and f"tests/test_{kind}.py" in mine
        write(tmp_path / name, {**plugin_files(name, kind), **mine})
        shown = {place: text for place, text in shown.items() if place not in mine}
        name_the_class(tmp_path / name, f"{module}.{kind}:")
        install(tmp_path / name, name, monkeypatch)
    assert not shown  # every file of the page was used
    return tmp_path


def name_the_class(folder: Path, begins: str) -> None:
    """Change the entry point to the page's class, as the page says to."""
    path = folder / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    (said,) = re.findall(rf'"{begins}(\w+)"', PAGE.read_text(encoding="utf-8"))
    changed, count = re.subn(rf'"{begins}\w+"', f'"{begins}{said}"', text)
    assert count == 1
    path.write_text(changed, encoding="utf-8")


def own_tests(packages: Path, name: str) -> ModuleType:
    module = ModuleType(f"own_tests_{name}")
    code = (packages / name / "tests" / f"test_{KINDS[name]}.py").read_text(encoding="utf-8")
    exec(compile(code, name, "exec"), vars(module))
    return module


def test_the_wrappers_own_tests(packages: Path) -> None:
    tests = own_tests(packages, "mixes")
    for rows in (None, 5):
        tests.test_mixtures_are_of_the_hardest(rows)
    tests.test_the_querys_own_image_is_in_no_mixture_that_counts()


def test_the_wrappers_test_finds_mixtures_of_all_negatives(packages: Path) -> None:
    path = packages / "mixes" / "src" / "coview_mixes" / "wrapper.py"
    text = path.read_text(encoding="utf-8")
    right = "min(self.settings.hardest, cosines.shape[1])"
    assert text.count(right) == 1
    path.write_text(text.replace(right, "cosines.shape[1] - 1"), encoding="utf-8")
    with pytest.raises(AssertionError):
        own_tests(packages, "mixes").test_mixtures_are_of_the_hardest(None)


@pytest.mark.slow
def test_the_wrapper_on_two_processes(packages: Path) -> None:
    own_tests(packages, "mixes").test_two_processes_equal_one()


@pytest.mark.slow
def test_mixtures_without_the_draw_for_all_processes_are_found(packages: Path) -> None:
    """The wrapper's part of a draw is its own; a draw for its rows alone is another."""
    path = packages / "mixes" / "src" / "coview_mixes" / "wrapper.py"
    text = path.read_text(encoding="utf-8")
    changes = {"rows * world_size()": "rows", "rank() * rows : (rank() + 1) * rows": ":"}
    for right, wrong in changes.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConformanceError, match="differs from a single process's"):
        own_tests(packages, "mixes").test_two_processes_equal_one()


def test_the_encoders_own_tests(packages: Path) -> None:
    tests = own_tests(packages, "captions")
    tests.test_both_towers_are_trained()
    tests.test_a_caption_is_the_mean_of_its_words()


@pytest.mark.parametrize("name", KINDS)
def test_promises(packages: Path, run: Run, name: str) -> None:
    only = [word for promise in CHECKED for word in ("--only", promise)]
    found = run("check", name, *only, "--json").json
    assert found["ok"] == len(CHECKED) and found["failed"] == found["skipped"] == 0
    (said,) = (r["sentence"] for r in found["results"] if r["promise"] == "accumulates")
    assert f"`accumulates: {said}`" in PAGE.read_text(encoding="utf-8")


def test_with_a_queue_micro_batches_differ_by_their_draws(packages: Path, run: Run) -> None:
    queue = ("--use", "negatives=queue", "--set", "negatives.size=32", "--use", "target=momentum")
    found = run("check", "mixes", *queue, "--only", "accumulates", "--json").json
    (result,) = found["results"]
    assert result["status"] == "ok"
    assert f"`{result['sentence']}`" in PAGE.read_text(encoding="utf-8")


def test_hard_negatives_of_each_query_with_small_crops(packages: Path, run: Run) -> None:
    crops = ("--set", "views.size=[32, 18]", "--set", "views.count=[2, 2]")
    crops = ("--use", "views=multi-crop", *crops, "--set", "wrap.mixes=5")
    options = ("--data", "digits", "--backbone", "resnet10-quarter", "--batch-size", 8)
    options = (*options, "--max-steps", 1, "--no-evaluate", "--out", "r", "--device", "cpu")
    run("train", "mixes", *options, *crops, "--use", "target=momentum")


def test_the_text_tower_after_training(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packages)
    (code,) = LAST.findall(PAGE.read_text(encoding="utf-8"))
    scope: dict[str, Any] = {}
    exec(compile(code, "larger.md", "exec"), scope)
    right = [a == b for a, b in zip(scope["found"], scope["names"], strict=True)]
    assert sum(right) > 90
    trained = scope["run"].method.encoder.state_dict()
    loaded = coview.load_encoder("run")
    assert not loaded.training
    assert all(torch.equal(value, trained[key].cpu()) for key, value in loaded.state_dict().items())
    (packages / "run" / "checkpoints" / "last.pt").unlink()
    with pytest.raises(coview.RequestError, match="no checkpoint"):
        coview.load_encoder("run")
