"""Data sets that torchvision knows by name, read whole into memory, and ImageNet.

Each is looked for in the given path, else in the folder that the environment
variable COVIEW_DATA names, else in ``~/.cache/coview``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torchvision import datasets

from coview.data.assemble import Statistics, assemble
from coview.data.base import DataSettings, ImageData, Split
from coview.data.sources.folder import Folder
from coview.data.splits import digest
from coview.errors import CoviewError, RequestError


def data_root(path: str | None) -> Path:
    """Return the folder that a data set is looked for in."""
    return Path(path or os.environ.get("COVIEW_DATA") or "~/.cache/coview").expanduser()


@attrs.frozen(eq=False)
class Parts:
    """What torchvision read; images are (N, C, H, W) uint8."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    reference: Split | None = None


class Named:
    """A data set that torchvision holds as one array; a subclass says which.

    Attributes:
        kind: its name.
        native: pixels a side.
        holds: what its folder must hold.
        published: statistics of its training images.
        dataset: torchvision's class.
    """

    kind: ClassVar[str]
    native: ClassVar[int]
    holds: ClassVar[str]
    published: ClassVar[Statistics | None] = None
    dataset: ClassVar[Any]

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Look for the data; those to be downloaded are fetched when loaded."""
        self.name = self.kind if path is None else f"{self.kind}:{path}"
        self.root, self.download = data_root(path), download
        if not download and not (self.root / self.holds).exists():
            raise RequestError(
                f"There is no {self.kind} in {self.root} (no {self.root / self.holds}). Name its "
                f"folder with {self.kind}:PATH or in COVIEW_DATA, or fetch it with --download."
            )

    def native_size(self) -> int:
        """Return the pixels a side as published."""
        return self.native

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load and describe, with the published splits."""
        try:
            parts = self._read()
        except (RuntimeError, OSError, ValueError) as error:
            raise CoviewError(
                f"The data set {self.kind} in {self.root} cannot be read: {error}. If its files "
                f"are damaged, delete them and fetch them with --download."
            ) from error
        train, test = parts.train, parts.test
        return assemble(
            self.name,
            train,
            test,
            settings,
            native=self.native,
            channels=len(parts.train.images[0]),
            classes=parts.classes,
            fingerprint=digest(train.resident, train.labels, test.resident, test.labels),
            reference=parts.reference,
            published=self.published,
        )

    def _read(self) -> Parts:
        train = self.dataset(self.root, train=True, download=self.download)
        test = self.dataset(self.root, train=False)
        return Parts(self._split(train), self._split(test), tuple(train.classes))

    def _split(self, dataset: Any) -> Split:
        """Take the array and the labels out of a torchvision data set."""
        labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
        return Split(self._images(dataset), torch.as_tensor(labels).long())

    def _images(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.data).contiguous()


class CIFAR10(Named):
    """60,000 colour images of 10 classes, 32 pixels a side (Krizhevsky 2009)."""

    kind, native, holds = "cifar10", 32, "cifar-10-batches-py"
    # Taken over the training images; as in github.com/kuangliu/pytorch-cifar issue 19.
    published = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    dataset = datasets.CIFAR10

    def _images(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous()


class CIFAR100(CIFAR10):
    """60,000 colour images of 100 classes, 32 pixels a side (Krizhevsky 2009)."""

    kind, holds, dataset = "cifar100", "cifar-100-python", datasets.CIFAR100
    # Taken over the training images; as in github.com/chatflip/CalculationMeanStd.
    published = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


class SVHN(Named):
    """Cropped house numbers, 73,257 and 26,032, 32 pixels a side (Netzer et al. 2011)."""

    kind, native, holds, dataset = "svhn", 32, "train_32x32.mat", datasets.SVHN
    # Taken over the training images; as in github.com/helloxjb/ViPER-main.
    published = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))

    def _read(self) -> Parts:
        train, test = (
            self._split(self.dataset(self.root, split, download=self.download))
            for split in ("train", "test")
        )
        return Parts(train, test, tuple("0123456789"))


class STL10(Named):
    """100,000 unlabelled and 5,000 + 8,000 labelled images, 96 pixels (Coates et al. 2011).

    Trained on the unlabelled and the labelled training images; a test image is
    compared with the latter.
    """

    kind, native, holds, dataset = "stl10", 96, "stl10_binary", datasets.STL10

    def _read(self) -> Parts:
        train = self.dataset(self.root, "train+unlabeled", download=self.download)
        test = self._split(self.dataset(self.root, "test"))
        whole = self._split(train)
        # torchvision puts the labelled images first, and gives -1 to the others.
        labelled = int((torch.as_tensor(train.labels) >= 0).sum())
        images, labels = whole.images[:labelled], torch.as_tensor(train.labels)[:labelled].long()
        return Parts(Split(whole.images), test, tuple(train.classes), Split(images, labels))


class MNIST(Named):
    """70,000 grey digits of 28 pixels a side (LeCun et al. 1998)."""

    kind, native, holds = "mnist", 28, "MNIST/raw"
    # Taken over the training images; as in PyTorch's examples/mnist.
    published = ((0.1307,), (0.3081,))
    dataset = datasets.MNIST

    def _images(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.data)[:, None]


class FashionMNIST(MNIST):
    """70,000 grey pictures of clothes of 28 pixels a side (Xiao et al. 2017)."""

    kind, holds, dataset = "fashion-mnist", "FashionMNIST/raw", datasets.FashionMNIST
    # Taken over the training images; as in github.com/chatflip/CalculationMeanStd.
    published = ((0.2860,), (0.3530,))


class ImageNet(Folder):
    """ILSVRC 2012: ``train`` and ``val``, each with 1,000 class folders (Deng et al. 2009)."""

    kind = "imagenet"
    held = ("val",)

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Look for the folders; nobody may hand the files on, so none are downloaded."""
        root = Path(path) if path else data_root(None) / "imagenet"
        if not ((root / "train").is_dir() and (root / "val").is_dir()):
            raise RequestError(
                f"There is no ImageNet in {root} (no train and val with a folder a class). It "
                f"cannot be downloaded for you: get ILSVRC2012_img_train.tar, "
                f"ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org, "
                f"unpack them with torchvision.datasets.ImageNet, and write imagenet:PATH."
            )
        super().__init__(str(root))
