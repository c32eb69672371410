"""The path of JPEG files to the GPU, walked with the CPU in the GPU's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from coview.data.base import DataSettings, Split
from coview.data.decode import Files
from coview.data.gpu_jpeg import Contents, decoded, files_of, torchvisions
from coview.data.loader import Batches, fetched
from coview.data.sources.folder import Folder

CPU = torch.device("cpu")


def photos(folder: Path) -> tuple[str, ...]:
    """JPEG in colour, grey and CMYK, a PNG, one cut off, one that is text, one that is gone."""
    random = np.random.RandomState(0)
    paths = []
    for number, mode in enumerate(("RGB", "RGB", "L", "CMYK", "RGB", "RGB", "RGB", "RGB")):
        noise = Image.fromarray(random.randint(0, 256, (40, 30 + number, 3), np.uint8))
        path = folder / f"{number}.jpg"
        noise.convert(mode).save(path, "PNG" if number == 4 else "JPEG")
        paths.append(str(path))
    (folder / "5.jpg").write_bytes((folder / "5.jpg").read_bytes()[:300])
    (folder / "6.jpg").write_bytes(b"text")
    (folder / "7.jpg").unlink()
    return tuple(paths)


def walked(images: Any, rows: list[list[int]], decoder: Any) -> list[tuple[Tensor, Any]]:
    files = files_of(images)
    assert files is not None
    contents = fetched(Contents(images), rows, 0, list)
    return list(decoded(images, files, zip(rows, contents, strict=True), CPU, decoder))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_the_usual_way(tmp_path: Path, channels: int) -> None:
    files = Files(photos(tmp_path), 24, channels, "gpu")
    decoder = torchvisions()
    assert decoder is not None
    lists: list[Sequence[Tensor]] = []

    def watched(contents: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        lists.append(contents)
        return decoder(contents, device)

    (images, faults), (few, none) = walked(
        Subset(files, [3, 2, 1, 0, 4, 5, 6, 7]), [[0, 1, 2, 5, 6, 7], [4, 3]], watched
    )
    if channels == 3:
        assert torch.equal(images[:3], torch.stack([files[3], files[2], files[1]]))
        assert torch.equal(few, torch.stack([files[4], files[0]]))
    assert {row for row, _ in faults} == {5, 6, 7} and none == []
    assert images.shape == (6, channels, 24, 24)
    # All at once first; then one by one, as one of them is cut off.
    assert [len(some) for some in lists] == [4, 1, 1, 1, 1, 1]


def test_only_where_it_is_asked_for(tmp_path: Path) -> None:
    paths = photos(tmp_path)
    assert files_of(Files(paths, 24, 3)) is None
    assert files_of(torch.zeros(2)) is None
    (tmp_path / "5.jpg").unlink(), (tmp_path / "6.jpg").unlink()
    settings = DataSettings(size=400, resident_mib=1, decoder="gpu", holdout=0.2)
    data = Folder(str(tmp_path)).load(settings)
    assert files_of(data.train.images) is not None
    # Without a GPU the usual way is gone.
    for batch in Batches(data.train, 2, 0, "cpu").epoch(0):
        expected = torch.stack([data.train.images[int(row)] for row in batch.indices])
        assert torch.equal(batch.images, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_they_are_close(tmp_path: Path) -> None:
    files = Files(photos(tmp_path)[:5], 24, 3, "gpu")
    for batch in Batches(Split(files), 5, 0, "cuda").epoch(0):
        expected = torch.stack([files[int(row)] for row in batch.indices])
        assert (batch.images.cpu().float() - expected.float()).abs().max() < 16
