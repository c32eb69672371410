from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from coview.data.base import DataSettings
from coview.data.sources import torchvision as named
from coview.errors import CoviewError, RequestError

RANDOM = np.random.RandomState(0)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.randint(0, 256, shape, np.uint8)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision take files that are not the published ones."""
    for cls in (datasets.CIFAR10, datasets.STL10, datasets.SVHN):
        monkeypatch.setattr(cls, "_check_integrity", lambda self: True)
    for cls in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(cls, "meta", cls.meta | {"md5": None})


def write_cifar10(root: Path) -> dict[str, np.ndarray]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    written = {}
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
        written[name] = noise(4, 3 * 32 * 32)
        entry = {"data": written[name], "labels": [0, 1, 2, int(name[-1] == "2")]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car", "bird"]}))
    return written


@pytest.mark.usefixtures("unchecked")
def test_cifar10(tmp_path: Path) -> None:
    written = write_cifar10(tmp_path)
    source = named.CIFAR10(str(tmp_path))
    data = source.load(DataSettings())
    assert data.name == f"cifar10:{tmp_path}" and source.native_size() == data.size == 32
    stored = np.concatenate([written[f"data_batch_{n}"] for n in range(1, 6)])
    assert torch.equal(data.train.images, torch.from_numpy(stored).view(-1, 3, 32, 32))
    tested = torch.from_numpy(written["test_batch"]).view(-1, 3, 32, 32)
    assert torch.equal(data.test.images, tested)
    assert data.train.labels[:8].tolist() == [0, 1, 2, 0, 0, 1, 2, 1]
    assert data.classes == ("plane", "car", "bird") and data.reference is data.train
    assert data.mean == (0.4914, 0.4822, 0.4465) and data.std == (0.2470, 0.2435, 0.2616)


@pytest.mark.usefixtures("unchecked")
def test_statistics_of_other_channels_are_computed(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    data = named.CIFAR10(str(tmp_path)).load(DataSettings(channels=1, size=16))
    assert data.train.resident.shape == (20, 1, 16, 16)
    assert data.mean == pytest.approx((data.train.resident.float().mean().item() / 255,))


@pytest.mark.usefixtures("unchecked")
def test_cifar100(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        entry = {"data": noise(3, 3072), "fine_labels": [0, 2, 1], "coarse_labels": [0, 0, 0]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a", "b", "c"]}))
    data = named.CIFAR100(str(tmp_path)).load(DataSettings())
    assert data.train.labels.tolist() == [0, 2, 1] and data.classes == ("a", "b", "c")
    assert data.mean == (0.5071, 0.4865, 0.4409)


def write_stl10(root: Path) -> dict[str, np.ndarray]:
    folder = root / "stl10_binary"
    folder.mkdir()
    written = {"train": noise(4, 3, 96, 96), "unlabeled": noise(6, 3, 96, 96)}
    written["test"] = noise(3, 3, 96, 96)
    for name, images in written.items():
        # The files hold columns, not rows, of pixels.
        images.transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")
    np.array([1, 2, 1, 2], np.uint8).tofile(folder / "train_y.bin")
    np.array([2, 2, 1], np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    return written


@pytest.mark.usefixtures("unchecked")
def test_stl10_trains_on_all_and_compares_with_the_labelled(tmp_path: Path) -> None:
    written = {name: torch.from_numpy(images) for name, images in write_stl10(tmp_path).items()}
    source = named.STL10(str(tmp_path))
    data = source.load(DataSettings(size=96))
    assert source.native_size() == 96
    assert torch.equal(data.train.images, torch.cat([written["train"], written["unlabeled"]]))
    assert data.train.labels is None and data.labelled
    assert torch.equal(data.reference.images, written["train"])
    assert data.reference.labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(data.test.images, written["test"])
    assert data.test.labels.tolist() == [1, 1, 0] and data.classes == ("airplane", "bird")


@pytest.mark.usefixtures("unchecked")
def test_stl10_enlarged_is_not_kept_in_memory(tmp_path: Path) -> None:
    write_stl10(tmp_path)
    data = named.STL10(str(tmp_path)).load(DataSettings(size=256, resident_mib=1))
    assert data.size == 256 and data.train.resident is None and len(data.train) == 10
    assert data.train.images[9].shape == (3, 256, 256)


@pytest.mark.usefixtures("unchecked")
def test_svhn(tmp_path: Path) -> None:
    images = noise(32, 32, 3, 5)
    for name in ("train", "test"):
        labels = np.array([[10], [1], [2], [9], [10]], np.uint8)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": images, "y": labels})
    data = named.SVHN(str(tmp_path)).load(DataSettings())
    assert torch.equal(data.train.images, torch.from_numpy(images.transpose(3, 2, 0, 1)))
    # The files call the digit 0 class 10.
    assert data.test.labels.tolist() == [0, 1, 2, 9, 0] and data.classes[9] == "9"


@pytest.mark.parametrize("cls", [named.MNIST, named.FashionMNIST])
def test_mnist(tmp_path: Path, cls: type[named.MNIST]) -> None:
    folder = tmp_path / cls.holds
    folder.mkdir(parents=True)
    images, labels = noise(6, 28, 28), bytes(range(6))
    for stem in ("train", "t10k"):
        head = struct.pack(">4B3I", 0, 0, 8, 3, 6, 28, 28)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">4BI", 0, 0, 8, 1, 6)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(head + labels)
    data = cls(str(tmp_path)).load(DataSettings())
    assert torch.equal(data.train.images, torch.from_numpy(images)[:, None])
    assert data.test.labels.tolist() == list(range(6)) and len(data.classes) == 10
    assert (data.mean, data.std) == cls.published and data.size == 28
    coloured = cls(str(tmp_path)).load(DataSettings(channels=3, size=32))
    assert coloured.train.resident.shape == (6, 3, 32, 32) and len(coloured.mean) == 3


def write_imagenet(root: Path) -> None:
    for split in ("train", "val", "test"):
        for wnid in ("n02", "n01"):
            path = root / split / ("" if split == "test" else wnid) / f"{wnid}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (300, 260)).save(path)


def test_imagenet(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    data = named.ImageNet(str(tmp_path)).load(DataSettings())
    assert data.name == f"imagenet:{tmp_path}" and data.size == 256 and data.labelled
    assert data.classes == ("n01", "n02") and data.test.names[1] == "val/n02/n02.JPEG"


def test_where_data_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVIEW_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named.data_root(None) == tmp_path / ".cache/coview"
    assert named.data_root("~/here") == tmp_path / "here"
    monkeypatch.setenv("COVIEW_DATA", "/elsewhere")
    assert named.data_root(None) == Path("/elsewhere")
    assert named.data_root("/given") == Path("/given")
    write_imagenet(tmp_path / "imagenet")
    monkeypatch.setenv("COVIEW_DATA", str(tmp_path))
    assert named.ImageNet().root == tmp_path / "imagenet"


SETS = [named.CIFAR10, named.CIFAR100, named.STL10, named.SVHN, named.MNIST, named.FashionMNIST]


@pytest.mark.parametrize("cls", SETS)
def test_a_missing_set_says_where_and_how(tmp_path: Path, cls: type[named.Named]) -> None:
    sentence = rf"{cls.kind} is not in {tmp_path} \(no .*{cls.holds}\).*{cls.kind}:PATH.*--download"
    with pytest.raises(RequestError, match=sentence):
        cls(str(tmp_path))
    assert cls(str(tmp_path), download=True).download


def test_a_missing_imagenet_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ImageNet is not in .*ILSVRC2012_img_train\.tar"):
        named.ImageNet(str(tmp_path), download=True)


def test_a_damaged_set(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    # Here torchvision's own check is at work: these are not the published files.
    with pytest.raises(CoviewError, match=r"cifar10 in .* cannot be read: .*delete them and down"):
        named.CIFAR10(str(tmp_path)).load(DataSettings())


@pytest.mark.parametrize("cls", SETS)
@pytest.mark.usefixtures("unchecked")
def test_download_is_passed_on(
    tmp_path: Path, cls: type[named.Named], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(cls.dataset, "download", unreachable)
    with pytest.raises(CoviewError, match="cannot be read: no network here"):
        cls(str(tmp_path), download=True).load(DataSettings())


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_published_statistics_of_fashion_mnist(idx_statistics: Callable[[Path], object]) -> None:
    mean, std = named.FashionMNIST.published
    assert idx_statistics(FASHION) == (pytest.approx(mean, abs=2e-4), pytest.approx(std, abs=2e-4))


@pytest.fixture
def idx_statistics() -> Callable[[Path], object]:
    from coview.data.sources.idx import Idx, read_idx

    def over_all(folder: Path) -> object:
        pixels = read_idx(Idx(str(folder)).train, 3).float() / 255
        return (pixels.mean().item(),), (pixels.std().item(),)

    return over_all
