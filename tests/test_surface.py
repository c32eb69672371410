"""What version 0.1 promised is still there, and a run that it left goes on and loads."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import surface
import torch

import coview

DATA = Path(__file__).parent / "data"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def then() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(surface.KEPT.read_text(encoding="utf-8"))
    return known


def missing(then: Any, now: Any, place: str = "") -> list[str]:
    """Return what of the keys then is not there now."""
    if isinstance(then, dict):
        found = []
        for key, value in then.items():
            here = f"{place} {key}".strip()
            there = isinstance(now, dict) and key in now
            found += missing(value, now[key], here) if there else [here]
        return found
    if isinstance(then, list) and then and isinstance(then[0], dict):
        return missing(then[0], now[0] if now else None, place)
    if isinstance(then, list):
        return [f"{place} {item}" for item in then if not isinstance(now, list) or item not in now]
    return []


def narrowed(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names that are gone, or that a call of then would not fit now."""
    wrong = []
    for name, before in then.items():
        if name not in now:
            wrong.append(f"{name} is gone")
            continue
        after = {p[0]: p for p in now[name] or ()}
        for parameter, kind, optional in before or ():
            found = after.pop(parameter, None)
            if found is None or found[1] != kind or (optional and not found[2]):
                wrong.append(f"{name}({parameter})")
        wrong += [
            f"{name}({p}) is new and required" for p, _, optional in after.values() if not optional
        ]
    return wrong


def test_names_at_the_top(then: dict[str, Any]) -> None:
    assert narrowed(then["top"], surface.names_at_the_top()) == []


def test_the_toolkit_of_plugins(then: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of places that have moved
        now = surface.toolkit(list(then["toolkit"]))
    assert narrowed(then["toolkit"], now) == []


def test_options(then: dict[str, Any]) -> None:
    now = surface.options()
    assert missing(then["options"], now) == []
    for command, parameters in then["options"].items():
        for name, facts in parameters.items():
            found = now[command][name]
            assert (found["multiple"], found["flag"]) == (facts["multiple"], facts["flag"]), name
            assert facts["required"] or not found["required"], f"{command} {name}"


def test_documents_and_files(then: dict[str, Any]) -> None:
    assert missing(then["documents"], surface.documents()) == []


def test_the_comparison_sees_a_difference(then: dict[str, Any]) -> None:
    now = json.loads(json.dumps(then))
    del now["options"]["coview train"]["seed"]
    now["options"]["coview train"]["data"]["written"] = ["--from"]
    assert missing(then["options"], now["options"]) == [
        "coview train data written --data",
        "coview train seed",
    ]
    now["top"]["train"].append(["new", "KEYWORD_ONLY", False])
    del now["top"]["Step"]
    assert set(narrowed(then["top"], now["top"])) == {
        "Step is gone",
        "train(new) is new and required",
    }


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "run-0.1", tmp_path / "run"))


def test_a_run_of_version_0_1_goes_on(kept: Path, run: Run) -> None:
    run("train", "--resume", kept, "--max-steps", 6, "--log-every", 1)
    whole = json.loads((DATA / "run-0.1-whole.json").read_text())["metrics"]
    lines = (kept / "metrics.jsonl").read_text().splitlines()
    mine = [json.loads(line) for line in lines]
    # Another number of threads rounds otherwise, and each step hands that on.
    for name, exactly in (("loss", 1e-3), ("grad_norm", 3e-2), ("lr", 1e-9)):
        expected = [row[name] for row in whole if name in row]
        found = [row[name] for row in mine if name in row]
        assert found == pytest.approx(expected, rel=exactly), name
    probe = next(row["online_probe_top1"] for row in whole if "online_probe_top1" in row)
    assert mine[-2]["online_probe_top1"] == pytest.approx(probe, abs=0.02)
    assert mine[-1]["knn"]["train_images"] == 1438


def test_weights_of_version_0_1_load(kept: Path) -> None:
    network = coview.load_backbone(kept)
    features = network(torch.full((2, 1, 32, 32), 0.5))
    assert features.shape == (2, 128)
    assert torch.isfinite(features).all()
    assert network.meta["method"] == "moco-v2"
