"""Data sets as ``datasets`` itself writes them, and what becomes of them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
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
from coview.data.sources import open_source, parse_source
from coview_hub.opening import Asked
from coview_hub.source import Hub

SIDE = 24
KINDS = ("ant", "bee", "cow")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give every test a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    torch.set_num_threads(1)


def picture(number: int) -> Image.Image:
    values = np.random.RandomState(number).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
    return Image.fromarray(values)


def table(first: int = 0, count: int = 40, **more: Any) -> datasets.Dataset:
    """Return a table of pictures, one of three classes each."""
    columns = {
        "photo": [picture(number) for number in range(first, first + count)],
        "kind": [number % 3 for number in range(first, first + count)],
        "caption": [f"number {number}" for number in range(first, first + count)],
        "weight": [number / 2 for number in range(first, first + count)],
        **more,
    }
    known = {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=list(KINDS))}
    made = datasets.Dataset.from_dict(columns)
    for name, feature in known.items():
        made = made.cast_column(name, feature)
    return made


def parquet(folder: Path, **splits: datasets.Dataset) -> Path:
    """Write a Parquet file for each split, as those of the Hub are called."""
    (folder / "data").mkdir(parents=True)
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


def loaded(text: str, **settings: Any) -> Any:
    return open_source(text).load(DataSettings(**settings))


def test_a_folder_of_parquet_is_read_to_the_bit(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "birds", train=table(), test=table(40, 12))
    data = loaded(f"hf:{folder}")
    assert (len(data.train), len(data.test), data.size, data.channels) == (40, 12, SIDE, 3)
    assert data.classes == KINDS
    for split, first in ((data.train, 0), (data.test, 40)):
        for row in range(len(split)):
            expected = np.asarray(picture(first + row)).transpose(2, 0, 1)
            assert np.array_equal(split.images[row].numpy(), expected)
            assert split.labels[row] == (first + row) % 3
            assert split.fields["caption"][row] == f"number {first + row}"
        assert torch.equal(split.fields["weight"], torch.arange(first, first + len(split)) / 2)
    assert data.notes[0] == (
        "Splits: train and test. Images are in the column 'photo', labels in 'kind'; fields: "
        "caption, weight."
    )
    assert data.summary["labels"] == {"ant": 18, "bee": 17, "cow": 17}


def test_every_way_of_storing_a_set_gives_the_same_data(tmp_path: Path) -> None:
    whole = table()
    folder = parquet(tmp_path / "folder", train=whole)
    whole.to_parquet(tmp_path / "one.parquet")
    datasets.DatasetDict(train=whole).save_to_disk(tmp_path / "saved")
    whole.save_to_disk(tmp_path / "single")
    shuffled = whole.select(range(39, -1, -1)).select(range(39, -1, -1))  # kept as a list of rows
    shuffled.save_to_disk(tmp_path / "indirect")
    places = [folder, *(tmp_path / n for n in ("one.parquet", "saved", "single", "indirect"))]
    found = [loaded(f"hf:{place}") for place in places]
    assert len({data.fingerprint for data in found}) == 1
    for data in found[1:]:
        assert torch.equal(data.train.images, found[0].train.images)
        assert torch.equal(data.train.labels, found[0].train.labels)
    other = loaded(f"hf:{parquet(tmp_path / 'other', train=table(1))}")
    assert other.fingerprint != found[0].fingerprint


def test_an_image_folder_with_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for split, first in (("train", 0), ("test", 9)):
        (folder / split).mkdir(parents=True)
        lines = []
        for number in range(first, first + 9):
            picture(number).save(folder / split / f"{number}.png")
            lines.append(
                json.dumps({"file_name": f"{number}.png", "label": KINDS[number % 3], "n": number})
            )
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    data = loaded(f"hf:{folder}")
    assert data.classes == KINDS and (len(data.train), len(data.test)) == (9, 9)
    numbers = [int(Path(name).stem) for name in data.train.names]
    assert sorted(numbers) == list(range(9))
    for row, number in enumerate(numbers):
        expected = np.asarray(picture(number)).transpose(2, 0, 1)
        assert np.array_equal(data.train.images[row].numpy(), expected)
        assert data.train.labels[row] == number % 3
    assert data.train.fields["n"].tolist() == numbers
    assert data.train.names[0].startswith(f"train{os.sep}")


def test_a_share_is_held_out_and_fields_go_with_their_images(tmp_path: Path) -> None:
    data = loaded(f"hf:{parquet(tmp_path / 'birds', train=table())}")
    assert (len(data.train), len(data.test)) == (32, 8)
    for split in (data.train, data.test):
        for row, original in enumerate(split.rows.tolist()):
            assert split.fields["caption"][row] == f"number {original}"
            assert split.fields["weight"][row] == original / 2
    batch = next(iter(Batches(data.train, 8, 0, "cpu", fields=("caption", "weight")).epoch(0)))
    captions = [f"number {data.train.rows[row]}" for row in batch.indices.tolist()]
    assert batch.fields["caption"] == captions


def test_splits_can_be_named_and_sliced(tmp_path: Path) -> None:
    sets = {"first": table(), "second": table(40, 12), "third": table(60, 6)}
    folder = parquet(tmp_path / "birds", **sets)
    with pytest.raises(RequestError, match=r"none of which is called train.*@first"):
        loaded(f"hf:{folder}")
    data = loaded(f"hf:{folder}@first[:50%],test=second")
    assert (len(data.train), len(data.test)) == (20, 12)
    assert len(loaded(f"hf:{folder}@first+third").train) + 9 == 46
    with pytest.raises(RequestError, match="fourth"):
        loaded(f"hf:{folder}@fourth")


def test_columns_can_be_named(tmp_path: Path) -> None:
    more = {"side": [1, 2] * 20, "mask": [picture(number + 100) for number in range(40)]}
    folder = parquet(tmp_path / "birds", train=table(**more))
    data = loaded(f"hf:{folder},image=mask,label=side")
    assert data.classes == ("1", "2")
    row = int(data.train.rows[0])
    assert np.array_equal(data.train.images[0].numpy().transpose(1, 2, 0), picture(row + 100))
    assert np.array_equal(np.asarray(data.train.fields["photo"][0]), np.asarray(picture(row)))
    assert loaded(f"hf:{folder},label=none").train.labels is None
    with pytest.raises(RequestError, match="Did you mean 'mask'"):
        loaded(f"hf:{folder},image=masks")
    with pytest.raises(RequestError, match="does not hold images"):
        loaded(f"hf:{folder},image=weight")
    with pytest.raises(RequestError, match="no column of images"):
        text = table().select_columns(["caption", "weight"])
        loaded(f"hf:{parquet(tmp_path / 'text', train=text)}")
    with pytest.raises(RequestError, match="no option of hf: called 'images'"):
        loaded(f"hf:{folder},images=photo")


def test_bytes_without_a_type_are_images_if_their_column_is_called_so(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    contents = []
    for number in range(12):
        file = io.BytesIO()
        picture(number).save(file, "PNG")
        contents.append(file.getvalue())
    made = pa.table({"image": contents, "label": ["a", "b"] * 6})
    pyarrow.parquet.write_table(made, tmp_path / "plain.parquet")
    data = loaded(f"hf:{tmp_path}/plain.parquet", holdout=0)
    assert data.classes == ("a", "b")
    assert np.array_equal(data.train.images[3].numpy().transpose(1, 2, 0), picture(3))


def test_several_classes_per_image_and_labels_that_are_kept_secret(tmp_path: Path) -> None:
    tags = [[0, 1], [1], [], [2, 0]] * 10
    feature = datasets.List(datasets.ClassLabel(names=["x", "y", "z"]))
    tagged = table(tags=tags).remove_columns("kind").cast_column("tags", feature)
    data = loaded(f"hf:{parquet(tmp_path / 'tagged', train=tagged)}")
    assert data.classes == ("x", "y", "z") and data.multi_label
    hot = torch.zeros(40, 3, dtype=torch.bool)
    for row, each in enumerate(tags):
        hot[row, each] = True
    assert torch.equal(data.train.multi_hot, hot[data.train.rows])

    secret = table(40, 12).map(lambda row: {"kind": -1})
    some = table().map(lambda row, n: {"kind": -1 if n < 5 else row["kind"]}, with_indices=True)
    data = loaded(f"hf:{parquet(tmp_path / 'secret', train=some, test=secret)}")
    assert any("12 of the test split, without a label" in note for note in data.notes)
    assert any("5 of 40 images have no label" in note for note in data.notes)
    assert len(data.train) + len(data.test) == 40 and len(data.reference) + len(data.test) == 35


def test_a_damaged_image_is_named_and_replaced(tmp_path: Path) -> None:
    whole = table(count=400)
    values = whole.cast_column("photo", datasets.Image(decode=False))[:]["photo"]
    values[7] = {"bytes": b"not an image", "path": "seven.png"}
    values[8] = None
    features = datasets.Features({"photo": datasets.Image()})
    bad = datasets.Dataset.from_dict({"photo": values}, features=features)
    data = loaded(f"hf:{parquet(tmp_path / 'bad', train=bad)}", bad_limit=5)
    told = list(data.train.bad.faults.values())
    assert len(told) == 2 and "seven.png cannot be decoded" in told[0]
    assert "train/8 cannot be decoded: there is no image in this row" in told[1]
    with pytest.raises(CoviewError, match="seven"):
        loaded(f"hf:{tmp_path}/bad", on_bad_image="stop")


def test_workers_read_what_one_process_reads(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "birds", train=table())
    split = loaded(f"hf:{folder}", cache="off", size=20).train
    assert split.resident is None
    one, two = (list(Batches(split, 8, 0, "cpu", workers).epoch(0)) for workers in (0, 2))
    for first, second in zip(one, two, strict=True):
        assert torch.equal(first.images, second.images)


@pytest.mark.parametrize(
    ("text", "name", "split", "options"),
    [
        ("user/birds", "user/birds", None, {}),
        ("birds@train[:10%]", "birds", "train[:10%]", {}),
        ("a@b/birds", "a@b/birds", None, {}),
        ("a@b/birds@test", "a@b/birds", "test", {}),
        ("birds@a+b,config=c,label=none", "birds", "a+b", {"config": "c", "label": "none"}),
    ],
)
def test_what_is_written_is_taken_apart(
    text: str, name: str, split: str | None, options: dict[str, str]
) -> None:
    assert parse_source(f"hf:{text}") == ("hf", text)
    assert Asked.read(text) == Asked(name, split, options)


def test_what_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="To download it, add: --download"):
        Hub("user/nothing")
    with pytest.raises(RequestError, match="write hf:NAME"):
        Hub(None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="datasets cannot read"):
        Hub(str(tmp_path / "empty"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RequestError, match="pip install datasets"):
        Hub("user/nothing")


@pytest.mark.slow
def test_a_run_trains_on_it_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "birds", train=table(count=60))
    options = ("simclr", "--data", f"hf:{folder}", "--backbone", "resnet10-quarter")
    short = ("--batch-size", "16", "--epochs", "2", "--no-compile", "--no-evaluate")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}

    def coview(*words: str) -> None:
        command = [sys.executable, "-m", "coview", "train", *words]
        subprocess.run(command, check=True, env=environment, capture_output=True)

    coview(*options, *short, "--out", str(tmp_path / "whole"))
    coview(*options, *short, "--out", str(tmp_path / "parts"), "--max-steps", "4")
    coview(
        "--resume", str(tmp_path / "parts"), "--max-steps", "none", "--allow-change", "max-steps"
    )
    whole, parts = ((tmp_path / name / "backbone.safetensors") for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
