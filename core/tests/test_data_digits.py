from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import avg_pool2d

from coview.data.base import DataSettings
from coview.data.sources.digits import Digits
from coview.errors import RequestError


def test_digits() -> None:
    source = Digits(None)
    data = source.load(DataSettings())
    assert source.native_size() == data.size == 32 and data.channels == 1
    assert data.classes == tuple("0123456789") and data.labelled
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.train.resident.shape == (1438, 1, 32, 32)
    assert data.train.resident.dtype == torch.uint8 and data.train.labels.dtype == torch.int64
    shares = data.test.labels.bincount() / load_digits().target.size * 10
    assert (shares - 0.2).abs().max() < 0.01
    assert data.mean == pytest.approx((0.30,), abs=0.02) and 0.2 < data.std[0] < 0.4
    assert data.reference is data.train


def test_digits_at_their_own_size_are_the_originals() -> None:
    data = Digits().load(DataSettings(size=8))
    bunch = load_digits()
    originals = {
        (torch.from_numpy(image) * 255 / 16).round().to(torch.uint8).numpy().tobytes(): int(label)
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    seen = set()
    for split in (data.train, data.test):
        for image, label in zip(split.resident, split.labels.tolist(), strict=True):
            assert originals[image.numpy().tobytes()] == label
            seen.add(image.numpy().tobytes())
    assert seen == set(originals)
    assert data.train.resident.max() == 255


def test_enlarging_keeps_the_picture() -> None:
    small = Digits().load(DataSettings(size=8)).train.resident.float()
    large = Digits().load(DataSettings()).train.resident.float()
    both = torch.stack([small.flatten(), avg_pool2d(large, 4).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.97


def test_digits_do_not_change() -> None:
    first, again = (Digits().load(DataSettings()) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.test.images, again.test.images)
    assert torch.equal(Digits().load(DataSettings(size=16)).test.labels, first.test.labels)


def test_digits_in_colour() -> None:
    data = Digits().load(DataSettings(channels=3))
    assert data.train.resident.shape[1] == 3 == len(data.mean)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_digits_take_no_path() -> None:
    with pytest.raises(RequestError, match=r"digits .* takes no path.*'/data/digits'"):
        Digits("/data/digits")
