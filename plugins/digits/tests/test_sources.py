"""Moving digits: whole, the same everywhere, split by digit, and taken by the demo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits

from coview.cli import main
from coview.data.base import DataSettings
from coview.errors import RequestError
from coview.registry import find
from coview.views.sheet import RIGHT, WRONG
from coview_digits.drawing import CONTRAST, coloured, moved

SETS = {"moved-digits": 1, "colour-digits": 3}


def loaded(name: str, **settings):
    return find("datasets", name).load()().load(DataSettings(**settings))


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_split_by_digit(name: str) -> None:
    data = loaded(name)
    assert data.train.images.shape == (4314, SETS[name], 32, 32)
    assert data.test.images.shape == (1077, SETS[name], 32, 32)
    train, test = (set((split.rows // 3).tolist()) for split in (data.train, data.test))
    assert not train & test and len(train) + len(test) == 1797
    whole = torch.from_numpy(load_digits().target).long()
    for split in (data.train, data.test):
        assert torch.equal(split.labels, whole[split.rows // 3])
    again = loaded(name)
    assert torch.equal(again.train.images, data.train.images)
    assert again.fingerprint == data.fingerprint
    assert loaded(name, holdout=0.3).fingerprint != data.fingerprint


def test_no_ink_leaves_the_picture_and_sizes_are_as_said() -> None:
    digits = torch.zeros(300, 8, 8)
    digits[:, 1:7, 2:6] = 1.0
    drawn = moved(digits, np.random.RandomState(1))
    # The box covers 6 x 4 of 64 pixels; a digit's square has 14 to 26 of 32 pixels a side.
    ink = drawn.sum((1, 2))
    assert ink.min() > 24 / 64 * 14**2 * 0.85 and ink.max() < 24 / 64 * 26**2 * 1.15
    # All of it is inside: nothing that was drawn is cut off, so ink and size go together.
    side = (ink / (24 / 64)).sqrt()
    assert 13 < side.min() < 15.5 and 24.5 < side.max() < 27
    centre = (drawn.sum(1) * torch.arange(32)).sum(1) / ink
    assert centre.min() < 8 and centre.max() > 23


def test_colours_are_told_apart() -> None:
    shapes = torch.zeros(500, 4, 4)
    shapes[:, 0, 0] = 1.0
    painted = coloured(shapes, np.random.RandomState(2))
    apart = (painted[:, :, 0, 0] - painted[:, :, 1, 1]).norm(dim=1) / 3**0.5
    assert apart.min() >= CONTRAST - 1e-6
    assert torch.equal(painted[:, :, 1, 1], painted[:, :, 3, 2])


def test_a_path_is_refused() -> None:
    with pytest.raises(RequestError, match="takes no path, but 'x' was given"):
        find("datasets", "moved-digits").load()("x")


def test_the_demo_ends_with_its_table_and_its_picture(tmp_path) -> None:
    # As people call it: click keeps a command's help as the first call makes it.
    done = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "run"), "--epochs", "1"])
    assert done.exit_code == 0, done.output
    words = ("chance", "raw pixels", "untrained network", "trained network")
    lines = [line.split() for line in done.output.splitlines()]
    values = {
        word: float(line[-2]) for word in words for line in lines if word.split() == line[:-2]
    }
    assert set(values) == set(words) and values["chance"] == 10.0
    assert 60 < values["raw pixels"] < 75 and values["untrained network"] < 60
    with Image.open(tmp_path / "run" / "neighbours.png") as picture:
        drawn = np.asarray(picture)
    # Eight digits with six neighbours each, before and after: all in a frame, 3 pixels wide.
    framed = (drawn == RIGHT).all(2).sum(), (drawn == WRONG).all(2).sum()
    assert min(framed) > 0 and sum(framed) == 8 * 12 * 4 * 3 * (48 - 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_training_is_worth_it(tmp_path, seed: int) -> None:
    import coview

    run = coview.train(
        "simclr",
        data="moved-digits",
        preset="tiny",
        set={"views.flip_p": 0.0},
        out=tmp_path / "run",
        seed=seed,
        progress=False,
    )
    assert run.value("knn_top1") > run.value("raw_pixels_knn_top1") + 0.12
    assert run.value("knn_top1") > run.value("untrained_knn_top1") + 0.20
