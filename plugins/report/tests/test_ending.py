"""A run that is trained where this package is installed has its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_a_run_ends_with_its_page(
    photographs: Path,
    tmp_path: Path,
    coview_command: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("coview_simclr")
    monkeypatch.delenv("COVIEW_NO_REPORT")
    words = ("train", "simclr", "--data", photographs, "--image-size", 24, "--batch-size", 16)
    words += ("--backbone", "resnet10-quarter", "--max-steps", 1, "--device", "cpu")
    answer = coview_command(*words, "--out", tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    assert f"report: {page}" in answer.stderr
    text = page.read_text(encoding="utf-8")
    assert 'id="map"' in text and 'id="neighbours"' in text and 'id="views"' in text
    assert "<dt>state</dt><dd>finished</dd>" in text
