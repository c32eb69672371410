"""The loop of every library but coview: its optimiser, rates and batches are those of coview's."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import coview
from benchmarks import engine

Views = Callable[[Image.Image], Sequence[Tensor]]


class At(NamedTuple):
    """A place in the training, from 0."""

    step: int
    steps: int
    epoch: int
    epochs: int


class Loop(nn.Module):
    """A method of a library: its loss of two views, and what it does around a step."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk

    def loss(self, *views: Tensor) -> Tensor:
        raise NotImplementedError

    def begin(self, at: At) -> None:
        """Before a step."""

    def gradients_ready(self, at: At) -> None:
        """After backward, before the optimiser."""

    def finish(self, at: At) -> None:
        """After a step."""

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups; one that is ``fixed`` keeps the peak rate."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def evaluated(self, which: str) -> nn.Module:
        """Return the trunk that is evaluated: the online one, or the target's."""
        return self.trunk


class Momentum(Loop):
    """Two networks, of which the second follows the first."""

    def __init__(self, trunk: Any, head: Callable[[], nn.Module]) -> None:
        super().__init__(trunk)
        self.head = head()
        target = head()  # one with weight norm cannot be copied
        target.load_state_dict(self.head.state_dict())
        pair = nn.ModuleList([copy.deepcopy(trunk), target])
        self.target = pair.requires_grad_(False)

    def online(self, view: Tensor) -> Tensor:
        return self.head(self.trunk(view))

    def keys(self, *views: Tensor) -> list[Tensor]:
        trunk, head = self.target
        with torch.no_grad():
            return [head(trunk(view)) for view in views]

    def evaluated(self, which: str) -> nn.Module:
        return self.target[0] if which == "target" else self.trunk


class Pictures(Dataset[Any]):
    """The views of each image, which a library is given as Pillow's."""

    def __init__(self, images: Tensor, views: Views) -> None:
        self.images, self.views = images, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sequence[Tensor]:
        return self.views(Image.fromarray(self.images[index].permute(1, 2, 0).numpy()))


class Asked(NamedTuple):
    """What every library is told alike."""

    batch_size: int
    epochs: int
    seed: int
    most_steps: int | None
    lr: float
    weight_decay: float
    warmup_epochs: float


def train(loop: Loop, views: Views, images: Tensor, asked: Asked) -> dict[str, Any]:
    """Train; return the number of steps, and their seconds with all that makes their views."""
    order = torch.Generator().manual_seed(asked.seed)
    shuffled: Any = {"shuffle": True, "drop_last": True, "generator": order}
    loader = DataLoader(Pictures(images, views), asked.batch_size, **shuffled)
    rate = rates(len(images), len(loader), asked)
    decay = {"lr": asked.lr, "weight_decay": asked.weight_decay}
    optimizer = torch.optim.AdamW(loop.groups(), **decay, fused=True)
    loop.train()
    done, started = 0, time.perf_counter()
    for at, both in numbered(loader, asked.epochs, asked.most_steps):
        for group in optimizer.param_groups:
            group["lr"] = asked.lr if group.get("fixed") else rate(at.step)
        loop.begin(at)
        optimizer.zero_grad()
        loop.loss(*both).backward()
        loop.gradients_ready(at)
        optimizer.step()
        loop.finish(at)
        done += 1
    return {"steps": done, "seconds": time.perf_counter() - started}


def rates(images: int, steps: int, asked: Asked) -> Callable[[int], float]:
    """Return the rate of each step, by coview's own schedule."""
    counts: Any = {"dataset_size": images, "batch_size": asked.batch_size}
    counts |= {"steps_per_epoch": steps, "total_steps": steps * asked.epochs}
    settings = engine.Cosine.Settings(warmup_epochs=asked.warmup_epochs, warmup_count="steps")
    schedule = engine.Cosine(settings, coview.Plan(**counts))
    return lambda step: schedule.rate(asked.lr, step)


def numbered(loader: Any, epochs: int, most: int | None) -> Iterator[tuple[At, Any]]:
    steps = len(loader) * epochs
    for epoch in range(epochs):
        for index, both in enumerate(loader):
            step = epoch * len(loader) + index
            if step == most:
                return
            yield At(step, steps, epoch, epochs), both
