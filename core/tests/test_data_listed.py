from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from coview.data.base import DataSettings, ImageData
from coview.data.sources import open_source, parse_source
from coview.data.sources.listed import ListFile
from coview.errors import RequestError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Twenty images below a folder; red tells which is which."""
    (tmp_path / "photos").mkdir()
    for number in range(20):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / f"photos/{number}.png")
    return tmp_path


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def loaded(path: Path | str, **settings: object) -> ImageData:
    return ListFile(str(path)).load(DataSettings(**settings))


def check(data: ImageData) -> None:
    """Check that every image is the one that its name says, with its label."""
    for split in (data.train, data.test):
        for row, name in enumerate(split.names):
            number = int(Path(name).stem)
            assert split.images[row][0, 0, 0] == 10 * number
            if split.labels is not None:
                assert data.classes[split.labels[row]] == "ab"[number % 2]


def test_a_table_with_usual_names(place: Path) -> None:
    rows = [f"photos/{n}.png,{'ab'[n % 2]},{'test' if n > 15 else 'train'}" for n in range(20)]
    path = written(place / "birds.csv", "Image_Path,Label,Split", *rows)
    assert parse_source(str(path)) == ("list", str(path))
    data = loaded(path)
    assert (len(data.train), len(data.test), data.classes) == (16, 4, ("a", "b"))
    assert data.labelled and data.size == 8
    check(data)
    assert data.summary["labels"] == {"a": 10, "b": 10}


def test_columns_of_other_names(place: Path) -> None:
    rows = [f"x;{n}.png;{'ab'[n % 2]}" for n in range(20)]
    path = written(place / "birds.csv", "nothing;wo;was", *rows)
    data = loaded(f"{path},image=wo,label=was,root={place / 'photos'}")
    assert (len(data.train), len(data.test)) == (16, 4)
    check(data)
    with pytest.raises(RequestError, match=r"no column.* paths \(its columns: nothing, wo, was\)"):
        ListFile(str(path))
    with pytest.raises(RequestError, match=r"unknown column 'wos'|no column called 'wos'.*'wo'"):
        ListFile(f"{path},image=wos")


def test_a_table_without_a_head(place: Path) -> None:
    path = written(place / "a.tsv", *(f"photos/{n}.png\t{'ab'[n % 2]}" for n in range(20)))
    check(loaded(path))


def test_json_lines(place: Path) -> None:
    rows = [{"file_name": f"photos/{n}.png", "class": "ab"[n % 2]} for n in range(20)]
    check(loaded(written(place / "a.jsonl", *map(json.dumps, rows))))
    check(loaded(written(place / "a.json", json.dumps(rows))))


def test_parquet(place: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"image": [f"photos/{n}.png" for n in range(20)], "label": [n % 2 for n in range(20)]}
    parquet.write_table(__import__("pyarrow").table(table), place / "a.parquet")
    data = loaded(place / "a.parquet")
    assert data.classes == ("0", "1") and data.train.labels.bincount().tolist() == [8, 8]


def test_a_plain_list_of_paths(place: Path) -> None:
    (place / "photos/0.png").rename(place / "photos/a name.png")
    data = loaded(written(place / "a.txt", "photos/a name.png", "", "photos/1.png"))
    assert data.train.names == ("photos/a name.png", "photos/1.png") and data.test is None
    absolute = written(place / "b.lst", *(str(place / f"photos/{n}.png") for n in range(1, 4)))
    assert loaded(absolute).train.resident[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_a_plain_list_of_paths_and_labels(place: Path) -> None:
    data = loaded(written(place / "a.txt", *(f"photos/{n}.png {n % 2}" for n in range(20))))
    assert data.classes == ("0", "1") and len(data.test) == 4


def test_endings_may_be_left_out(place: Path) -> None:
    path = written(
        place / "train.csv", "image_id,label", *(f"{n},{'ab'[n % 2]}" for n in range(20))
    )
    check(loaded(f"{path},root={place / 'photos'}"))


def test_rows_without_a_label_are_trained_on(place: Path) -> None:
    rows = [f"photos/{n}.png,{'ab'[n % 2] if n < 15 else ''}" for n in range(20)]
    data = loaded(written(place / "a.csv", "image,label", *rows))
    assert (len(data.train), len(data.reference), len(data.test)) == (17, 12, 3)
    assert data.train.images[-1][0, 0, 0] == 190
    assert any("5 of 20 listed images have no label" in note for note in data.notes)


@pytest.mark.parametrize(
    ("label", "said"),
    [("0.25", "are numbers, not classes (0.25,"),
     ("[0.5, 2]", "lists or tables of something else"), ("a", "only one class")],
)  # fmt: skip
def test_targets_that_are_no_classes(place: Path, label: str, said: str) -> None:
    rows = (f'photos/{n}.png,"{label}"' for n in range(20))
    data = loaded(written(place / "a.csv", "image,label", *rows))
    assert len(data.train) == 20 and data.train.truth is None
    assert not data.labelled and not data.multi_label
    assert any(said in note for note in data.notes)


CLASSES = ("round", "red", "old")


def has(number: int) -> list[str]:
    """Return the classes of a photo: none, one, two or three of them."""
    return [name for bit, name in enumerate(CLASSES) if number >> bit & 1]


@pytest.mark.parametrize(
    "label",
    [lambda n: "|".join(has(n)), lambda n: " ; ".join(has(n)), lambda n: repr(has(n)),
     lambda n: json.dumps(has(n)), lambda n: [n & 1, n >> 1 & 1, n >> 2 & 1], has],
)  # fmt: skip
def test_several_classes_in_a_list(place: Path, label: Callable[[int], object]) -> None:
    rows = [{"image": f"photos/{n}.png", "labels": label(n)} for n in range(20)]
    data = loaded(written(place / "a.jsonl", *map(json.dumps, rows)))
    assert data.multi_label and not data.labelled and data.train.labels is None
    assert any("several of 3 classes each" in note for note in data.remarks)
    names = CLASSES if "0" not in data.classes else data.classes
    assert sorted(names) == list(data.classes)
    # An empty text says nothing, and an empty list that an image has none of the classes.
    nothing = 0 if isinstance(label(0), list) or label(0) == "[]" else 3
    assert len(data.reference) + len(data.test) == 20 - nothing
    assert len(data.train) - len(data.reference) == nothing and len(data.test) > 2
    for split in (data.reference, data.test):
        for row, name in enumerate(split.names):
            number = int(Path(name).stem)
            assert split.images[row][0, 0, 0] == 10 * number
            found = {names.index(data.classes[c]) for c in split.multi_hot[row].nonzero().flatten()}
            assert found == {bit for bit in range(3) if number >> bit & 1}
    counted = {names[bit]: sum(n >> bit & 1 for n in range(20)) for bit in range(3)}
    assert data.summary["labels"] == counted


def test_other_columns_are_fields(place: Path) -> None:
    rows = [f"photos/{n}.png,{n / 8},{n},{'day' if n % 2 else 'night'}" for n in range(20)]
    data = loaded(written(place / "a.csv", "image,label,patient,light", *rows, ",1,2,3"))
    assert data.train.fields["patient"].tolist() == list(range(20))
    assert data.train.fields["label"].tolist() == [n / 8 for n in range(20)]
    assert data.train.fields["light"][:2] == ["night", "day"]
    assert any("1 lines of" in note and "name no image" in note for note in data.notes)
    rows = [f"photos/{n}.png,{'ab'[n % 2] if n < 15 else ''},{n}" for n in range(20)]
    data = loaded(written(place / "b.csv", "image,label,patient", *rows))
    for split in (data.train, data.reference, data.test):
        assert [f"photos/{int(n)}.png" for n in split.fields["patient"]] == list(split.names)


def test_what_is_listed_and_not_used_is_counted(place: Path) -> None:
    rows = [f"photos/{n}.png,{'ab'[n % 2]},{('train', 'test', 'val')[n % 3]}" for n in range(20)]
    rows += ["photos/gone.png,a,train", "photos/0.png,a,train"]
    path = written(place / "a.csv", "image,label,split", *rows)
    data = loaded(path, bad_limit=0.2)
    assert data.summary["left_out"] == {"in the split val": 6} and data.summary["found"] == 22
    said = " ".join(data.notes)
    assert "not used: 6 in the split val" in said
    assert "1 of 22 listed files are not there" in said and len(data.train.bad) == 1
    assert "1 lines list a file again" in said


def test_a_test_split_without_labels(place: Path) -> None:
    rows = [f"photos/{n}.png,{'ab'[n % 2] if n < 15 else ''},{'train' if n < 15 else 'test'}"
            for n in range(20)]  # fmt: skip
    data = loaded(written(place / "a.csv", "image,label,split", *rows))
    assert (len(data.train), len(data.test)) == (12, 3)
    assert data.summary["left_out"] == {"in the split test without a label": 5}


def test_the_fingerprint_follows_labels_splits_and_files(place: Path) -> None:
    rows = [f"photos/{n}.png,{'ab'[n % 2]},train" for n in range(10)]
    prints = [loaded(written(place / "a.csv", "image,label,split", *rows)).fingerprint]
    prints.append(loaded(written(place / "b.csv", "image,label,split", *rows)).fingerprint)
    assert prints[0] == prints[1]
    for changed in ("photos/0.png,b,train", "photos/0.png,a,test", "photos/11.png,a,train"):
        again = written(place / "a.csv", "image,label,split", changed, *rows[1:])
        prints.append(loaded(again).fingerprint)
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "image,split\nphotos/0.png,fold3\n", "must say train, test or val, not 'fold3'"),
        ("a.csv", "image,split\nphotos/0.png,test\n", "no images to train on"),
        ("a.csv", "", "lists no images"),
        ("a.jsonl", "{broken\n", "cannot be read"),
        ("a.jsonl", "[1, 2]\n", "every line must be an object"),
    ],
)
def test_lists_that_cannot_be_used(place: Path, name: str, content: str, said: str) -> None:
    (place / name).write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=said):
        loaded(place / name)


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="write list:FILE"):
        ListFile(None)
    with pytest.raises(RequestError, match=r"There is no file .*gone\.csv"):
        open_source(f"list:{tmp_path / 'gone.csv'}")
