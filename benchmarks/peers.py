"""The peers that stand beside coview: lightly's loops, solo-learn's loss out of its wheel."""

from __future__ import annotations

import copy
import zipimport
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.engine import QUEUE, SIDE, STEP, images

METHODS = ("simclr", "moco", "byol")


class Lightly:
    """One of lightly's loops, from its documentation, and its own bare step.

    Args:
        method: of METHODS.
        backbone: torchvision's.
        device: where it trains.
    """

    def __init__(self, method: str, backbone: str, device: str) -> None:
        from lightly import loss
        from lightly.models import modules, utils

        trunk, width = resnet(backbone)
        head, sizes = {
            "simclr": (modules.SimCLRProjectionHead, (width, width, 128)),
            "moco": (modules.MoCoProjectionHead, (width, width, 128)),
            "byol": (modules.BYOLProjectionHead, (width, 4096, 256)),
        }[method]
        self.network = nn.Sequential(trunk, head(*sizes)).to(device)
        trained = list(self.network.parameters())
        if method == "simclr":
            self.criterion = loss.NTXentLoss(temperature=0.5)
        else:
            self.momentum = copy.deepcopy(self.network)
            utils.deactivate_requires_grad(self.momentum)
            self.update = utils.update_momentum
        if method == "moco":
            bank = (QUEUE, 128)
            self.criterion = loss.NTXentLoss(temperature=0.1, memory_bank_size=bank).to(device)
        if method == "byol":
            self.criterion = loss.NegativeCosineSimilarity()
            self.predictor = modules.BYOLPredictionHead(256, 4096, 256).to(device)
            trained += self.predictor.parameters()
        self.optimizer = torch.optim.SGD(trained, lr=0.06)
        self.loss: Callable[[Tensor, Tensor], Tensor] = getattr(self, f"_{method}")
        self.forward: Callable[[Tensor, Tensor], Tensor] = getattr(self, f"_{method}_bare")

    def step(self, first: Tensor, second: Tensor) -> None:
        """In the order of lightly's examples: no gradient is kept over the next forward."""
        self.loss(first, second).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def bare(self, first: Tensor, second: Tensor) -> None:
        self.optimizer.zero_grad()
        self.forward(first, second).backward()

    def _simclr(self, first: Tensor, second: Tensor) -> Tensor:
        return self.criterion(self.network(first), self.network(second))

    def _simclr_bare(self, first: Tensor, second: Tensor) -> Tensor:
        return self.network(first).sum() + self.network(second).sum()

    def _moco(self, first: Tensor, second: Tensor) -> Tensor:
        self.update(self.network, self.momentum, 0.99)
        query = self.network(first)
        return self.criterion(query, *self._keys(second))

    def _moco_bare(self, first: Tensor, second: Tensor) -> Tensor:
        self._keys(second)
        return self.network(first).sum()

    def _byol(self, *views: Tensor) -> Tensor:
        self.update(self.network, self.momentum, 0.99)
        queries = [self.predictor(self.network(view)) for view in views]
        keys = self._keys(*views)
        return 0.5 * (self.criterion(queries[0], keys[1]) + self.criterion(queries[1], keys[0]))

    def _byol_bare(self, first: Tensor, second: Tensor) -> Tensor:
        self._keys(first, second)
        return (
            self.predictor(self.network(first)).sum() + self.predictor(self.network(second)).sum()
        )

    def _keys(self, *views: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [self.momentum(view) for view in views]


def lightly(
    method: str,
    batch_size: int,
    *,
    backbone: str = "resnet18",
    side: int = SIDE,
    pixels: Any = None,
    workers: int = 2,
    device: str = "cpu",
    length: int | None = None,
) -> tuple[STEP, STEP]:
    """Return lightly's loop, a step at a time, and its own bare step.

    With ``length`` an epoch has so many images, the same ones again and again: as many
    as the workers cannot have ready at its beginning.
    """
    loop = Lightly(method, backbone, device)
    loader = DataLoader(
        Pictures(images() if pixels is None else pixels, side, length),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device != "cpu",
    )

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()
    made = [torch.randn(batch_size, 3, side, side, device=device) for _ in range(2)]

    def step() -> None:
        loop.step(*(view.to(device, non_blocking=True) for view in next(batches)[0]))

    return step, lambda: loop.bare(*made)


class Pictures:
    """Images as PIL gives them, with lightly's transforms."""

    def __init__(self, pixels: Any, side: int, length: int | None) -> None:
        from lightly.transforms import SimCLRTransform

        blur, strength = (0.0, 0.5) if side <= 64 else (0.5, 1.0)
        self.transform = SimCLRTransform(input_size=side, gaussian_blur=blur, cj_strength=strength)
        self.length = length or len(pixels)
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index % len(self.pictures)]), 0


def resnet(name: str) -> tuple[nn.Module, int]:
    """Return torchvision's network without its classifier, and its width."""
    network = getattr(torchvision.models, name)(num_classes=1)
    if name == "resnet18":  # for small images
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    width = network.fc.in_features
    network.fc = nn.Identity()
    return network, width


def solo_learn(wheel: str) -> Callable[..., Tensor]:
    """Return solo-learn's SimCLR loss: one file of its wheel, whose package needs more than it."""
    spec = zipimport.zipimporter(f"{wheel}/solo/losses").find_spec("simclr")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{wheel} has no solo/losses/simclr.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.simclr_loss_func
