"""Mutated packs and shards: data, or a sentence that names them; no traceback and no hang."""

from __future__ import annotations

import random
import shutil
import tarfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coview.data.base import DataSettings, ImageData
from coview.data.loader import images_in_order
from coview.data.sources import open_source
from coview.data.sources.folder import Folder
from coview.data.sources.packing import pack
from coview.errors import CoviewError

SLOWEST = 10.0
"""Seconds for one file."""


def png(number: int) -> bytes:
    pixels = np.random.RandomState(number).randint(0, 256, (12, 12, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    for number in range(20):
        place = folder / "images" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(png(number))
    data = Folder(str(folder / "images")).load(DataSettings(resident_mib=1))
    pack(data, folder / "pack")
    return folder / "pack"


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shard") / "s.tar"
    with tarfile.open(path, "w") as file:
        for number in range(20):
            for ending, content in (("png", png(number)), ("cls", b"%d" % (number % 2))):
                about = tarfile.TarInfo(f"{number:03}.{ending}")
                about.size = len(content)
                file.addfile(about, BytesIO(content))
    return path


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Cut, flip, overwrite, double or drop some bytes, mostly near the start."""
    data = bytearray(content)
    place = int(len(data) * chance.random() ** 3)
    way = chance.randrange(5)
    if way == 0:
        return bytes(data[:place])
    if way == 1:
        for _ in range(chance.randint(1, 9)):
            data[int(len(data) * chance.random() ** 3)] ^= 1 << chance.randrange(8)
    elif way == 2:
        data[place : place + 12] = chance.choice(
            (b"\xff" * 12, b"9" * 12, b"\0" * 12, b"-1, 1e9, {}")
        )
    elif way == 3:
        data[place:place] = data[: chance.randint(1, 600)]
    else:
        del data[place : place + chance.randint(1, 600)]
    return bytes(data)


def read(source: str) -> bool:
    """Read a data set through; return whether it could be."""
    began = time.monotonic()
    try:
        data: ImageData = open_source(source).load(DataSettings(size=12, resident_mib=1))
        for split in (data.train, data.test):
            for images in images_in_order(split, 8, "cpu") if split is not None else ():
                assert images.shape[1:] == (data.channels, 12, 12)
    except CoviewError as error:
        assert str(error).strip(), source
        return False
    finally:
        assert time.monotonic() - began < SLOWEST
    return True


def fuzz_packs(packed: Path, folder: Path, seed: int, count: int) -> int:
    """Read so many packs with one mutated file; return how many could be read."""
    good = 0
    for number in range(count):
        chance = random.Random(f"{seed}/{number}/pack")
        copy = Path(shutil.copytree(packed, folder / "p"))
        file = chance.choice(sorted(copy.iterdir()))
        file.write_bytes(mutated(file.read_bytes(), chance))
        good += told(lambda: read(f"pack:{folder / 'p'}"), (seed, number, file.name))
        shutil.rmtree(copy)
    return good


def fuzz_shards(shard: Path, folder: Path, seed: int, count: int) -> int:
    """Read so many mutated shards; return how many could be read."""
    good, content = 0, shard.read_bytes()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}/shard")
        path = folder / f"{number}.tar"
        path.write_bytes(mutated(content, chance))
        good += told(lambda path=path: read(f"wds:{path}"), (seed, number))
        path.unlink()
    return good


def told(action: Callable[[], bool], case: object) -> bool:
    try:
        return action()
    except BaseException as error:
        error.add_note(f"case {case}")
        raise


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path / "cache"))


def test_mutated_packs(packed: Path, tmp_path: Path) -> None:
    assert 0 < fuzz_packs(packed, tmp_path, 0, 40) < 40


def test_mutated_shards(shard: Path, tmp_path: Path) -> None:
    assert 0 < fuzz_shards(shard, tmp_path, 0, 25) < 25


@pytest.mark.slow
def test_many_mutated_packs(packed: Path, tmp_path: Path) -> None:
    fuzz_packs(packed, tmp_path, 1, 1000)


@pytest.mark.slow
def test_many_mutated_shards(shard: Path, tmp_path: Path) -> None:
    fuzz_shards(shard, tmp_path, 1, 1000)
