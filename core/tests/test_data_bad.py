from __future__ import annotations

import os
import pickle
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from coview.data.bad_images import BadImageError, BadImages, DataError, allowed, read, stand_ins
from coview.data.base import DataSettings, Split
from coview.data.decode import decode_all
from coview.data.loader import Batches, images_in_order
from coview.data.sources.folder import Folder
from coview.data.splits import part
from coview.errors import RequestError
from coview.evaluation.features import features


@attrs.frozen(eq=False)
class Damaged(Dataset[Tensor]):
    """Image i is all i (modulo 256), unless it is broken."""

    count: int
    broken: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Tensor:
        if row in self.broken:
            raise BadImageError(f"The image {row} is broken.")
        return torch.full((1, 2, 2), row % 256, dtype=torch.uint8)


def values(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 300), st.integers(0, 299))
def test_stand_ins_depend_on_the_row_alone(count: int, row: int) -> None:
    row %= count
    first = list(islice(stand_ins(row, count), 8))
    assert first == list(islice(stand_ins(row, count), 8))
    assert row not in first and all(0 <= other < count for other in first)


def test_stand_ins_are_spread() -> None:
    # A folder cut off half way is many bad images side by side: neighbours would not do.
    chosen = Counter(next(stand_ins(row, 1000)) for row in range(1000))
    assert len(chosen) > 580 and max(chosen.values()) < 9
    assert list(stand_ins(0, 1)) == []


def test_stand_ins_of_the_same_class() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 2])
    assert set(islice(stand_ins(0, 6, labels), 20)) == {2, 4}
    assert set(islice(stand_ins(5, 6, labels), 40)) == {0, 1, 2, 3, 4}  # it is alone


def test_what_takes_its_place_may_be_bad_too() -> None:
    first, second = islice(stand_ins(3, 50), 2)
    image, faults = read(Damaged(50, (3, first)), 3)
    assert values(image[None]) == [second] and [row for row, _ in faults] == [3, first]
    with pytest.raises(DataError, match="image 3 is broken.*25 other .*Are the data still there"):
        read(Damaged(50, tuple(range(50))), 3)
    with pytest.raises(BadImageError, match=r"^The image 0 is broken\.$"):
        read(Damaged(1, (0,)), 0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_batches_with_bad_images(workers: int, start: int) -> None:
    broken = (5, 17)
    split = Split(Damaged(200, broken))
    batches = list(Batches(split, 20, 0, "cpu", workers).epoch(1, start))
    assert len(batches) == 10 - start
    for batch in batches:
        expected = [
            next(stand_ins(row, 200)) if row in broken else row for row in batch.indices.tolist()
        ]
        assert values(batch.images) == expected
    seen = {row for batch in batches for row in batch.indices.tolist()} & set(broken)
    assert set(split.bad.faults) == seen and (start or seen == set(broken))


def test_two_processes_see_what_one_does() -> None:
    split = Split(Damaged(200, (5, 17)))
    whole = [values(batch.images) for batch in Batches(split, 20, 3, "cpu").epoch(0)]
    parts = [
        [values(b.images) for b in Batches(split, 20, 3, "cpu", 0, rank, 2).epoch(0)]
        for rank in (0, 1)
    ]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_in_memory_is_as_on_demand() -> None:
    broken, bad = (0, 70, 150), BadImages()
    images = decode_all(Damaged(400, broken), 3, bad)
    lazily = torch.cat(list(images_in_order(Split(Damaged(400, broken)), 64, "cpu")))
    assert torch.equal(images, lazily) and tuple(sorted(bad.faults)) == broken
    assert bad.faults[70] == "The image 70 is broken."


@pytest.mark.parametrize(("count", "most"), [(1, 1), (99, 1), (199, 1), (200, 2), (10_000, 100)])
def test_one_in_a_hundred_may_be_bad(count: int, most: int) -> None:
    assert allowed(count) == most
    bad = BadImages()
    bad.add([(row, f"{row} is bad.") for row in range(most)], count)
    with pytest.raises(DataError, match=f"{most + 1} of {count} images .*, more than the 1% all"):
        bad.add([(most, "the last straw.")], count)


def test_the_first_ten_are_named() -> None:
    bad = BadImages(known=[(row, f"No {row}.") for row in range(25)])
    assert bad.named() == " ".join(f"No {row}." for row in range(10)) + " And 15 more."
    assert bad.facts() == {"count": 25, "first": [f"No {row}." for row in range(10)]}
    copied = pickle.loads(pickle.dumps(bad))
    copied.add([(3, "again")], 10_000)
    assert len(copied) == 25


def test_to_stop_is_at_the_first() -> None:
    split = Split(Damaged(1000, (5,)), bad=BadImages("stop"))
    with pytest.raises(BadImageError, match="image 5 is broken.*--on-bad-image skip"):
        list(Batches(split, 100, 0, "cpu").epoch(0))
    with pytest.raises(BadImageError, match="image 5 is broken"):
        decode_all(Damaged(1000, (5,)))


def test_a_part_and_its_whole_know_of_each_other() -> None:
    split = Split(Damaged(300, (7, 9)), bad=BadImages(known=[(7, "7.")]))
    rows = torch.tensor([3, 7, 9, 11])
    piece = part(split, rows)
    assert piece.bad.faults == {1: "7."}
    images = torch.cat(list(images_in_order(piece, 2, "cpu")))
    assert values(images)[0] == 3 and values(images)[3] == 11
    assert set(piece.bad.faults) == {1, 2} and set(split.bad.faults) == {7, 9}
    assert piece.kept(torch.arange(4)).tolist() == [0, 3]


@pytest.mark.parametrize("resident", [False, True])
def test_labels_go_with_the_image_that_is_seen(resident: bool) -> None:
    broken, labels = (5, 17), torch.arange(240) % 3
    bad = BadImages()
    images: Any = Damaged(240, broken)
    if resident:
        images = decode_all(images, 1, bad)
    split, stood_in = Split(images, labels, bad=bad), 0
    for epoch in range(2):
        for batch in Batches(split, 30, 0, "cpu", same_class=True).epoch(epoch):
            seen = torch.tensor(values(batch.images))
            assert torch.equal(labels[batch.indices], labels[seen])
            assert not set(seen.tolist()) & set(broken)
            stood_in += int((seen != batch.indices).sum())
    # What is found on the way keeps its index for that batch; later it goes by the other's.
    assert stood_in == (0 if resident else 2)


class Mean(torch.nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1, keepdim=True)


def test_features_leave_bad_images_out() -> None:
    split = Split(Damaged(200, (5, 130)), torch.arange(200))
    rows = features(Mean(), split, batch_size=64)
    good = [row for row in range(200) if row not in (5, 130)]
    assert (rows[:, 0] * 255).round().int().tolist() == good
    assert split.kept(split.labels).tolist() == good
    whole = features(Mean(), split, batch_size=64, whole=True)
    assert whole.isnan().flatten().nonzero().flatten().tolist() == [5, 130]
    assert torch.equal(whole[good], rows)


def write(folder: Path, count: int = 12, size: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (size, size), (number, 9, 9)).save(folder / f"{number:03}.png")


def test_links_in_circles_and_to_nowhere(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    data = Folder(str(tmp_path)).load(DataSettings())
    assert len(data.train) == 12
    assert "4 links that lead to no file are left out." in data.notes


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    write(tmp_path / "images")
    (tmp_path / "images" / "003.png").rename(tmp_path / "images" / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "images" / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    data = Folder(str(tmp_path / "images")).load(DataSettings(holdout=0.1))
    names = {name for split in (data.train, data.test) for name in split.names}
    assert os.fsdecode(b"caf\xe9.png") in names
    assert sum(len(split.bad) for split in (data.train, data.test)) == 1


def test_a_root_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    from coview.data.sources import open_source

    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write(folder)
    with pytest.raises(RequestError, match=r"caf\\xe9 is not UTF-8"):
        open_source(str(folder))


def test_files_that_go_away_or_change(tmp_path: Path) -> None:
    write(tmp_path, 300, 64)
    source = Folder(str(tmp_path))
    (tmp_path / "010.png").unlink()
    data = source.load(DataSettings(size=64, holdout=0.01, resident_mib=1))
    assert data.train.resident is None
    (tmp_path / "020.png").unlink()
    Image.new("RGB", (64, 64), (250, 9, 9)).save(tmp_path / "030.png")
    seen = {}
    for batch in Batches(data.train, 1, 0, "cpu").epoch(0):
        seen[data.train.names[int(batch.indices)]] = values(batch.images)[0]
    assert seen["030.png"] == 250 and seen["040.png"] == 40
    assert {data.train.names[row] for row in data.train.bad.faults} == {"010.png", "020.png"}


def test_a_folder_that_vanishes_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "photos", 300, 64)
    data = Folder(str(tmp_path / "photos")).load(DataSettings(size=64, resident_mib=1))
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"(more than the 1% allowed|Are the data still there\?)"):
        list(Batches(data.train, 20, 0, "cpu").epoch(0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "003.png").chmod(0)
    data = Folder(str(tmp_path)).load(DataSettings())
    assert [*data.train.bad.faults.values(), *data.test.bad.faults.values()] == [
        f"The image {tmp_path / '003.png'} cannot be decoded: [Errno 13] Permission denied: "
        f"'{tmp_path / '003.png'}'."
    ]
