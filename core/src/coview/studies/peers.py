"""Peers: other libraries, whose own loops of methods run beside coview's in a comparison.

An entry point in the group ``coview.peers`` names a subclass of :class:`Peer`. A peer brings what
its library documents: views of an image, heads, a loss, and what is done around a step. It is
given what is to be equal: the images, the batches' size, the steps, the seed, the network as it is
before training, the optimiser and its rates. Its run is measured and written as any other.
"""

from __future__ import annotations

import copy
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from itertools import islice
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from coview.data.base import Split
from coview.data.loader import read_batches
from coview.errors import CoviewError, RequestError
from coview.optim.groups import make_optimizer, set_rate, set_weight_decay
from coview.recipes.configure import Changes
from coview.records import Step
from coview.registry import find
from coview.studies.jobs import Order
from coview.training import threads
from coview.training.build import assemble
from coview.training.directory import new_directory, write_end, write_start
from coview.training.loop import Metrics
from coview.training.measure import finish, measure_baselines
from coview.training.pace import paced
from coview.training.request import Request, prepare
from coview.training.run import Run
from coview.weights.exported import export

Views = Callable[[Image.Image], Sequence[Tensor]]


class Loop(nn.Module):
    """A method of another library: its loss of two views, and what it does around a step.

    Args:
        trunk: the network that is compared, (B, C, H, W) -> (B, D); the loop trains it in place.

    Attributes:
        scale: by what the loss is multiplied, so that a recipe's learning rate suits it.
    """

    scale: float = 1.0

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk

    def loss(self, *views: Tensor) -> Tensor:
        """Return the loss of a batch: (B, C, H, W) of each view."""
        raise NotImplementedError

    def begin(self, at: Step) -> None:
        """Do what the library does before a step."""

    def gradients_ready(self, at: Step) -> None:
        """Do what it does after backward, before the optimiser."""

    def finish(self, at: Step) -> None:
        """Do what it does after a step."""

    def evaluated(self, which: str) -> nn.Module:
        """Return the trunk that is evaluated: the ``online`` one, or the ``target``'s."""
        return self.trunk  # type: ignore[no-any-return]


class Momentum(Loop):
    """A loop of two networks, of which the second follows the first.

    Args:
        trunk: as for :class:`Loop`.
        head: makes a head; it is called once for each network.
    """

    def __init__(self, trunk: Any, head: Callable[[], nn.Module]) -> None:
        super().__init__(trunk)
        self.head = head()
        target = head()  # one with weight norm cannot be copied
        target.load_state_dict(self.head.state_dict())
        pair = nn.ModuleList([copy.deepcopy(trunk), target])
        self.target = pair.requires_grad_(False)

    def online(self, view: Tensor) -> Tensor:
        """Return the first network's embeddings."""
        return self.head(self.trunk(view))  # type: ignore[no-any-return]

    def keys(self, *views: Tensor) -> list[Tensor]:
        """Return the second network's embeddings of each view, without gradient."""
        trunk, head = self.target
        with torch.no_grad():
            return [head(trunk(view)) for view in views]

    def evaluated(self, which: str) -> nn.Module:
        """Return the trunk of one of the two."""
        return self.target[0] if which == "target" else self.trunk


class Peer:
    """Another library, registered in the group ``coview.peers``.

    Attributes:
        package: the distribution that has to be installed.
        methods: coview's names of the methods that it has a loop of.
    """

    package: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ()

    def loop(self, method: str, run: Run) -> Loop:
        """Return the library's loop of a method around the run's network.

        Args:
            method: one of :attr:`methods`.
            run: before its first step: ``run.method.encoder.trunk`` is the network, and
                ``run.resolved.part("loss").settings`` has what the recipe says of the loss.
        """
        raise NotImplementedError

    def views(self, method: str, run: Run) -> Views:
        """Return the library's transform: an image of Pillow's -> a tensor (C, H, W) a view.

        The tensors are of ``run.card.size`` pixels a side, and standardised by ``run.card.mean``
        and ``run.card.std``, as the network is given images when it is evaluated.
        """
        raise NotImplementedError

    def version(self) -> str:
        """Return the version that is installed.

        Raises:
            RequestError: none is.
        """
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            raise RequestError(
                f"{self.package} is not installed: pip install {self.package}"
            ) from None


def peer(name: str) -> Peer:
    """Return an installed peer.

    Raises:
        RequestError: there is none of that name; the message suggests the nearest.
    """
    made: Peer = find("peers", name).load()()
    return made


def train(told: Order) -> Run:
    """Do a run by a peer's loop, and return it finished. One that a kill left is begun anew."""
    assert told.by is not None
    run, theirs = _built(told), peer(told.by)
    shutil.rmtree(told.folder, ignore_errors=True)
    with threads.using(run.settings.threads):
        new_directory(told.folder)
        version = {"name": told.by, "version": theirs.version()}
        write_start(run, [], method=f"{_method(run)} by {told.by}", peer=version)
        if run.data.labelled:
            measure_baselines(run)
        loop, metrics = _begun(theirs, run), Metrics()
        for at in islice(steps(theirs, run, loop, metrics), run.last_step):
            run.step = at.number + 1
            whole = run.step % run.plan.steps_per_epoch == 0
            if whole or run.step == run.last_step or run.step % run.settings.log_every == 0:
                _log(run, metrics)
        trained, exported = loop.evaluated(run.method.evaluates), run.method.backbone()
        if trained is not exported:
            exported.load_state_dict(trained.state_dict())
        finish(run)
        write_end(run)
    return run


def _built(told: Order) -> Run:
    given = dict(told.arguments)
    method, most = given.pop("method"), given.pop("max_steps", None)
    settings = {"data": given.pop("data"), "seed": told.seed, "device": told.device}
    settings |= {"max_steps": most, "report": False}
    request = Request(method=method, settings=settings, changes=Changes(**given))
    return assemble(request, prepare(request), told.folder)


def _begun(theirs: Peer, run: Run) -> Loop:
    """Return the loop at its first step; every generator that a library may use is seeded."""
    torch.manual_seed(run.settings.seed)
    random.seed(run.settings.seed)
    np.random.seed(run.settings.seed)
    run.card = export(run.method, run.card).card  # with what the views decide: size, mean, std
    loop = theirs.loop(_method(run), run)
    return loop.to(run.device).train()


def _method(run: Run) -> str:
    return run.resolved.recipe.name


def step_seconds(theirs: Peer, run: Run, enough: float) -> float:
    """Return the seconds of a step of a peer's loop, from ever more steps.

    Args:
        theirs: the peer.
        run: a rehearsed one: its weights are changed, and nothing is written.
        enough: seconds of a measurement that counts.
    """
    metrics = Metrics()
    return paced(steps(theirs, run, _begun(theirs, run), metrics), metrics, enough)


def steps(theirs: Peer, run: Run, loop: Loop, metrics: Metrics) -> Iterator[Step]:
    """Do one step after the other, without an end; yield where it was."""
    settings = run.resolved.part("optimizer").settings
    optimizer = _optimizer(run, loop)
    for at, views in _batches(theirs, run):
        set_rate(optimizer, run.schedule.rate(run.peak, at.number))
        set_weight_decay(optimizer, settings, at)
        loop.begin(at)
        optimizer.zero_grad()
        with run.method.autocast():
            loss = loop.loss(*(view.to(run.device, non_blocking=True) for view in views))
        run.scaler.scale(loop.scale * loss).backward()
        run.scaler.unscale_(optimizer)
        loop.gradients_ready(at)
        run.scaler.step(optimizer)
        run.scaler.update()
        loop.finish(at)
        metrics.add("loss", loss.detach())
        metrics.count(len(views[0]))
        yield at


def _optimizer(run: Run, loop: Loop) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of what the loop trains."""
    whole = nn.ModuleDict({"components": nn.ModuleDict({"loop": loop})})
    part = run.resolved.part("optimizer")
    return make_optimizer(part.factory, part.settings, whole, run.plan, run.device)


def _batches(theirs: Peer, run: Run) -> Iterator[tuple[Step, Sequence[Tensor]]]:
    order = torch.Generator().manual_seed(run.settings.seed)
    loader = DataLoader(
        Pictures(run.data.train, theirs.views(_method(run), run)),
        run.plan.batch_size,
        shuffle=True,
        drop_last=True,
        generator=order,
        num_workers=run.settings.workers,
    )
    at = Step(
        steps_per_epoch=run.plan.steps_per_epoch,
        total_steps=run.plan.total_steps,
        seed=run.settings.seed,
        device=run.device,
    )
    while True:
        for views in loader:
            yield at, views
            at = attrs.evolve(at, number=at.number + 1, generators={})


def _log(run: Run, metrics: Metrics) -> None:
    means = metrics.read()
    run.log(**means, lr=run.schedule.rate(run.peak, run.step - 1))
    if not math.isfinite(means["loss"]):
        raise CoviewError(f"The loss is not a number any more, after step {run.step}.")


class Pictures(Dataset[Any]):
    """The views of each image, which other libraries are given as Pillow's.

    Args:
        split: the images.
        views: the transform.
    """

    def __init__(self, split: Split, views: Views) -> None:
        self.split, self.views = split, views

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sequence[Tensor]:
        """Return the views of an image."""
        pixels = next(read_batches(self.split, [torch.tensor([index])]))[0]
        return self.views(picture(pixels))


def picture(pixels: Tensor) -> Image.Image:
    """Return an image of Pillow's, grey or in colour, of (C, H, W) uint8."""
    values = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
