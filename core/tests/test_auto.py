"""What ``auto`` chose belongs to the run: a resumed one has it again, or says that it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coview.errors import RequestError
from coview.nn import compile as compiling
from coview.recipes.configure import Changes
from coview.training import device, request
from coview.training.loop import save
from coview.training.request import Request
from coview.training.run import Run
from coview.training.start import start

IMAGES = np.random.RandomState(0).randint(0, 256, (48, 16, 16, 3), np.uint8)


def begun(out: Path) -> None:
    """Start a run, and save it before its first step."""
    changes = Changes(backbone="resnet10-quarter", batch_size=16)
    run = start(Request(method="simclr", data=IMAGES, changes=changes, out=out))
    save(run)
    run.hold.close()


def again(out: Path, **settings: Any) -> Run:
    run = start(Request(data=IMAGES, resume=out, settings=settings))
    run.hold.close()
    return run


def test_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = device.pick_precision

    def elsewhere(text: str, place: Any) -> str:
        return real("bf16" if text == "auto" else text, place)

    with monkeypatch.context() as patch:
        patch.setattr(request, "pick_precision", elsewhere)
        begun(tmp_path / "r")
    assert again(tmp_path / "r").settings.precision == "bf16"
    with pytest.raises(RequestError, match="precision differs from the saved run"):
        again(tmp_path / "r", precision="auto")  # asked for anew, it is fp32 here


def test_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    monkeypatch.setattr(compiling, "LONG_RUN", 1)
    begun(tmp_path / "r")
    monkeypatch.setattr(compiling, "LONG_RUN", 10**9)
    assert again(tmp_path / "r").settings.compile == "views"
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    with pytest.raises(RequestError, match=r"This run, whose views are compiled, needs a C\+\+"):
        again(tmp_path / "r")


def test_preset(tmp_path: Path) -> None:
    begun(tmp_path / "r")
    chosen = json.loads((tmp_path / "r" / "run.json").read_text())["settings"]["preset"]
    run = again(tmp_path / "r")
    assert chosen not in ("none", "auto") and run.settings.preset == chosen
    assert run.changed == {}
