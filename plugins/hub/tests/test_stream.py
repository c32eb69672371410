"""Streams: the same images as a table has, in a window, and on from any place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from coview import CoviewError, RequestError
from coview.data.base import DataSettings
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview_hub.stream import LOOKED_AT, Stream

COUNT, SIDE, WITHIN = 60, 24, 8


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give every test a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "data"))
    torch.set_num_threads(1)


def picture(number: int) -> Image.Image:
    values = np.random.RandomState(number).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three Parquet files of twenty images each, in groups of six rows."""
    place = tmp_path / "birds"
    place.mkdir()
    for shard in range(3):
        numbers = range(20 * shard, 20 * shard + 20)
        made = datasets.Dataset.from_dict(
            {"photo": [picture(n) for n in numbers], "kind": [n % 3 for n in numbers]}
        ).cast_column("photo", datasets.Image())
        made.to_parquet(place / f"train-{shard:05d}-of-00003.parquet", batch_size=6)
    return place


def text(folder: Path, within: int = WITHIN, count: int = COUNT) -> str:
    return f"hf:{folder},stream={within},count={count}"


def loaded(name: str, **settings: Any) -> Any:
    return open_source(name).load(DataSettings(**settings))


def pixels(number: int) -> np.ndarray[Any, Any]:
    return np.asarray(picture(number)).transpose(2, 0, 1)


class Counted:
    """A stream of the library that counts what is taken from it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.taken = stream, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Iterator[Any]:
        for value in self.stream:
            self.taken += 1
            yield value


def counted(split: Any) -> tuple[Stream, Counted]:
    table = split.images.table
    table._next = 0  # nothing has been read yet
    table._rows.clear()
    table._source = source = Counted(table._source)
    return table, source


@pytest.mark.parametrize("seed", range(3))
def test_an_epoch_shows_every_image_once_and_reads_once(folder: Path, seed: int) -> None:
    data = loaded(text(folder), fit="square")
    table, source = counted(data.train)
    batches = Batches(data.train, 6, seed, "cpu")
    for epoch in range(2):
        source.taken, seen = 0, []
        for batch in batches.epoch(epoch):
            for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                assert np.array_equal(image.numpy(), pixels(index))
                seen.append(index)
            assert len(table._rows) <= WITHIN + 1
        assert sorted(seen) == list(range(COUNT)) and seen != sorted(seen)
        assert source.taken == COUNT
    assert not torch.equal(batches.indices(0, 0), batches.indices(1, 0))


@pytest.mark.parametrize("place", [1, 5, 9])
@pytest.mark.parametrize("noted", [True, False])
def test_a_run_that_goes_on_sees_the_same_images(folder: Path, place: int, noted: bool) -> None:
    name = text(folder)
    whole = list(Batches(loaded(name, fit="square").train, 6, 4, "cpu").epoch(0))
    if not noted:
        shutil.rmtree(os.environ["COVIEW_DATA"])
    data = loaded(name, fit="square")  # as another process would
    _, source = counted(data.train)
    rest = list(Batches(data.train, 6, 4, "cpu").epoch(0, place))
    assert len(rest) == 10 - place
    for one, other in zip(whole[place:], rest, strict=True):
        assert torch.equal(one.indices, other.indices) and torch.equal(one.images, other.images)
    # Without notes all is read again, but for the images that the fingerprint is of.
    if place == 9:
        assert (source.taken < COUNT - LOOKED_AT) is noted


def test_processes_share_a_stream(folder: Path) -> None:
    parts = [
        list(Batches(loaded(text(folder), fit="square").train, 6, 4, "cpu", 0, rank, 2).epoch(0))
        for rank in range(2)
    ]
    whole = Batches(loaded(text(folder), fit="square").train, 6, 4, "cpu").epoch(0)
    for one, *own in zip(whole, *parts, strict=True):
        assert torch.equal(one.images, torch.cat([part.images for part in own]))


def test_crops_are_cut_from_whole_images(folder: Path) -> None:
    data = loaded(text(folder), size=12, fit="whole")
    assert data.fit == "whole" and data.train.whole is not None
    for batch in Batches(data.train, 6, 0, "cpu", whole=True).epoch(0):
        for at, index in zip(batch.extents.tolist(), batch.indices.tolist(), strict=True):
            start, high, wide = at
            image = batch.images[start : start + high * wide].view(high, wide, 3)
            assert np.array_equal(image.numpy(), np.asarray(picture(index)))


def test_the_fingerprint_is_of_the_name_the_length_and_the_first_images(folder: Path) -> None:
    first, again, shorter = (
        loaded(text(folder, count=count)).fingerprint for count in (COUNT, COUNT, COUNT - 10)
    )
    assert first == again != shorter
    changed = datasets.Dataset.from_dict(
        {"photo": [picture(n + 1) for n in range(20)], "kind": [0] * 20}
    )
    changed.cast_column("photo", datasets.Image()).to_parquet(
        folder / "train-00000-of-00003.parquet"
    )
    assert loaded(text(folder)).fingerprint != first


def test_what_is_wrong_is_a_sentence(folder: Path) -> None:
    with pytest.raises(RequestError, match="does not say how many images it has"):
        open_source(f"hf:{folder},stream=8")
    with pytest.raises(RequestError, match="stream= takes a number of images, not 'yes'"):
        open_source(f"hf:{folder},stream=yes")
    with pytest.raises(RequestError, match="leave out label="):
        open_source(f"hf:{folder},stream=8,label=kind")
    data = loaded(text(folder, count=70), fit="square")
    with pytest.raises(CoviewError, match="ended after 60 images: write count=60"):
        list(Batches(data.train, 7, 0, "cpu").epoch(0))
    with pytest.raises(CoviewError, match="leave out --workers"):
        list(Batches(loaded(text(folder), fit="square").train, 6, 0, "cpu", 2).epoch(0))
    datasets.load_dataset(str(folder)).save_to_disk(folder / "saved")
    with pytest.raises(RequestError, match="is memory-mapped: leave out stream="):
        open_source(f"hf:{folder / 'saved'},stream=8")


def test_a_bad_image_is_no_end_of_the_stream(folder: Path) -> None:
    whole = datasets.load_dataset(str(folder), split="train").cast_column(
        "photo", datasets.Image(decode=False)
    )
    cells = whole[:]["photo"]
    cells[30] = {"bytes": b"no image", "path": None}
    shutil.rmtree(folder)
    folder.mkdir()
    datasets.Dataset.from_dict({"photo": cells}).cast_column("photo", datasets.Image()).to_parquet(
        folder / "train.parquet"
    )
    data = loaded(text(folder), fit="square")
    seen = [batch.images for batch in Batches(data.train, 6, 0, "cpu").epoch(0)]
    assert len(seen) == 10 and list(data.train.bad.faults) == [30]


@pytest.mark.slow
def test_a_run_on_a_stream_goes_on_to_the_same_end(folder: Path, tmp_path: Path) -> None:
    options = ("simclr", "--data", text(folder), "--backbone", "resnet10-quarter")
    short = ("--batch-size", "12", "--epochs", "3", "--no-compile", "--no-evaluate")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "coview", "train", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr

    run(*options, *short, "--out", str(tmp_path / "whole"))
    run(*options, *short, "--out", str(tmp_path / "parts"), "--max-steps", "8")
    shutil.rmtree(tmp_path / "data" / "streams")
    run("--resume", str(tmp_path / "parts"), "--max-steps", "none")
    whole, parts = ((tmp_path / name / "backbone.safetensors") for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
