"""The method under test, at a size that takes a fraction of a second."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
import torch
from torch.optim import Optimizer

from coview.components import Component, EncoderComponent, ViewsComponent, declared
from coview.data.base import DataSettings, ImageData
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview.hookspecs import hookimpl
from coview.method.module import Method, build_method
from coview.nn.sync_norm import synchronise
from coview.optim.groups import make_optimizer, set_rate
from coview.plan import Plan
from coview.recipes.configure import Changes, configure
from coview.recipes.recipe import COMPONENTS, Recipe, find_recipe
from coview.recipes.resolve import Part, Resolved
from coview.records import Batch, Step, Views
from coview.registry import find
from coview.settings import fields_of
from coview.testing.errors import ConformanceError
from coview.testing.finite import Watch, refuse_gradients, refuse_loss, refuse_state
from coview.training.fields import fields_for
from coview.weights.card import WeightCard, card_of

SIZE, DATASET, STEPS_PER_EPOCH = 32, 64, 4
BACKBONE, CLASSES = "resnet10-quarter", 4
WIDE, NARROW = 64, 32
"""Widths, sizes and counts above WIDE become NARROW, as no promise depends on them."""


class InDouble:
    """An observer that converts views to float64."""

    @hookimpl(wrapper=True)
    def generate_views(self) -> Any:
        """Return the views' crops as float64."""
        views: Views = yield
        return attrs.evolve(views, crops=tuple(crop.double() for crop in views.crops))


@attrs.frozen(eq=False)
class Built:
    """A method with its optimiser, to be trained step by step.

    Attributes:
        losses: losses of the steps done so far.
    """

    method: Method
    optimizer: Optimizer
    losses: list[float] = attrs.field(factory=list)
    _watch: Watch = attrs.field(factory=Watch)

    def __attrs_post_init__(self) -> None:
        self.method.observe(self._watch, "watch")

    def loss(self, batch: Batch, step: Step) -> torch.Tensor:
        """Return the method's loss of a batch.

        Raises:
            NotFiniteError: it is not finite; the message says which component's values were first.
        """
        loss: torch.Tensor = self.method(batch, self._watch.within(step))
        refuse_loss(self.method, self._watch, loss, step)
        return loss

    def backward(self, loss: torch.Tensor, step: Step) -> None:
        """Add the loss's gradient to those of the parameters.

        Raises:
            NotFiniteError: a gradient is not finite.
        """
        loss.backward()
        refuse_gradients(self.method, loss, step)

    def update(self, step: Step) -> None:
        """End a step: gradients are ready, the optimiser's step, targets and memories.

        Raises:
            NotFiniteError: then a parameter or buffer is not finite.
        """
        self.method.gradients_ready(step)
        self.optimizer.step()
        self.method.update_target(step)
        refuse_state(self.method, step)

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy of everything a checkpoint keeps of the method."""
        return {key: value.clone() for key, value in self.method.state_dict().items()}


@attrs.frozen(eq=False)
class Subject:
    """A method under test, built small and always the same.

    It uses the ``small`` preset, a network of 0.3 M parameters (or the encoder's
    ``example_backbone``), and images of 32 pixels; whole numbers above 64 in the encoder,
    target, negatives, loss and wrappers (widths, sizes, draws) become 32.

    Attributes:
        method: a method's name, or a recipe.
        changes: changes to the recipe, as from the command line.
        batch_size: images per global batch; None: 16, or 4 signals.
        channels: number of channels of the images; None: those of the data, or 3.
        data: ``SOURCE[:PATH]`` of real images to use; empty: noise.
        device: where it is built and trained; promises on several processes use the CPU.
        late: its steps are those of the recipe's last epoch, not of the first.
        failed: what was told of it: the promise that failed, by its own name, and by the name
            of what was not finite.
    """

    method: str | Recipe
    changes: Changes = Changes()
    batch_size: int | None = None
    channels: int | None = None
    data: str = ""
    device: str = "cpu"
    late: bool = False
    failed: dict[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method if isinstance(self.method, str) else self.method.name or "a recipe"

    @property
    def package(self) -> str:
        """The distribution that registers the method; empty if none does."""
        if not isinstance(self.method, str) or self.method.endswith(".toml"):
            return ""
        return find("methods", self.method).package

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as written."""
        return find_recipe(self.method) if isinstance(self.method, str) else self.method

    @cached_property
    def whole(self) -> Resolved:
        """The recipe as written, resolved with the changes."""
        return configure(self.recipe, None, self.changes, "check")

    @cached_property
    def resolved(self) -> Resolved:
        """The recipe, made small and resolved."""
        own = self.changes
        preset = "small" if "small" in self.recipe.presets else "none"
        replaced = own.backbone is None and not self.signals
        encoder = self.whole.part("encoder").factory
        fitting = declared(encoder, EncoderComponent, "example_backbone") or BACKBONE
        small = attrs.evolve(
            own, preset=own.preset or preset, backbone=fitting if replaced else own.backbone
        )
        first = configure(self.recipe, None, small, "check")
        stem = {"backbone.stem": "7x7"} if replaced else {}
        narrow = {**stem, **_narrowed(first), **own.set}
        return configure(self.recipe, None, attrs.evolve(small, set=narrow), "check")

    @cached_property
    def signals(self) -> bool:
        """Whether the method takes signals (N, C, T) in place of images."""
        return bool(
            declared(self.whole.part("views").factory, ViewsComponent, "takes") == "signals"
        )

    @cached_property
    def images(self) -> int:
        """Number of images per global batch."""
        return self.batch_size or (4 if self.signals else 16)

    @cached_property
    def side(self) -> int:
        """Pixels per side of the images, or samples per signal as in the recipe."""
        whole: int = self.whole.data.size if self.signals else SIZE
        return self.changes.image_size or whole

    @cached_property
    def loaded(self) -> ImageData | None:
        """The real data, at the size and with the channels of this subject."""
        if not self.data:
            return None
        settings = DataSettings(size=self.side, channels=self.channels)
        return open_source(self.data).load(settings)

    @cached_property
    def colours(self) -> int:
        """Number of channels of the images."""
        return self.channels or (self.loaded.channels if self.loaded else 3)

    @property
    def epochs(self) -> int:
        """Number of epochs in the recipe, of which each has few steps here."""
        return self.resolved.training.epochs

    def plan(self, processes: int = 1, accumulate: int = 1) -> Plan:
        """Return the plan that components are built from."""
        real = self.loaded
        return Plan(
            dataset_size=len(real.train) if real else DATASET,
            channels=self.colours,
            image_size=self.side,
            mean=real.mean if real else (0.5,) * self.colours,
            std=real.std if real else (0.2,) * self.colours,
            batch_size=self.images,
            world_size=processes,
            accumulate=accumulate,
            steps_per_epoch=STEPS_PER_EPOCH,
            total_steps=STEPS_PER_EPOCH * self.epochs,
        )

    def build(
        self, processes: int = 1, accumulate: int = 1, seed: int = 0, double: bool = False
    ) -> Built:
        """Build the method and its optimiser in training mode; torch's generator is unchanged."""
        plan = self.plan(processes, accumulate)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            method = build_method(self.resolved, plan)
        if double:
            method.double().observe(InDouble(), "in-double")
        method.to(self.device)
        synchronise(method)
        part = self.resolved.part("optimizer")
        place = torch.device(self.device)
        optimizer = make_optimizer(part.factory, part.settings, method, plan, place)
        set_rate(optimizer, min(part.settings.peak(self.images), 0.05))
        method.train()
        method.always_checked = True
        return Built(method, optimizer)

    def step(self, number: int, seed: int = 3) -> Step:
        """Return the step with this number, counted from the first of the epoch that is tried."""
        before = STEPS_PER_EPOCH * (self.epochs - 1) if self.late else 0
        return Step(
            number=before + number,
            steps_per_epoch=STEPS_PER_EPOCH,
            total_steps=STEPS_PER_EPOCH * self.epochs,
            seed=seed,
            device=self.device,
        )

    def batch(self, number: int) -> Batch:
        """Return a step's batch: images (or signals), of noise if no data are given."""
        if self.loaded is not None:
            fields = fields_for(self.resolved, self.loaded)
            real = Batches(self.loaded.train, self.images, 0, self.device, fields=fields)
            epoch, position = divmod(number, real.steps_per_epoch)
            return next(iter(real.epoch(epoch, position)))
        generator = torch.Generator().manual_seed(number)
        shape = (self.images, self.colours, self.side, self.side)
        if self.signals:
            images = torch.randn(shape[:3], generator=generator)
        else:
            images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        indices = torch.randperm(DATASET, generator=generator)[: self.images]
        made = {
            name: values.to(self.device) if isinstance(values, torch.Tensor) else values
            for name, values in self._fields(indices).items()
        }
        return Batch(images.to(self.device), indices.to(self.device), made)

    def _fields(self, indices: torch.Tensor) -> dict[str, Any]:
        return made_up_fields(self.resolved, indices)

    def train(self, built: Built, first: int, count: int) -> Built:
        """Train ``count`` steps from step ``first`` on, and record their losses."""
        for number in range(first, first + count):
            step, batch = self.step(number), self.batch(number)
            built.optimizer.zero_grad(set_to_none=True)
            loss = built.loss(batch, step)
            built.backward(loss, step)
            built.update(step)
            built.losses.append(float(loss.detach()))
        return built

    def card(self) -> WeightCard:
        """Return what an exported backbone's file says of it."""
        return card_of(self.resolved, self.plan())


def made_up_fields(resolved: Resolved, indices: torch.Tensor) -> dict[str, Any]:
    """Return what the components ask for: labels of a few classes, or their own examples."""
    found: dict[str, Any] = {}
    for role in COMPONENTS:
        for part in resolved.parts[role]:
            asked = declared(part.factory, Component, "needs_fields")
            made = {"labels": indices % CLASSES}
            made |= declared(part.factory, Component, "example_fields")(indices)
            if missing := [name for name in asked if name not in made]:
                raise ConformanceError(
                    f"{role} {part.name!r} needs the fields {missing}: its static method "
                    "example_fields(indices) must make some up for this check."
                )
            found |= {name: made[name] for name in asked}
    return found


def _narrowed(resolved: Resolved) -> dict[str, Any]:
    """Return the reduced settings, by path."""
    found: dict[str, Any] = {}
    for role in COMPONENTS[1:]:
        parts = resolved.parts[role]
        for part in parts:
            if part.shared_with is None:
                place = role if len(parts) == 1 else f"{role}.{part.name}"
                found |= {f"{place}.{key}": NARROW for key in _wide(part)}
    return found


def _wide(part: Part) -> list[str]:
    values = ((f.name, getattr(part.settings, f.name)) for f in fields_of(type(part.settings)))
    return [name for name, value in values if type(value) is int and value > WIDE]
