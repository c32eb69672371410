"""Packs that keep whole images, and fields: what a run gets is what the files give."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coview.data.base import DataSettings, ImageData
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview.data.sources import packing as partial
from coview.data.sources.arrays import Objects
from coview.data.sources.pack import Packed
from coview.data.sources.packing import pack
from coview.data.whole import Buffer
from coview.errors import CoviewError, RequestError

SIDE = 60
SIZES = ((90, 120), (120, 90), (70, 100), (128, 80), (50, 60))


def settings(**changes: Any) -> DataSettings:
    """Few of these images fit into memory, so they are read on demand."""
    usual = {"fit": "whole", "whole_side": SIDE, "size": 96, "resident_mib": 1}
    return DataSettings(**{**usual, **changes})


@pytest.fixture
def source(tmp_path: Path) -> str:
    """60 files of five sizes, some of them JPEG, one unreadable."""
    random = np.random.RandomState(0)
    for row in range(60):
        coarse = random.randint(0, 256, (9, 12, 3), np.uint8)
        path = tmp_path / "photos" / "ab"[row % 2] / f"{row:02}.{('png', 'jpg')[row % 3 == 0]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(SIZES[row % 5][::-1]).save(path)
    (tmp_path / "photos" / "a" / "08.png").write_bytes(b"no image")
    return f"folder:{tmp_path}/photos"


def made(source: str, out: Path, **options: Any) -> Packed:
    pack(open_source(source).load(settings()), out, whole_side=SIDE, **options)
    return Packed(str(out))


def batches(data: ImageData, epoch: int = 1, workers: int = 0) -> list[tuple[Tensor, Tensor]]:
    read = Batches(data.train, 8, 3, "cpu", workers, whole=True)
    return [(batch.images, batch.extents) for batch in read.epoch(epoch)]


@pytest.mark.parametrize("resident", [1, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_files(
    source: str, tmp_path: Path, resident: int, workers: int
) -> None:
    asked = settings(resident_mib=resident)
    ours, theirs = (one.load(asked) for one in (made(source, tmp_path / "p"), open_source(source)))
    assert (ours.fit, ours.fingerprint, ours.notes) == ("whole", theirs.fingerprint, ours.notes)
    assert isinstance(ours.train.whole, Buffer) == (resident == 64)
    assert ours.mean_pixels == pytest.approx(theirs.mean_pixels, rel=0.2)
    for (a, sizes), (b, known) in zip(batches(ours, workers=workers), batches(theirs), strict=True):
        sides = sizes[:, 1:]
        assert torch.equal(sides, known[:, 1:])
        if resident == 1:  # else the buffers are of all images, in an order of their own
            assert torch.equal(a, b) and torch.equal(sizes, known)
        for one, other in zip(sizes.tolist(), known.tolist(), strict=True):
            rows = [(first, first + height * width) for first, height, width in (one, other)]
            assert torch.equal(a[slice(*rows[0])], b[slice(*rows[1])])
    assert {tuple(size) for _, own in batches(ours) for size in own[:, 1:].tolist()} >= {(50, 60)}
    squares = made(source, tmp_path / "again").load(settings(fit="square"))
    assert squares.fit == "square" and squares.train.whole is None


def test_another_process_gets_the_path(source: str, tmp_path: Path) -> None:
    whole = made(source, tmp_path / "p").load(settings()).train.whole
    before = whole[3].clone()
    content = pickle.dumps(whole)
    assert len(content) < 400 and torch.equal(pickle.loads(content)[3], before)
    whole[3].zero_()
    assert torch.equal(pickle.loads(content)[3], before), "the file stays as it is"


def test_other_sides_and_channels(source: str, tmp_path: Path) -> None:
    packed = made(source, tmp_path / "p")
    known = packed.load(settings())
    for side, why in ((30, "they are reduced twice"), (90, "more crops are enlarged")):
        data = packed.load(settings(whole_side=side))
        (note,) = [note for note in data.notes if "data.whole_side" in note]
        assert note == f"Whole images were packed at data.whole_side = {SIDE}, not {side}: {why}."
        assert data.fingerprint != known.fingerprint
    assert max(image.shape[1] * image.shape[2] for image in data.train.whole) <= 4 * SIDE**2
    grey = packed.load(settings(channels=1)).train.whole
    assert all(len(image) == 1 for image in grey)
    pack(open_source(source).load(settings(fit="square")), tmp_path / "squares")
    data = Packed(str(tmp_path / "squares")).load(settings())
    assert data.fit == "square" and any("coview pack --whole 60" in note for note in data.notes)


def test_an_interrupted_pack_is_gone_on_with(
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted_at: Callable[[int], Callable[[int], None]],
) -> None:
    made(source, tmp_path / "whole")
    monkeypatch.setattr(partial, "BATCH", 4)
    monkeypatch.setattr(partial, "FLUSHED", 12 * 3 * SIDE**2)
    with pytest.raises(KeyboardInterrupt):
        made(source, tmp_path / "out", told=interrupted_at(91))
    unfinished = tmp_path / ".out.partial"
    for name in ("train.pixels", "train.sizes"):
        file = unfinished / name
        file.write_bytes(file.read_bytes() + b"torn")
    counts: list[int] = []
    made(source, tmp_path / "out", told=counts.append)
    assert sum(counts) == 60 + 48, "48 are trained on, and are there twice"
    assert any(count > 4 for count in counts[-12:]), "those that were flushed are not read again"
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes(), file.name


def test_damaged_ones(source: str, tmp_path: Path) -> None:
    packed = made(source, tmp_path / "p")
    pixels, sizes = tmp_path / "p" / "train.pixels", tmp_path / "p" / "train.sizes"
    before = pixels.read_bytes(), sizes.read_bytes()
    height, width = np.frombuffer(before[1], "<u4")[-2:].tolist()
    pixels.write_bytes(before[0][:-8])
    with pytest.raises(CoviewError, match=r"is damaged: .*its pixels are \d+ bytes, not"):
        packed.load(settings())
    pixels.write_bytes(before[0][: -height * width * 3])
    sizes.write_bytes(before[1][:-8])
    with pytest.raises(CoviewError, match="is damaged: .*47 sizes for 48 images"):
        packed.load(settings())


def test_fields_are_kept(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (20, 3, 9, 9), dtype=torch.uint8)
    fields = {"caption": [f"a {n}" for n in range(20)], "place": torch.rand(20, 2)}
    data = Objects({"images": images, **fields}).load(DataSettings(holdout=0.2))
    pack(data, tmp_path / "p")
    found = Packed(str(tmp_path / "p")).load(DataSettings())
    for ours, theirs in ((found.train, data.train), (found.test, data.test)):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.field("caption") == theirs.field("caption")
            assert torch.equal(ours.field("place"), theirs.field("place"))
    odd = Objects({"images": images, "what": [{1, n} for n in range(20)]}).load(DataSettings())
    with pytest.raises(RequestError, match="The field 'what' cannot be packed"):
        pack(odd, tmp_path / "q")
