from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
import torch

from coview.data.base import DataSettings
from coview.data.sources.idx import Idx, read_idx
from coview.errors import CoviewError, RequestError


def idx(values: torch.Tensor) -> bytes:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return head + values.to(torch.uint8).numpy().tobytes()


def images(count: int, rows: int = 28, columns: int = 28) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, rows, columns), generator=generator)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_four_files(tmp_path: Path, dot: str, end: str) -> None:
    for stem, count in (("train", 12), ("t10k", 5)):
        write(tmp_path / f"{stem}-images{dot}idx3-ubyte{end}", idx(images(count)))
        labels = (torch.arange(count) * 3) % 10
        write(tmp_path / f"{stem}-labels{dot}idx1-ubyte{end}", idx(labels))
    source = Idx(str(tmp_path))
    assert source.native_size() == 28
    data = source.load(DataSettings())
    assert (data.name, data.size, data.channels) == (f"idx:{tmp_path}", 28, 1)
    assert torch.equal(data.train.images, images(12)[:, None].to(torch.uint8))
    assert torch.equal(data.test.images, images(5)[:, None].to(torch.uint8))
    assert data.train.labels.tolist() == [(3 * n) % 10 for n in range(12)]
    assert data.classes == tuple("0123456789") and data.labelled
    (note,) = data.notes  # five test images cannot show ten classes
    assert note.startswith("5 of 10 classes have no image to test on")
    assert data.mean == pytest.approx((images(12).float().mean().item() / 255,))


def test_without_labels_and_test_files(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", idx(images(10)))
    data = Idx(str(tmp_path)).load(DataSettings(size=32, channels=3))
    assert data.train.labels is None and data.classes == () and data.test is None
    assert data.train.resident.shape == (10, 3, 32, 32)


def test_one_file(tmp_path: Path) -> None:
    write(tmp_path / "my.idx.gz", idx(images(10, 20, 30)))
    source = Idx(str(tmp_path / "my.idx.gz"))
    assert source.native_size() == 20
    data = source.load(DataSettings())
    assert data.train.labels is None and data.train.resident.shape == (10, 1, 20, 20)
    write(tmp_path / "my-images-idx3-ubyte", idx(images(10)))
    write(tmp_path / "my-labels-idx1-ubyte", idx(torch.arange(10) % 2))
    assert Idx(str(tmp_path / "my-images-idx3-ubyte")).load(DataSettings()).labelled


@pytest.mark.parametrize("dims", [1, 2, 4])
def test_other_dimensions_are_refused(tmp_path: Path, dims: int) -> None:
    write(tmp_path / "train-images-idx3-ubyte", idx(torch.zeros([2] * dims)))
    with pytest.raises(RequestError, match=rf"begins with 0000080{dims}, not 00000803"):
        Idx(str(tmp_path)).native_size()


def test_other_types_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "floats", struct.pack(">BBBB3I", 0, 0, 0x0D, 3, 1, 1, 1) + bytes(4))
    with pytest.raises(RequestError, match="not an IDX file of unsigned bytes in 3 dimensions"):
        read_idx(tmp_path / "floats", 3)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_the_wrong_length(tmp_path: Path, change: int) -> None:
    content = idx(images(2, 3, 4))
    content = content[:change] if change < 0 else content + bytes(change)
    write(tmp_path / "train-images-idx3-ubyte", content)
    has = 23 if change < 0 else "more"
    with pytest.raises(CoviewError, match=rf"promises 24 bytes of data, but it has {has}"):
        Idx(str(tmp_path)).load(DataSettings())


def test_a_header_cut_short(tmp_path: Path) -> None:
    write(tmp_path / "cut", idx(images(2))[:9])
    with pytest.raises(CoviewError, match="cut is damaged: it ends within its header"):
        read_idx(tmp_path / "cut", 3)


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress(idx(images(20)))
    flipped = packed[:500] + bytes(b ^ 255 for b in packed[500:600]) + packed[600:]
    path = tmp_path / "a.gz"
    path.write_bytes({"cut": packed[:-200], "garbage": b"\0" * 50, "flipped": flipped}[damage])
    with pytest.raises(CoviewError, match=r"a\.gz cannot be read: \w+"):
        read_idx(path, 3)


def test_labels_that_do_not_match(tmp_path: Path) -> None:
    write(tmp_path / "train-images-idx3-ubyte", idx(images(4)))
    write(tmp_path / "train-labels-idx1-ubyte", idx(torch.zeros(3)))
    with pytest.raises(CoviewError, match=r"has 4 images, but .*labels-idx1-ubyte has 3 labels"):
        Idx(str(tmp_path)).load(DataSettings())


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="idx needs a path: write idx:PATH"):
        Idx(None)
    with pytest.raises(RequestError, match=r"no file or folder .*dataset-fashion-mnist"):
        Idx(str(tmp_path / "nowhere"))
    with pytest.raises(RequestError, match=r"holds no train-images-idx3-ubyte\[\.gz\]"):
        Idx(str(tmp_path))
    write(tmp_path / "train-images-idx3-ubyte", idx(images(0)))
    with pytest.raises(RequestError, match="holds no images"):
        Idx(str(tmp_path)).load(DataSettings())


def test_no_more_memory_is_taken_than_the_header_says(tmp_path: Path) -> None:
    zeros = bytes(64 << 20)
    for shape in ((100_000, 100_000, 1), (4, 2, 2)):
        head = struct.pack(">BBBB3I", 0, 0, 8, 3, *shape)
        with gzip.open(tmp_path / "bomb.gz", "wb", compresslevel=9) as file:
            file.write(head + zeros)
        tracemalloc.start()
        try:
            with pytest.raises(CoviewError, match="its header promises"):
                read_idx(tmp_path / "bomb.gz", 3)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
