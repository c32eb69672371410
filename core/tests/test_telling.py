"""Long work says how far it is, to those who listen."""

import itertools
import time

import pytest
import torch
from torch import Tensor

from coview import telling
from coview.data.base import DataSettings, Split
from coview.data.sources import open_source
from coview.evaluation.embeddings import embed
from coview.evaluation.features import features
from coview.evaluation.knn import evaluate_knn
from coview.evaluation.linear import evaluate_linear
from coview.evaluation.svm import evaluate_svm
from coview.optim.protocols import SupportVectors
from coview.telling import listening, progress, spoken, waiting


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


def test_each_half_of_the_data_is_named(clock: None) -> None:
    """Of 240 training and 60 test images, neither may be taken for all of them."""
    images = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(300) % 2
    data = open_source((images, labels)).load(DataSettings())
    told: dict[str, list[str]] = {}
    for name, work in {
        "knn": lambda: evaluate_knn(halves, data, k=5, batch_size=10),
        "embed": lambda: embed(halves, data, batch_size=10),
        "svm": lambda: evaluate_svm(halves, data, SupportVectors(source="a test"), batch_size=10),
        "linear": lambda: evaluate_linear(halves, data, epochs=1, batch_size=10),
    }.items():
        with listening(told.setdefault(name, []).append):
            work()
    for name, lines in told.items():
        embedded = [line for line in lines if "embedded" in line]
        assert embedded, name
        for line in embedded:
            assert line.startswith(("training images embedded", "test images embedded")), line
            assert line.endswith("of 240" if line.startswith("training") else "of 60"), line
        assert len({line.split()[0] for line in embedded}) == 2, name


def test_what_else_is_said_begins_the_silence_anew(clock: None) -> None:
    told: list[str] = []
    with listening(told.append):
        for step in range(1, 10):
            spoken()
            progress("steps", step, 10)
    assert not told


def test_work_that_cannot_say_how_far_it_is_gives_signs_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "BEAT", 0.05)
    told: list[str] = []
    with waiting(told.append, "preparing"):
        time.sleep(0.5)
    count = len(told)
    assert 2 <= count <= 10
    assert told[0] == "preparing: 0 s so far"
    time.sleep(0.2)
    assert len(told) == count, "it has ended"
    with pytest.raises(ZeroDivisionError), waiting(told.append, "preparing"):
        raise ZeroDivisionError
    monkeypatch.setattr(telling, "BEAT", 60.0)
    with waiting(told.append, "preparing"):
        pass
    assert len(told) == count


def test_one_who_stops_listening_hears_nothing(clock: None) -> None:
    inner: list[str] = []
    outer: list[str] = []
    with listening(outer.append):
        with listening(inner.append):
            progress("steps", 1, 2)
        for _ in range(6):
            progress("steps", 1, 2)
    assert not inner and outer
