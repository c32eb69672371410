from __future__ import annotations

import gc
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from coview import CoviewError, RequestError
from coview.data.base import DataSettings
from coview.data.decode import decode_file
from coview.data.loader import Batches
from coview.data.sources import open_source, parse_source
from coview.data.sources.folder import Folder
from coview.data.values import Reading
from coview_webdataset import index as index_module
from coview_webdataset.index import index_of
from coview_webdataset.shards import Shards

SIDE = 24


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def picture(number: int) -> np.ndarray:
    return np.random.RandomState(number).randint(0, 256, (SIDE, SIDE, 3), np.uint8)


def write(
    folder: Path, stem: str = "shards", shards: int = 3, each: int = 40, **options: Any
) -> str:
    """Write shards by the library itself; return their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    number, key = 0, options.get("label", "cls")
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"{stem}-{shard:03}.tar")) as file:
            for _ in range(each):
                sample = {"__key__": f"{number:05}", options.get("image", "png"): picture(number)}
                if key == "cls":
                    sample["cls"] = number % 3
                elif key == "json":
                    sample["json"] = {"label": f"kind{number % 3}", "other": 1}
                file.write(sample)
                number += 1
    return f"wds:{folder}/{stem}-{{000..{shards - 1:03}}}.tar"


# The library leaves its shards open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_the_library_reads_is_read_here(tmp_path: Path) -> None:
    pattern = write(tmp_path)
    data = open_source(pattern).load(DataSettings())
    reader = webdataset.WebDataset(pattern[4:], shardshuffle=False, empty_check=False)
    theirs = list(reader.decode("rgb8").to_tuple("__key__", "png", "cls"))
    del reader
    gc.collect()
    ours: dict[str, tuple[torch.Tensor, int]] = {}
    for split in (data.train, data.test):
        for name, image, label in zip(split.names, split.images, split.labels, strict=True):
            ours[Path(name).stem] = (image, int(label))
    assert len(ours) == len(theirs) == 120
    for key, image, label in theirs:
        assert ours[key][1] == label
        assert torch.equal(ours[key][0], torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert (data.classes, data.size, data.name) == (("0", "1", "2"), SIDE, pattern)


def test_labels_of_json_and_none(tmp_path: Path) -> None:
    data = open_source(write(tmp_path / "a", label="json")).load(DataSettings())
    assert data.classes == ("kind0", "kind1", "kind2") and data.labelled
    bare = open_source(write(tmp_path / "b", label="")).load(DataSettings())
    assert bare.train.labels is None and bare.classes == ()


def written(folder: Path, labels: list[Any]) -> str:
    """Write one shard whose samples' json say these labels."""
    with webdataset.TarWriter(str(folder / "own-000.tar")) as file:
        for number, label in enumerate(labels):
            told = {"labels" if isinstance(label, list) else "label": label}
            file.write({"__key__": f"{number:05}", "png": picture(number), "json": told})
    return f"wds:{folder}/own-000.tar"


@pytest.mark.parametrize("names", [("2", "5", "7"), ("a cat", "dog", "it's")])
def test_several_labels_of_one_image(tmp_path: Path, names: tuple[str, ...]) -> None:
    numbers = names[0].isdecimal()
    lists = [
        [int(name) if numbers else name for place, name in enumerate(names) if n >> place & 1]
        for n in range(8)
    ]
    data = open_source(written(tmp_path, lists)).load(DataSettings(holdout=0.0))
    assert data.classes == names and data.train.labels is None
    for name, hot in zip(data.train.names, data.train.multi_hot, strict=True):
        known = lists[int(Path(name).stem)]
        assert hot.tolist() == [(int(c) if numbers else c) in known for c in names]
    assert data.summary["labels"] == dict.fromkeys(names, 4)
    assert any("have several of 3 classes" in note for note in data.notes)


def test_numbers_that_are_no_classes(tmp_path: Path) -> None:
    data = open_source(written(tmp_path, [0.5, 1.25, 2.0] * 4)).load(DataSettings(holdout=0.0))
    assert not data.labelled and data.classes == ()
    assert any("are numbers, not classes (0.5" in note for note in data.notes)


def test_shards_called_test_are_the_test_split(tmp_path: Path) -> None:
    write(tmp_path, "birds-train", 2)
    write(tmp_path, "birds-val", 1)
    write(tmp_path, "contest-train", 1)  # no word of its own
    data = open_source(f"wds:{tmp_path}").load(DataSettings())
    assert (len(data.train), len(data.test)) == (120, 40)
    assert all(name.startswith("birds-val-000.tar/") for name in data.test.names)


def batches(source: str, epoch: int = 0, start: int = 0, **options: Any) -> list[Any]:
    data = open_source(source).load(DataSettings(size=128, resident_mib=1))
    assert data.train.resident is None
    return list(Batches(data.train, 12, 0, "cpu", **options).epoch(epoch, start))


def test_batches_are_addressed_by_epoch_and_position(tmp_path: Path) -> None:
    pattern = write(tmp_path)
    whole = batches(pattern, 1)
    for other in (batches(pattern, 1, 3), batches(pattern, 1, 3, workers=1)):
        for a, b in zip(whole[3:], other, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices)
    ranks = [batches(pattern, 1, rank=rank, world_size=2) for rank in (0, 1)]
    for a, first, second in zip(whole, *ranks, strict=True):
        assert torch.equal(a.images, torch.cat([first.images, second.images]))


def test_an_index_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = write(tmp_path)
    shard = tmp_path / "shards-001.tar"
    first = index_of(shard)
    monkeypatch.setattr(index_module, "_read", lambda shard: pytest.fail("read again"))
    again = index_of(shard)
    assert (again.names, again.labels) == (first.names, first.labels)
    assert np.array_equal(again.places, first.places)
    monkeypatch.undo()
    write(tmp_path, each=7)
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "cache"))
    assert len(index_of(shard).names) == 7 and len(open_source(pattern).train) == 21


def test_a_shard_of_the_same_size_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    """As after a new shuffle: only the time of the change tells that it is another one."""
    shards = []
    for names in (("a", "b"), ("c", "d")):
        with tarfile.open(tmp_path / "new.tar", "w") as file:
            for name in names:
                file.addfile(tarfile.TarInfo(f"{name}.png"))
        shards.append((tmp_path / "new.tar").read_bytes())
    assert len(shards[0]) == len(shards[1])
    shard = tmp_path / "shard.tar"
    for content, time, names in zip(shards, (1, 2), ("ab", "cd"), strict=True):
        shard.write_bytes(content)
        os.utime(shard, ns=(time, time))
        assert index_of(shard).names == tuple(f"{name}.png" for name in names)


def test_a_cache_that_cannot_be_used_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "file"))
    assert len(index_of(tmp_path / "shards-000.tar").names) == 40
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "other"))
    index_of(tmp_path / "shards-000.tar")
    (cached,) = (tmp_path / "other" / "webdataset").iterdir()
    cached.write_bytes(cached.read_bytes()[:50])
    assert len(index_of(tmp_path / "shards-000.tar").names) == 40


def test_other_members_are_left_alone(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in (
            "__meta__/x.png",
            "a.txt",
            "b.seg.png",
            "b.png",
            "b.cls",
            "folder/c.PNG",
            "c.cls",
        ):
            path = tmp_path / "member"
            if name.lower().endswith("png"):
                Image.fromarray(picture(0)).save(path, "PNG")
            else:
                path.write_text("1")
            file.add(path, name)
    assert Shards(f"{tmp_path}/a.tar").train.names == ("a.tar/b.png", "a.tar/folder/c.png")


def test_a_bad_image_is_named_and_replaced(tmp_path: Path) -> None:
    pattern = write(tmp_path)
    shard = tmp_path / "shards-001.tar"
    start, length = index_of(shard).places[5].tolist()
    with shard.open("r+b") as file:
        file.seek(start)
        file.write(b"\0" * length)
    data = open_source(pattern).load(DataSettings())
    (found,) = [s for split in (data.train, data.test) for s in split.bad.faults.values()]
    assert "The image shards-001.tar/00045.png cannot be decoded" in found and "0x" not in found
    with pytest.raises(CoviewError, match="00045.png"):
        open_source(pattern).load(DataSettings(on_bad_image="stop"))


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    pattern = write(tmp_path)
    assert parse_source(pattern)[0] == "wds"
    for path, message in (
        (None, "needs shards"),
        (
            f"{tmp_path}/shards-{{000..009}}.tar",
            r"no shard .*003\.tar \(7 of 10 shards are missing\)",
        ),
        ("https://example.org/a.tar", "not a local file"),
        ("pipe:cat a.tar", "not a local file"),
    ):
        with pytest.raises(RequestError, match=message):
            Shards(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"holds no \.tar files"):
        Shards(str(tmp_path / "empty"))
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as file:
        file.add(tmp_path / "shards-000.tar", "a.png")
    with pytest.raises(RequestError, match="not an uncompressed tar file"):
        Shards(str(tmp_path / "packed.tar"))
    with tarfile.open(tmp_path / "texts.tar", "w"):
        pass
    with pytest.raises(RequestError, match="hold no images"):
        Shards(str(tmp_path / "texts.tar"))


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path)
    shard = tmp_path / "shards-000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    data = Shards(str(shard)).load(DataSettings(holdout=0.0))
    assert 15 < len(data.train) < 25 and len(data.train.bad) == 1 and data.labelled is False
    (row,) = data.train.bad.faults
    assert row == len(data.train) - 1 and "its shard ends within it" in data.train.bad.faults[row]
    (note,) = [note for note in data.notes if "ends early" in note]
    assert f"after {data.train.names[row].partition('/')[2]}" in note and "lost" in note
    with pytest.raises(CoviewError, match=r"shards-000\.tar ends early.*--on-bad-image skip"):
        Shards(str(shard)).load(DataSettings(on_bad_image="stop"))


@pytest.mark.parametrize("first", ["png", "cls"])
@pytest.mark.parametrize("cut", ["before a header", "in a header", "in what follows it"])
def test_wherever_it_is_cut_off(tmp_path: Path, first: str, cut: str) -> None:
    write(tmp_path, shards=1)
    with tarfile.open(tmp_path / "shards-000.tar") as opened:
        names = [member.name for member in opened]
        opened.extractall(tmp_path)
    shard = tmp_path / "cut.tar"
    with tarfile.open(shard, "w") as made:
        for name in sorted(names, key=lambda name: (name[:5], not name.endswith(first))):
            made.add(tmp_path / name, name)
    with tarfile.open(shard) as opened:
        last = opened.getmembers()[41]  # the second file of sample 20
    assert last.name.startswith("00020.") and not last.name.endswith(first)
    end = {"before a header": last.offset, "in a header": last.offset + 100}
    shard.write_bytes(shard.read_bytes()[: end.get(cut, last.offset_data)])
    data = Shards(str(shard)).load(DataSettings())
    # Of sample 20 there is an image without its label, or a label and at most half an image.
    half = first == "cls" and cut == "in what follows it"
    bad = len(data.train.bad) + len(data.test.bad)
    assert (len(data.train) + len(data.test), bad) == (20 + half, half) and data.labelled
    after = "00020.png" if first == "png" or half else "00019.png"
    assert any(f"ends early, after {after}" in note for note in data.notes)
    assert data.summary["left_out"] == {}


def test_samples_without_an_image_are_counted(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as file:
        for number in range(6):
            kind = ("input.png", "txt")[number % 2]
            value = picture(number) if kind != "txt" else "words"
            file.write({"__key__": str(number), kind: value})
    data = Shards(str(tmp_path / "a.tar")).load(DataSettings())
    assert data.train.names == tuple(f"a.tar/{n}.input.png" for n in (0, 2, 4))
    assert data.summary["left_out"] == {"txt": 3} and data.summary["found"] == 6
    assert any("hold no image: 3 txt." in note for note in data.notes)


def test_a_label_of_gigabytes_is_refused(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        opened.add(tmp_path / "0.png", "0.png")
        end = opened.offset
    member = tarfile.TarInfo("0.cls")
    member.size = 10**10
    with (tmp_path / "a.tar").open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(member.tobuf())
        file.truncate(end + 512 + 10**10 + 1024)  # a hole, which takes no room
    with pytest.raises(CoviewError, match=r"0\.cls has 10000000000 bytes, more than"):
        Shards(str(tmp_path / "a.tar"))


def test_shards_and_folders_give_equal_pixels(tmp_path: Path) -> None:
    folder, random = tmp_path / "all", np.random.RandomState(0)
    folder.mkdir()
    grey = random.randint(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(folder / "deep.png")
    Image.fromarray(random.randint(0, 256, (SIDE, 9, 3), np.uint8)).save(
        folder / "turned.jpg", exif=exif
    )
    Image.fromarray(random.randint(0, 256, (SIDE, SIDE, 4), np.uint8)).save(folder / "clear.png")
    Image.fromarray(picture(0)).convert("CMYK").save(folder / "print.tif")
    Image.fromarray(picture(1)).save(folder / "ramp.tga")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as file:
        for path in sorted(folder.iterdir()):
            file.write({"__key__": path.stem, path.suffix[1:]: path.read_bytes()})
    settings = DataSettings(size=SIDE, background="#204060")
    one, other = Folder(str(folder)).load(settings), Shards(str(tmp_path / "a.tar")).load(settings)
    assert [n.partition("/")[2] for n in other.train.names] == list(one.train.names)
    assert torch.equal(one.train.resident, other.train.resident)
    assert one.reading == other.reading and "," in one.reading["range"]
    assert not torch.equal(
        one.train.resident,
        Folder(str(folder)).load(DataSettings(size=SIDE, orientation="ignore")).train.resident,
    )
    assert Reading().colour == (255, 255, 255)


def test_what_is_decoded_is_what_was_written(tmp_path: Path) -> None:
    samples = Shards(write(tmp_path, image="jpg")[4:]).train
    with Image.open(samples.file(50)) as image:
        assert image.format == "JPEG"
    assert torch.equal(decode_file(samples.file(50), ".jpg", 256, 3), samples[50])
