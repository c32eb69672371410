"""A thousand damaged files: each gives an image or a sentence, in time, and no run is lost."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coview.data.bad_images import BadImageError
from coview.data.base import DataSettings
from coview.data.decode import decode
from coview.data.loader import Batches
from coview.data.sources.folder import SUFFIXES, Folder
from coview.data.values import Reading

SIDE = 24
FORMATS = ("png", "jpg", "gif", "bmp", "webp", "tif")
SLOWEST = 20.0
"""Seconds for one file: a damaged header may ask for as many pixels as are let through."""


def whole(random: np.random.RandomState) -> dict[str, bytes]:
    """A whole file of every kind that is read."""
    noise = random.randint(0, 256, (SIDE, SIDE, 3), np.uint8)
    image = Image.fromarray(noise)
    files = {kind: saved(image, kind) for kind in FORMATS}
    files["progressive.jpg"] = saved(image, "jpg", progressive=True)
    files["palette.png"] = saved(image.quantize(16), "png")
    files["deep.png"] = saved(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "png")
    files["stack.tif"] = saved(
        Image.fromarray(noise[..., 0]),
        "tif",
        save_all=True,
        append_images=[Image.fromarray(noise[..., band]) for band in (1, 2)],
    )
    files["packed.tif"] = saved(image, "tif", compression="tiff_lzw")
    frames = [Image.fromarray(255 - noise), image]
    for kind in ("gif", "webp", "png"):
        files[f"animated.{kind}"] = saved(image, kind, save_all=True, append_images=frames)
    for kind, save in (("npy", np.save), ("npz", np.savez)):
        file = io.BytesIO()
        save(file, noise)
        files[f"a.{kind}"] = file.getvalue()
    return files


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    names = {"jpg": "JPEG", "tif": "TIFF"}
    image.save(file, names.get(kind, kind.upper()), **options)
    return file.getvalue()


def damaged(content: bytes, random: np.random.RandomState) -> bytes:
    """Cut, flip, overwrite, double, or rewrite a number in the header."""
    way, data = random.randint(7), bytearray(content)
    place = random.randint(len(data))
    if way == 0:
        return bytes(data[:place])
    if way == 1:
        for _ in range(random.randint(1, 9)):
            data[random.randint(len(data))] ^= 1 << random.randint(8)
    elif way == 2:
        head = min(len(data), 64)
        data[random.randint(head)] = random.randint(256)
    elif way == 3:
        length = random.randint(1, 33)
        data[place : place + length] = random.bytes(length)
    elif way == 4:
        data[place:place] = data[: random.randint(1, 65)]
    elif way == 5:
        # A width or a length that promises gigabytes.
        huge = (2**31 - 1, 2**32 - 1, 65535, 0)[random.randint(4)]
        order = "<" if random.randint(2) else ">"
        data[place : place + 4] = struct.pack(f"{order}I", huge)
    else:
        del data[place : place + random.randint(1, 33)]
    return bytes(data)


def hostile(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged files; one of eight under the name of another kind."""
    random = np.random.RandomState(seed)
    files = whole(random)
    names = sorted(files)
    suffixes = sorted(SUFFIXES)
    for number in range(count):
        name = names[number % len(names)]
        suffix = "." + name.rpartition(".")[2]
        if random.randint(8) == 0:
            suffix = suffixes[random.randint(len(suffixes))]
        yield f"{number:05}{suffix}", damaged(files[name], random)


def check(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Decode hostile files one by one; return how many gave an image, and how many a sentence."""
    good = bad = 0
    for name, content in hostile(count, seed):
        path = folder / name
        path.write_bytes(content)
        started = time.perf_counter()
        try:
            image = decode(str(path), 16, 3)
            assert image.shape == (3, 16, 16) and image.dtype == torch.uint8
            good += 1
        except BadImageError as error:
            assert name in str(error) and "\n" not in str(error)
            bad += 1
        assert time.perf_counter() - started < SLOWEST, name
    return good, bad


def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    good, bad = check(tmp_path, 1000, seed=0)
    # A flipped bit of a pixel is no damage that a format without check sums could show.
    assert good > 100 and bad > 300


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_ten_thousand_more(tmp_path: Path, seed: int) -> None:
    check(tmp_path, 1000, seed)


def test_damaged_files_among_whole_ones_lose_no_epoch(tmp_path: Path) -> None:
    random = np.random.RandomState(1)
    content = saved(Image.fromarray(random.randint(0, 256, (SIDE, SIDE, 3), np.uint8)), "jpg")
    for number in range(500):
        (tmp_path / f"whole{number:03}.jpg").write_bytes(content)
    for name, damage in [*hostile(40, seed=2)][:8]:
        (tmp_path / name).write_bytes(damage)
    for resident in (2048, 1):
        settings = DataSettings(size=64, holdout=0.01, resident_mib=resident)
        data = Folder(str(tmp_path)).load(settings)
        batches = Batches(data.train, 50, 0, "cpu")
        assert [len(batch.indices) for batch in batches.epoch(0)] == [50] * 10
        assert 0 < len(data.train.bad) <= 8


@pytest.mark.parametrize("width", [20_000, 60_000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, width: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    with pytest.raises(BadImageError, match=r"bomb\.png cannot be decoded: .*pixels"):
        decode(str(tmp_path / "bomb.png"), 16, 3)


def promising(file: Path, shape: tuple[int, ...], content: bytes = b"") -> None:
    """Write an array's header with another shape than that of its content."""
    with file.open("wb") as opened:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(opened, header)
        opened.write(content)


def refused_within(path: Path, reading: Reading | None = None) -> str:
    """Decode a file that must be refused; return why. No more than a few MB may be taken."""
    tracemalloc.start()
    try:
        with pytest.raises(BadImageError) as caught:
            decode(str(path), 16, 3, reading)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros((3, 1024, 1024), np.uint8), b=np.zeros(1, np.uint8))
    assert path.stat().st_size < 10_000
    why = refused_within(path, Reading(max_pixels=1 << 20))
    assert "unpacks to 3145729 values" in why and "--set data.max_pixels=3145729" in why


@pytest.mark.parametrize("shape", [(3, 100_000, 100_000), (100_000, 100_000), (10**10, 1, 1)])
def test_an_array_that_promises_ten_billion_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    promising(tmp_path / "bomb.npy", shape)
    # A file with a hole is as long as it says, and takes no room on the disk.
    with (tmp_path / "bomb.npy").open("r+b") as file:
        file.truncate(3 * 10**10 + 1000)
    assert "more than data.max_pixels = 268435456" in refused_within(tmp_path / "bomb.npy")


def test_an_archive_whose_array_promises_more_than_it_holds(tmp_path: Path) -> None:
    promising(tmp_path / "a.npy", (3, 100_000, 100_000), b"few")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as packed:
        packed.write(tmp_path / "a.npy", "a.npy")
    assert "more than data.max_pixels" in refused_within(tmp_path / "bomb.npz")


def test_numbers_of_a_million_bytes_each(tmp_path: Path) -> None:
    with (tmp_path / "bomb.npy").open("wb") as opened:
        header = {"descr": "|V1000000", "fortran_order": False, "shape": (3, 90, 90)}
        np.lib.format.write_array_header_1_0(opened, header)
    assert "not numbers that a pixel can have" in refused_within(tmp_path / "bomb.npy")


def test_a_tiff_of_more_pages_than_any_image_has(tmp_path: Path) -> None:
    # Each directory of 8 entries points to the next one and to the same single pixel.
    entries = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 278: 1, 279: 1}
    content, start = bytearray(b"II*\0" + struct.pack("<I", 12) + b"\x7f\0\0\0"), 12
    for page in range(20_000):
        fields = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in entries.items())
        following = start + (page + 1) * (2 + len(fields) + 4)
        content += struct.pack("<H", len(entries)) + fields + struct.pack("<I", following)
    (tmp_path / "bomb.tif").write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(BadImageError, match="it has more than 4096 pages"):
        decode(str(tmp_path / "bomb.tif"), 16, 3)
    assert time.perf_counter() - started < SLOWEST / 2


def test_a_tiff_that_promises_ten_billion_samples(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.zeros((8, 8, 6), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257):
        place = content.index(struct.pack("<H", tag), 4)
        content[place + 8 : place + 12] = struct.pack("<I", 50_000)
        content[place + 2 : place + 4] = struct.pack("<H", 4)
    (tmp_path / "a.tif").write_bytes(content)
    assert "more than data.max_pixels" in refused_within(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(1, 1), (1, 65_500), (65_500, 1), (1, 7), (3, 4000)])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_thin_images_cost_no_gigabytes(tmp_path: Path, shape: tuple[int, int], kind: str) -> None:
    Image.new("RGB", shape, (200, 0, 0)).save(tmp_path / f"thin.{kind}")
    started = time.perf_counter()
    image = decode(str(tmp_path / f"thin.{kind}"), 256, 3)
    assert image.shape == (3, 256, 256) and (image[0] > 190).all() and (image[1] < 9).all()
    assert time.perf_counter() - started < 1


def test_an_animation_on_a_canvas_of_sixteen_million_columns(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 2), (shade, 0, 0)) for shade in (250, 20)]
    content = bytearray(saved(frames[0], "webp", save_all=True, append_images=frames[1:]))
    assert content[12:16] == b"VP8X"
    content[24:27] = (2**24 - 1).to_bytes(3, "little")
    (tmp_path / "wide.webp").write_bytes(content)
    started = time.process_time()
    assert decode(str(tmp_path / "wide.webp"), 16, 3).shape == (3, 16, 16)
    assert time.process_time() - started < 3


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_is_its_first_picture(tmp_path: Path, kind: str) -> None:
    shades = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (250, 20, 90)]
    options = {"lossless": True} if kind == "webp" else {}
    path = tmp_path / f"moving.{kind}"
    shades[0].save(path, save_all=True, append_images=shades[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert decode(str(path), 8, 3)[:, 4, 4].tolist() == [250, 0, 0]
