from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coview.data.base import DataSettings, ImageData
from coview.data.loader import Batches, images_in_order
from coview.data.sources import open_source, parse_source
from coview.data.sources import packing as partial
from coview.data.sources.arrays import from_object
from coview.data.sources.pack import Mapped, Packed, is_pack
from coview.data.sources.packing import pack
from coview.errors import CoviewError, RequestError

SIZE = 72
LAZILY = DataSettings(size=SIZE, resident_mib=1)
"""130 images of 72 pixels are 1.9 MiB: too many for memory."""


def photos(folder: Path, count: int = 130, bad: tuple[int, ...] = ()) -> Path:
    random = np.random.RandomState(0)
    for number in range(count):
        path = folder / f"kind{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.randint(0, 256, (10, 14, 3), np.uint8)
        Image.fromarray(noise).save(path)
        if number in bad:
            path.write_bytes(b"no image")
    return folder


def packed(data: ImageData, out: Path) -> Packed:
    pack(data, out)
    return Packed(str(out))


def test_batches_are_those_of_the_data(tmp_path: Path) -> None:
    source = open_source(str(photos(tmp_path / "photos", bad=(40,))))
    lazily = source.load(LAZILY)
    again = packed(lazily, tmp_path / "pack")
    resident = DataSettings(size=SIZE)
    for ours, theirs in (
        (again.load(LAZILY), lazily),
        (again.load(resident), source.load(resident)),
    ):
        assert (ours.train.resident is None) == (theirs.train.resident is None)
        for epoch in (0, 3):
            made = [Batches(data.train, 16, 1, "cpu").epoch(epoch, 2) for data in (ours, theirs)]
            for a, b in zip(*made, strict=True):
                assert torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices)
        for a, b in ((ours.train, theirs.train), (ours.test, theirs.test)):
            assert a.names == b.names and torch.equal(a.labels, b.labels)
            assert torch.equal(a.rows, b.rows)
            images = [torch.cat(list(images_in_order(split, 50, "cpu"))) for split in (a, b)]
            assert torch.equal(*images) and a.bad.faults == b.bad.faults
        same = ("size", "channels", "mean", "std", "classes", "fingerprint", "bad_images")
        for name in same:
            assert getattr(ours, name) == getattr(theirs, name), name


def test_it_is_known_by_its_path(tmp_path: Path) -> None:
    data = from_object(torch.randint(0, 256, (20, 1, 9, 9), dtype=torch.uint8), DataSettings())
    out = tmp_path / "pack"
    packed(data, out)
    assert parse_source(str(out)) == ("pack", str(out))
    assert parse_source(f"pack:{out}") == ("pack", str(out))
    assert isinstance(open_source(out), Packed) and is_pack(out)
    loaded = Packed(str(out)).load(DataSettings())
    assert loaded.train.labels is None and loaded.train.names is None
    assert torch.equal(loaded.train.images, data.train.images)
    assert not list(tmp_path.glob(".*"))


def test_other_sizes_and_channels(tmp_path: Path) -> None:
    data = open_source(str(photos(tmp_path / "photos"))).load(LAZILY)
    source = packed(data, tmp_path / "pack")
    small = source.load(DataSettings(size=8, channels=1))
    assert small.train.images.shape[1:] == (1, 8, 8) and len(small.mean) == 1
    assert small.fingerprint != data.fingerprint
    assert "Images packed at 72 pixels are resized to 8." in small.notes
    large = source.load(DataSettings(size=90, resident_mib=1))
    assert large.train.resident is None and large.train.images[3].shape == (3, 90, 90)
    assert len(list(images_in_order(large.train, 20, "cpu"))) == -(-len(large.train) // 20)


def test_another_process_gets_the_path(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(4 * 12, dtype=np.uint8).reshape(4, 3, 2, 2))
    images = Mapped(str(tmp_path / "a.npy"), (4, 3, 2, 2))
    assert len(images.values) == 4
    content = pickle.dumps(images)
    assert len(content) < 400
    assert torch.equal(pickle.loads(content)[2], images[2])
    out = torch.empty(2, 3, 2, 2, dtype=torch.uint8)
    assert images.gather(torch.tensor([3, 1]), out) is out
    assert torch.equal(out, images.values[[3, 1]])
    # What a run does with its images never reaches the file.
    images[0].zero_()
    assert np.load(tmp_path / "a.npy")[0].max() == 11


def test_an_interrupted_pack_is_gone_on_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_at: Callable[[int], Callable[[int], None]],
) -> None:
    source = open_source(str(photos(tmp_path / "photos", bad=(3,))))
    whole = tmp_path / "whole"
    pack(source.load(LAZILY), whole)
    monkeypatch.setattr(partial, "BATCH", 8)
    monkeypatch.setattr(partial, "FLUSHED", 20 * 3 * SIZE**2)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack(source.load(LAZILY), out, told=interrupted_at(60))
    assert not out.exists()
    # What was not flushed does not count, whatever became of it.
    images = tmp_path / ".out.partial" / "train.images.npy"
    images.write_bytes(images.read_bytes() + b"torn")
    counts: list[int] = []
    pack(source.load(LAZILY), out, told=counts.append)
    assert counts[0] == 48 and sum(counts) == 130
    for file in whole.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name


def test_images_are_on_the_disk_before_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut would leave holes where ``progress.json`` promises images."""
    source = open_source(str(photos(tmp_path / "photos")))
    images = tmp_path / ".out.partial" / "train.images.npy"
    flushed: list[int] = []
    counted: list[tuple[int, int]] = []
    real = {"fsync": os.fsync, "write_json": partial.write_json}

    def fsync(number: int) -> None:
        if images.exists() and os.path.samestat(os.fstat(number), images.stat()):
            flushed.append(os.fstat(number).st_size)
        real["fsync"](number)

    def write(path: Path, value: Any) -> None:
        if path.name == partial.PROGRESS and value["done"].get("train"):
            counted.append((flushed[-1] if flushed else 0, value["done"]["train"]))
        real["write_json"](path, value)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(partial, "write_json", write)
    monkeypatch.setattr(partial, "BATCH", 8)
    # A batch is smaller than the buffer of an open file.
    each = 3 * 8**2
    monkeypatch.setattr(partial, "FLUSHED", 20 * each)
    pack(source.load(DataSettings(size=8)), tmp_path / "out")
    header = (tmp_path / "out" / images.name).stat().st_size - 104 * each
    assert sorted({count for _, count in counted}) == [24, 48, 72, 96, 104]
    assert all(size == header + count * each for size, count in counted)


def test_a_half_made_pack_of_other_data_is_begun_afresh(tmp_path: Path) -> None:
    source = open_source(str(photos(tmp_path / "photos")))
    with pytest.raises(ZeroDivisionError):
        pack(source.load(LAZILY), tmp_path / "out", told=lambda count: 1 // 0 if count else None)
    other = DataSettings(size=SIZE, resident_mib=1, channels=1)
    loaded = packed(source.load(other), tmp_path / "out").load(DataSettings())
    assert loaded.channels == 1 and len(loaded.train) == 104


def test_places_that_are_taken(tmp_path: Path) -> None:
    data = from_object(torch.zeros(10, 1, 4, 4, dtype=torch.uint8), DataSettings())
    (tmp_path / "file").write_text("taken")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(RequestError, match=f"{name} already exists"):
            pack(data, tmp_path / name)
    packed(data, tmp_path / "empty")
    with pytest.raises(RequestError, match="already exists"):
        pack(data, tmp_path / "empty")


def test_signals_are_not_packed(tmp_path: Path) -> None:
    import attrs

    data = from_object(torch.zeros(10, 1, 4, 4, dtype=torch.uint8), DataSettings())
    signals = attrs.evolve(data, train=attrs.evolve(data.train, images=torch.zeros(8, 1, 50)))
    with pytest.raises(RequestError, match="signals"):
        pack(signals, tmp_path / "pack")


def test_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_source(str(photos(tmp_path / "photos"))).load(LAZILY)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("", (), {"free": 1 << 20})())
    with pytest.raises(CoviewError, match=r"needs 0\.0 GiB, but only 0\.0 GiB are free"):
        pack(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_meanwhile(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    work = f"""
import resource
from pathlib import Path
from coview.data.base import DataSettings
from coview.data.sources.packing import pack
from coview.data.sources import open_source
from coview.errors import CoviewError
data = open_source({str(tmp_path / "photos")!r}).load(DataSettings(size={SIZE}, resident_mib=1))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    pack(data, Path({str(tmp_path / "out")!r}))
except CoviewError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", work], capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{tmp_path / 'out'} could not be written: File too large.", done
    assert not (tmp_path / "out").exists()
    # With room again it goes on.
    data = open_source(str(tmp_path / "photos")).load(LAZILY)
    assert len(packed(data, tmp_path / "out").load(LAZILY).train) == 104


def damage(path: Path, **changes: Any) -> None:
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, **changes}))


def test_damaged_packs(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs a path"):
        Packed(None)
    with pytest.raises(RequestError, match=r"is not a pack: .* coview pack DATA --out"):
        Packed(str(tmp_path))
    data = open_source(str(photos(tmp_path / "photos"))).load(LAZILY)
    out = tmp_path / "out"
    source = packed(data, out)
    names = (out / "train.names").read_bytes()
    for file, content, message in (
        ("train.names", names[:-8], "103 names for 104 images"),
        ("train.images.npy", (out / "train.images.npy").read_bytes()[:9999], "damaged"),
        ("train.labels.npy", b"", "damaged"),
    ):
        before = (out / file).read_bytes()
        (out / file).write_bytes(content)
        with pytest.raises(CoviewError, match=message):
            source.load(LAZILY)
        (out / file).write_bytes(before)
    (out / "test.images.npy").unlink()
    with pytest.raises(CoviewError, match=r"damaged \(test\)"):
        source.load(LAZILY)
    damage(out / "pack.json", coview_pack=9)
    with pytest.raises(RequestError, match="format 9; this coview reads format 1"):
        Packed(str(out))
    (out / "pack.json").write_text("{")
    with pytest.raises(CoviewError, match="damaged"):
        Packed(str(out))
