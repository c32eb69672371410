"""Which rows of the bank an epoch moves: those of its images, whatever was shown for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from coview.recipes.configure import Changes
from coview.training.loop import fit
from coview.training.run import Run
from coview.training.start import Request, start

COUNT, BATCH = 21, 8


def begun(folder: Path, out: Path) -> Run:
    tiny = {"target.draws": 8, "encoder.dim": 4, "data.bad_limit": 2}
    changes = Changes(
        set=tiny, epochs=1, batch_size=BATCH, image_size=16, backbone="resnet10-quarter"
    )
    asked = {"evaluate": False, "device": "cpu"}
    return start(Request(method="instdisc", data=folder, changes=changes, out=out, settings=asked))


def rows(run: Run) -> torch.Tensor:
    """Return the bank (N, D), the one part of a method that has a row for each image."""
    (found,) = (part for name, part in run.method.named_buffers() if name.endswith(".rows"))
    return found


def test_rows_that_an_epoch_left_out_keep_their_start(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(COUNT):
        noise = np.random.RandomState(row).randint(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{row:02}.png")
    first = begun(folder, tmp_path / "first")
    visited = {int(row) for step in range(2) for row in first.batches.indices(0, step)}
    assert len(visited) == 2 * BATCH, "five of 21 images are too few for a batch"
    before = rows(first).clone()
    spoilt = min(visited)
    (folder / f"{spoilt:02}.png").write_bytes(b"no image")
    run = begun(folder, tmp_path / "run")
    assert torch.equal(rows(run), before)
    fit(run)
    moved = {row for row in range(COUNT) if not torch.equal(rows(run)[row], before[row])}
    assert moved == visited, "that of the unreadable image follows its stand-in"
