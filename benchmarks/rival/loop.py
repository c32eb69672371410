"""The loop of every library but coview: its optimiser, rates and batches are those of coview's."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import coview
from benchmarks import engine
from coview.records import Step
from coview.studies.peers import Loop, Views, picture


class Pictures(Dataset[Any]):
    """The views of each image, which a library is given as Pillow's."""

    def __init__(self, images: Tensor, views: Views) -> None:
        self.images, self.views = images, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sequence[Tensor]:
        return self.views(picture(self.images[index]))


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
    optimizer = torch.optim.AdamW(groups(loop), **decay, fused=True)
    loop.train()
    done, started = 0, time.perf_counter()
    for at, both in numbered(loader, asked.epochs, asked.most_steps):
        for group in optimizer.param_groups:
            group["lr"] = asked.lr if group.get("fixed") else rate(at.number)
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


def groups(loop: Loop) -> list[dict[str, Any]]:
    """Return the optimiser's groups, a loop's own if it has any; a ``fixed`` one keeps its rate."""
    own = getattr(loop, "groups", None)
    return own() if own else [{"params": [p for p in loop.parameters() if p.requires_grad]}]


def numbered(loader: Any, epochs: int, most: int | None) -> Iterator[tuple[Step, Any]]:
    steps = len(loader) * epochs
    for epoch in range(epochs):
        for index, both in enumerate(loader):
            step = epoch * len(loader) + index
            if step == most:
                return
            yield Step(number=step, steps_per_epoch=len(loader), total_steps=steps), both
