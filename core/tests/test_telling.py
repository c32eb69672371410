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


def test_a_line_every_three_seconds_at_most(clock: None) -> None:
    told: list[str] = []
    with listening(told.append):
        for done in range(1, 10):
            progress("images embedded", 1000 * done, 12_000)
    assert told == [f"images embedded: {done},000 of 12,000" for done in (2, 4, 6, 8)]


def test_embedding_tells_and_nobody_has_to_listen(clock: None) -> None:
    split = Split(torch.zeros(80, 1, 8, 8, dtype=torch.uint8), None)
    told: list[str] = []
    with listening(told.append):
        rows = features(halves, split, batch_size=10)
    assert told == [f"images embedded: {done} of 80" for done in (20, 40, 60, 80)]
    assert torch.equal(rows, features(halves, split, batch_size=10)) and len(told) == 4


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
    monkeypatch.setattr(telling, "SILENCE", 0.05)
    told: list[str] = []
    with waiting(told.append, "preparing"):
        time.sleep(0.5)
    count = len(told)
    assert 2 <= count <= 12
    assert told[0] == "preparing: 0 s so far"
    time.sleep(0.2)
    assert len(told) == count, "it has ended"
    with pytest.raises(ZeroDivisionError), waiting(told.append, "preparing"):
        raise ZeroDivisionError
    count = len(told)
    monkeypatch.setattr(telling, "SILENCE", 60.0)
    with waiting(told.append, "preparing"):
        time.sleep(0.1)
    assert len(told) == count


def test_one_silence_is_measured_over_all_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pieces of work, each shorter than the pause, are not silent for the time of both."""
    monkeypatch.setattr(telling, "SILENCE", 1.0)
    told: list[str] = []
    spoken()
    with waiting(told.append, "first"):
        time.sleep(0.6)
    with waiting(told.append, "second"):
        time.sleep(0.6)
    assert told == ["second: 0 s so far"]
    # What can say how far it is leaves nothing to add.
    monkeypatch.setattr(telling, "PAUSE", 0.0)
    told.clear()
    with waiting(told.append, "third"), listening(told.append):
        for step in range(12):
            time.sleep(0.1)
            progress("steps", step, 12)
    assert told and not [line for line in told if line.startswith("third")]


def test_the_rest_of_the_work_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    told: list[str] = []
    with listening(told.append):
        now[0] += 10
        progress("images read", 1000, 5000, since=100.0)
    assert told == ["images read: 1,000 of 5,000, about 40 s to go"]


def test_one_who_stops_listening_hears_nothing(clock: None) -> None:
    inner: list[str] = []
    outer: list[str] = []
    with listening(outer.append):
        with listening(inner.append):
            progress("steps", 1, 2)
        for _ in range(6):
            progress("steps", 1, 2)
    assert not inner and outer
