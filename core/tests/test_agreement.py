"""Processes of one run that were given different things are refused before the first step."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coview
from coview.errors import RequestError
from coview.recipes.configure import Changes
from coview.training import agreement
from coview.training.agreement import unequal
from coview.training.request import Request
from coview.training.start import start

IMAGES = np.random.RandomState(0).randint(0, 256, (48, 16, 16, 3), np.uint8)


def request(images: Any = IMAGES, **given: Any) -> Request:
    settings = {"device": "cpu", "seed": 0, **given.pop("settings", {})}
    changes = Changes(backbone="resnet10-quarter", batch_size=16, **given)
    return Request(method="simclr", data=images, changes=changes, settings=settings)


def test_what_differs_is_named_with_both_values() -> None:
    assert unequal([{"seed": "1"}, {"seed": "1"}]) == []
    (sentence,) = unequal([{"seed": "1"}, {"seed": "1"}, {"seed": "2"}])
    assert sentence == (
        "seed must be the same for all processes of a run, but is 1 in process 0 and 2 in "
        "process 2."
    )
    assert "is missing in process 0 and 3 in process 1" in unequal([{}, {"loss.x": "3"}])[0]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (request(settings={"seed": 3}), "seed"),
        (request(set={"optimizer.lr": 0.5}), "optimizer.lr"),
        (request(IMAGES[::-1].copy()), "data"),
        (request(settings={"max_steps": 5}), "max_steps"),
        (request(settings={"evaluate": False}), "evaluate"),
    ],
)
def test_another_request_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Request, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(agreement, "active", lambda: True)
    seen: list[Any] = []

    def gather(facts: Any) -> list[Any]:
        seen.append(facts)
        return [*seen]

    monkeypatch.setattr(agreement, "everyones", gather)
    start(request())
    with pytest.raises(RequestError) as refused:
        start(other)
    assert [problem.split()[0] for problem in refused.value.problems] == [named]
    seen.clear()
    start(request())
    start(request(settings={"workers": 1, "observe": ("csv",)}))  # a machine's own business


def test_other_code_of_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "active", lambda: True)
    facts: list[Any] = []
    monkeypatch.setattr(agreement, "everyones", lambda own: facts.append(own) or [own])
    monkeypatch.chdir(tmp_path)
    start(request())
    package = tmp_path / "coview"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(coview, "__file__", str(package / "__init__.py"))
    start(request())
    (package / "more.py").write_text("x = 1")
    start(request())
    assert [problem.split()[0] for problem in unequal(facts)] == ["code"]
    assert len({those["code"] for those in facts}) == 3
    assert f"version of {agreement.LIBRARIES[0]}" in facts[0]


@pytest.mark.slow
def test_two_processes_with_seeds_of_their_own(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = ["train", "simclr", "--data", "digits", "--backbone", "resnet10-quarter"]
    words += ["--batch-size", "32", "--device", "cpu", "--out", str(tmp_path / "r")]
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "coview", *words, "--seed", str(rank)],
            env={**os.environ, **meet, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in both:
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == 2
        assert "Error: seed must be the same for all processes of a run, but is 0 in" in stderr
    assert not (tmp_path / "r" / "run.json").exists()
