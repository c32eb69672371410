"""Attention in the page: it is the network's own, drawn at the right place."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import coview
from coview.data.loader import read_batches
from coview.data.picking import evenly
from coview.nn.attention import attention
from coview_report.attending import attended


def grey(address: str) -> np.ndarray:
    """Return a picture's brightness from its data URI."""
    data = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)


def test_pictures_are_bright_where_the_network_looks(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("coview_simclr")
    settings = {"preset": "none", "epochs": 1, "max_steps": 1, "device": "cpu", "batch_size": 16}
    run = coview.train(
        "simclr", photographs, out=tmp_path / "vit", backbone="vit_tiny_patch16_224",
        set={"backbone.patch": 8}, image_size=24, progress=False, report=False, **settings,
    )  # fmt: skip
    found = attended(run.path, {"device": "cpu", "workers": 0})
    network = coview.load_backbone(run.path)
    split = run.data.test
    images = next(read_batches(split, [evenly(split, 6)])).float() / 255
    maps = attention(network.backbone, (images - network.mean) / network.std)
    assert maps.shape == (6, 3, 3, 3) and len(found) == 6
    for row, heads, image in zip(found, maps, images, strict=True):
        assert len(row.heads) == 3
        # How bright a patch is beside the untouched image is how strongly it is attended to.
        whole = grey(row.image)
        assert abs(whole.mean() - 255 * image.mean()) < 12
        for address, heat in [(row.mean, heads.mean(0)), *zip(row.heads, heads, strict=True)]:
            sides = [(round(112 * n / 3) + 4, round(112 * (n + 1) / 3) - 4) for n in range(3)]
            lit = torch.tensor([
                [grey(address)[a:b, c:d].mean() / whole[a:b, c:d].mean() for c, d in sides]
                for a, b in sides
            ])  # fmt: skip
            wanted = 0.15 + 0.85 * heat / heat.max()
            assert (lit - wanted).abs().max() < 0.08


def test_a_network_without_a_class_token_has_none(trained: Path) -> None:
    assert attended(trained, {"device": "cpu", "workers": 0}) == ()
