"""Long work says how far it is, to those who listen."""

import itertools

import pytest
import torch
from torch import Tensor

from coview import telling
from coview.data.base import Split
from coview.evaluation.features import features
from coview.telling import listening, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two seconds pass between any two looks at the clock."""
    monkeypatch.setattr(telling.time, "monotonic", itertools.count(0, 2).__next__)


def halves(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :2]


def test_a_line_every_five_seconds_at_most(clock: None) -> None:
    told: list[str] = []
    with listening(told.append):
        for done in range(1, 10):
            progress("images embedded", 1000 * done, 12_000)
    assert told == [f"images embedded: {done},000 of 12,000" for done in (3, 6, 9)]


def test_embedding_tells_and_nobody_has_to_listen(clock: None) -> None:
    split = Split(torch.zeros(80, 1, 8, 8, dtype=torch.uint8), None)
    told: list[str] = []
    with listening(told.append):
        rows = features(halves, split, batch_size=10)
    assert told == ["images embedded: 30 of 80", "images embedded: 60 of 80"]
    assert torch.equal(rows, features(halves, split, batch_size=10)) and len(told) == 2


def test_one_who_stops_listening_hears_nothing(clock: None) -> None:
    inner: list[str] = []
    outer: list[str] = []
    with listening(outer.append):
        with listening(inner.append):
            progress("steps", 1, 2)
        for _ in range(6):
            progress("steps", 1, 2)
    assert not inner and outer
