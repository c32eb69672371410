"""torchvision's data sets, read into memory as a whole, and ImageNet.

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

from coview.caches import home_folder
from coview.data.assemble import Statistics, assemble
from coview.data.base import DataSettings, ImageData, Split
from coview.data.sources.folder import Folder
from coview.data.splits import digest
from coview.errors import CoviewError, RequestError


def data_root(path: str | None) -> Path:
    """Return the folder that a data set is looked for in."""
    given = path or os.environ.get("COVIEW_DATA")
    return Path(given).expanduser() if given else home_folder()


@attrs.frozen(eq=False)
class Parts:
    """The splits that torchvision read; images are (N, C, H, W) uint8."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    reference: Split | None = None


class Named:
    """Base class of data sets that torchvision reads as one array.

    Attributes:
        kind: name of the data set.
        native: pixels per side.
        holds: a file or folder that its folder must contain.
        published: published statistics of its training images.
        dataset: torchvision's class.
    """

    kind: ClassVar[str]
    native: ClassVar[int]
    holds: ClassVar[str]
    published: ClassVar[Statistics | None] = None
    dataset: ClassVar[Any]

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Look for the data; a download starts only when they are loaded."""
        self.name = self.kind if path is None else f"{self.kind}:{path}"
        self.root, self.download = data_root(path), download
        if not download and not (self.root / self.holds).exists():
            raise RequestError(
                f"The data set {self.kind} is not in {self.root} (no {self.root / self.holds}). "
                f"Give its folder as {self.kind}:PATH or in COVIEW_DATA, or add --download."
            )

    def native_size(self) -> int:
        """Return the pixels per side of the published images."""
        return self.native

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load and describe the data, with the published splits."""
        try:
            parts = self._read()
        except (RuntimeError, OSError, ValueError) as error:
            raise CoviewError(
                f"The data set {self.kind} in {self.root} cannot be read: {error}. If its files "
                f"are damaged, delete them and download them again with --download."
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
    """60,000 colour images of 10 classes, 32 pixels per side (Krizhevsky 2009)."""

    kind, native, holds = "cifar10", 32, "cifar-10-batches-py"
    # Taken over the training images; as in github.com/kuangliu/pytorch-cifar issue 19.
    published = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    dataset = datasets.CIFAR10

    def _images(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.data).permute(0, 3, 1, 2).contiguous()


class CIFAR100(CIFAR10):
    """60,000 colour images of 100 classes, 32 pixels per side (Krizhevsky 2009)."""

    kind, holds, dataset = "cifar100", "cifar-100-python", datasets.CIFAR100
    # Taken over the training images; as in github.com/chatflip/CalculationMeanStd.
    published = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


class SVHN(Named):
    """73,257 + 26,032 cropped house numbers, 32 pixels per side (Netzer et al. 2011)."""

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

    Training uses the unlabelled and the labelled training images; test images are
    compared with the labelled ones.
    """

    kind, native, holds, dataset = "stl10", 96, "stl10_binary", datasets.STL10

    def _read(self) -> Parts:
        train = self.dataset(self.root, "train+unlabeled", download=self.download)
        test = self._split(self.dataset(self.root, "test"))
        whole = self._split(train)
        # torchvision puts the labelled images first and labels the others -1.
        labelled = int((torch.as_tensor(train.labels) >= 0).sum())
        images, labels = whole.images[:labelled], torch.as_tensor(train.labels)[:labelled].long()
        return Parts(Split(whole.images), test, tuple(train.classes), Split(images, labels))


class MNIST(Named):
    """70,000 grey digits, 28 pixels per side (LeCun et al. 1998)."""

    kind, native, holds = "mnist", 28, "MNIST/raw"
    # Taken over the training images; as in PyTorch's examples/mnist.
    published = ((0.1307,), (0.3081,))
    dataset = datasets.MNIST

    def _images(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.data)[:, None]


class FashionMNIST(MNIST):
    """70,000 grey pictures of clothes, 28 pixels per side (Xiao et al. 2017)."""

    kind, holds, dataset = "fashion-mnist", "FashionMNIST/raw", datasets.FashionMNIST
    # Taken over the training images; as in github.com/chatflip/CalculationMeanStd.
    published = ((0.2860,), (0.3530,))


class ImageNet(Folder):
    """ILSVRC 2012: ``train`` and ``val``, each with 1,000 class folders (Deng et al. 2009)."""

    kind = "imagenet"
    held = ("val",)

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Look for the folders; the licence forbids passing the files on, so no download."""
        root = Path(path) if path else data_root(None) / "imagenet"
        if not ((root / "train").is_dir() and (root / "val").is_dir()):
            raise RequestError(
                f"ImageNet is not in {root} (no train and val with one folder per class). It "
                f"cannot be downloaded for you: get ILSVRC2012_img_train.tar, "
                f"ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from image-net.org, "
                f"unpack them with torchvision.datasets.ImageNet, and write imagenet:PATH."
            )
        super().__init__(str(root))
