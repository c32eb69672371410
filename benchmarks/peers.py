"""The peers that stand beside coview: lightly's loops, solo-learn's loss out of its wheel."""

import copy
import itertools
import zipimport
from collections.abc import Callable
from importlib.util import module_from_spec
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.engine import QUEUE
from benchmarks.runner import Once

METHODS = ("simclr", "moco", "byol")


class Loop:
    """lightly's loop, as its documentation has it, or with solo-learn's loss; its own bare step."""

    predictor: nn.Module = nn.Identity()

    def __init__(self, method: str, backbone: str, device: str, wheel: str = "") -> None:
        self.method, trunk = method, getattr(torchvision.models, backbone)(num_classes=1)
        if backbone == "resnet18":  # for small images
            trunk.conv1, trunk.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
        width, trunk.fc = trunk.fc.in_features, nn.Identity()
        head = self._solo(width, wheel) if wheel else self._lightly(width, device)
        self.network = nn.Sequential(trunk, head).to(device)
        if method != "simclr":
            self.momentum = copy.deepcopy(self.network).requires_grad_(False)
        trained = [*self.network.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.SGD(trained, lr=0.06)

    def _solo(self, width: int, wheel: str) -> nn.Module:
        loss = solo_learn(wheel)
        self.criterion: Any = lambda first, second: loss(first, second, 0.5)
        return nn.Sequential(nn.Linear(width, 2048), nn.ReLU(), nn.Linear(2048, 128))

    def _lightly(self, width: int, device: str) -> nn.Module:
        from lightly.loss import NegativeCosineSimilarity, NTXentLoss
        from lightly.models import modules, utils

        self.update = utils.update_momentum
        if self.method == "simclr":
            self.criterion = NTXentLoss(temperature=0.5)
            return modules.SimCLRProjectionHead(width, width, 128)
        if self.method == "moco":
            self.criterion = NTXentLoss(temperature=0.1, memory_bank_size=(QUEUE, 128)).to(device)
            return modules.MoCoProjectionHead(width, width, 128)
        self.criterion = NegativeCosineSimilarity()
        self.predictor = modules.BYOLPredictionHead(256, 4096, 256).to(device)
        return modules.BYOLProjectionHead(width, 4096, 256)

    def step(self, first: Tensor, second: Tensor) -> None:
        if self.method != "simclr":
            self.update(self.network, self.momentum, 0.99)
        # In the order of the examples: no gradient is kept over the next forward.
        self._loss(first, second).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, *views: Tensor) -> Tensor:
        if self.method == "simclr":
            return self.criterion(*map(self.network, views))
        if self.method == "moco":
            return self.criterion(self.network(views[0]), *self._keys(views[1]))
        first, second = (self.predictor(self.network(view)) for view in views)
        keys = self._keys(*views)
        return 0.5 * (self.criterion(first, keys[1]) + self.criterion(second, keys[0]))

    def bare(self, *views: Tensor) -> None:
        self.optimizer.zero_grad()
        moco, simclr = self.method == "moco", self.method == "simclr"
        self._keys(*(() if simclr else views[1:] if moco else views))
        made = [self.predictor(self.network(view)) for view in (views[:1] if moco else views)]
        torch.stack([rows.sum() for rows in made]).sum().backward()

    def _keys(self, *views: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [self.momentum(view) for view in views]


def lightly(
    loop: Loop, batch: int, pictures: Dataset[Any], side: int, workers: int, device: str
) -> tuple[Once, Once]:
    more = {"persistent_workers": workers > 0, "pin_memory": device != "cpu", "drop_last": True}
    loader = DataLoader(pictures, batch, shuffle=True, num_workers=workers, **more)
    batches = (views for epoch in itertools.repeat(loader) for views, _ in epoch)
    made = torch.randn(2, batch, 3, side, side, device=device)

    def step() -> None:
        loop.step(*(view.to(device, non_blocking=True) for view in next(batches)))

    return step, lambda: loop.bare(*made)


class Pictures(Dataset[Any]):
    def __init__(self, pixels: Tensor, side: int, length: int = 0) -> None:
        from lightly.transforms import SimCLRTransform

        blur, strength = (0.0, 0.5) if side <= 64 else (0.5, 1.0)
        self.transform = SimCLRTransform(input_size=side, gaussian_blur=blur, cj_strength=strength)
        self.length = length or len(pixels)
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index % len(self.pictures)]), 0


def solo_learn(wheel: str) -> Callable[..., Tensor]:
    """Return solo-learn's SimCLR loss."""
    return of_solo_learn(wheel, "losses", "simclr").simclr_loss_func


def of_solo_learn(wheel: str, folder: str, name: str) -> Any:
    """Return one file of solo-learn's wheel as a module: the package needs more than it."""
    spec: Any = zipimport.zipimporter(f"{wheel}/solo/{folder}").find_spec(name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
