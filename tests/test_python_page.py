"""docs/python.md: its examples run as they stand there, each run shortened to two steps."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import coview

PAGE = Path(__file__).resolve().parent.parent / "docs" / "python.md"
SECTIONS = dict(
    re.findall(
        r"^## ([^\n]*)\n\n```python\n(.*?)```\n", PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run sections of the page one after the other; return what the last of them prints."""
    short = partial(coview.train, max_steps=2, device="cpu", progress=False)
    monkeypatch.setattr(coview, "train", short)
    monkeypatch.setattr(coview.api, "train", short)  # what coview.Embedder calls
    names: dict[str, Any] = {"coview": coview}

    def run(*titles: str) -> tuple[str, dict[str, Any]]:
        for title in titles:
            capsys.readouterr()
            exec(compile(SECTIONS[title], title, "exec"), names)
        return capsys.readouterr().out, names

    return run


def test_the_page_has_an_example_for_each() -> None:
    assert list(SECTIONS) == [
        *("Train", "Evaluate", "Embed, search and export", "Look at the views"),
        *("A data set of your own", "A network of your own", "A transform of your own"),
        "In scikit-learn",
    ]


def test_a_run_is_trained_measured_embedded_and_exported(said: Any) -> None:
    out, _ = said("Train")
    assert "simclr (preset tiny) on digits: 1438 images, 359 to test on" in out
    assert "'knn_top1': " in out
    out, names = said("Evaluate")
    assert out.startswith(f"kNN top-1 {100 * names['result']['top1']:.1f} %")
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["knn", "knn", "linear"]
    out, names = said("Embed, search and export")
    assert out.splitlines()[0] == "(1797, 128) (1797,)"
    assert out.splitlines()[1].startswith("[0 ")  # an image is most like itself
    assert Path("digits.npz").is_file() and names["backbone"].width == 128


def test_views_are_drawn(said: Any) -> None:
    assert said("Look at the views")[0] == "8 images and 4 views of each in views.png\n"
    assert Path("views.png").is_file()


def test_a_data_set_of_ones_own(said: Any) -> None:
    out, names = said("A data set of your own")
    assert "1438 training and 359 test images" in out and len(names["run"].data.train) == 1438


def test_a_network_of_ones_own(said: Any) -> None:
    _, names = said("A network of your own")
    assert names["backbone"].width == 64


def test_a_transform_of_ones_own(said: Any) -> None:
    _, names = said("A transform of your own")
    assert names["run"].step == 2


def test_a_pipeline_scores(said: Any) -> None:
    out, names = said("A data set of your own", "In scikit-learn")
    assert float(out) > 0.5 and names["pipeline"][0].n_features_out_ == 128
