"""One whole training step of a method, or of single components with stand-ins for the rest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.hookspecs import ROLES, hookimpl
from coview.method.module import Method
from coview.method.neutral import NoNegatives, Shared
from coview.method.relay import BuiltComponent
from coview.nn.encoder import Encoder, EncoderSettings
from coview.plan import Layout, Plan
from coview.recipes.recipe import COMPONENTS, Recipe
from coview.records import Batch, Encoded, Negatives, Step, Targets, Views
from coview.testing.fakes import a_batch, a_plan, a_step
from coview.testing.subject import Subject
from coview.views import unit_interval

RATE = 0.01
"""Learning rate of the step, by plain SGD."""

AnyMethod = Method | Mapping[str, nn.Module] | str | Recipe


@attrs.frozen(eq=False)
class Done:
    """What happened in a step.

    Attributes:
        method: the method, after the step.
        loss: the loss, a 0-dim tensor.
        views, encoded, targets, negatives: the records, in the order in which they were made.
        gradients: by parameter name, what ``backward`` and ``gradients_ready`` left.
        metrics: by name, what components logged.
    """

    method: Method
    loss: Tensor
    views: Views
    encoded: Encoded
    targets: Targets
    negatives: tuple[Negatives, ...]
    gradients: Mapping[str, Tensor]
    metrics: Mapping[str, float]


def one_step(
    method: AnyMethod, batch: Batch | None = None, step: Step | None = None, lr: float = RATE
) -> Done:
    """Do one training step: forward, backward, ``gradients_ready``, SGD, ``update_target``.

    Records are checked where they cross from one component to another, as in the first step
    of a run.

    Args:
        method: a built method, the name of an installed one, a recipe, or components by role
            (:func:`a_method_of`), as in ``one_step({"loss": my_loss})``.
        batch: the images; None: those of :func:`coview.testing.a_batch`, or of the kit for
            a name or a recipe.
        step: the step; None: the first.
        lr: learning rate.

    Raises:
        PluginError: a component made a wrong record; the message names it.
    """
    if isinstance(method, (str, Recipe)):
        subject = Subject(method)
        method, batch = subject.build().method, batch or subject.batch(0)
    elif not isinstance(method, Method):
        method = a_method_of(method)
    metrics: dict[str, float] = {}
    whole = attrs.evolve(step or a_step(), sink=lambda name, v: metrics.update({name: float(v)}))
    seen = _Records()
    method.observe(seen, "records")
    try:
        loss = method(batch or a_batch(), whole)
        gradients = _descend(method, loss, whole, lr)
    finally:
        method.manager.unregister(seen)
    return Done(method, loss, **seen.records, gradients=gradients, metrics=metrics)


def a_method_of(components: Mapping[str, nn.Module], plan: Plan | None = None) -> Method:
    """Return a method of these components, with stand-ins for the roles that are missing.

    The stand-ins: the image and the image with noise as views, a linear encoder without
    batch norm, the online network's own projections as keys, no negatives, and the mean
    squared distance of a query and its key as loss.

    Args:
        components: by role (``views``, ``encoder``, ``target``, ``negatives``, ``loss``,
            ``wrap``); modules built with the same plan, which are copied.
        plan: the plan; None: :func:`coview.testing.a_plan`.
    """
    plan = plan or a_plan()
    if wrong := [role for role in components if role not in COMPONENTS]:
        raise ValueError(f"components must be by role ({', '.join(COMPONENTS)}), not {wrong[0]!r}.")
    views: Any = components.get("views")
    encoder: Any = components.get("encoder")
    if views is not None:
        plan = attrs.evolve(plan, layout=views.layout)
    if encoder is not None:
        plan = attrs.evolve(plan, dim=encoder.dim)
    modules = {
        role: copy.deepcopy(components[role]) if role in components else _stand_in(role, plan)
        for role in (*ROLES, *(r for r in components if r == "wrap"))
    }
    built = [
        BuiltComponent(role, module, (role,), type(module).__name__, "under test")
        for role, module in modules.items()
    ]
    method = Method(built).train()
    method.always_checked = True
    return method


def _descend(method: Method, loss: Tensor, step: Step, lr: float) -> dict[str, Tensor]:
    method.zero_grad(set_to_none=True)
    loss.backward()
    method.gradients_ready(step)
    trained = {n: p for n, p in method.named_parameters() if p.grad is not None}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.sub_(parameter.grad, alpha=lr)  # type: ignore[arg-type]
    method.update_target(step)
    return {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}


def _stand_in(role: str, plan: Plan) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        makers: dict[str, Any] = {
            "views": lambda: NoisyViews(plan),
            "encoder": lambda: LinearEncoder(plan),
            "target": lambda: Shared(Shared.Settings(), plan),
            "negatives": lambda: NoNegatives(NoNegatives.Settings(), plan),
            "loss": Distance,
        }
        module: nn.Module = makers[role]()
    return module


class NoisyViews(nn.Module):
    """Stand-in for views: the image, and the image with noise, as often as the plan has views."""

    layout: Layout

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.layout = plan.layout  # type: ignore[assignment]

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return the images in [0, 1] as view 0, and with their own noise as the others."""
        images, draw = unit_interval(batch.images), step.seed_for("noise")
        crops = [images]
        for view in range(1, self.layout.count):
            # Of each image alone, so that several processes see what one sees.
            rows = [_noise(images[0], draw + view + 31 * int(i)) for i in batch.indices]
            crops.append(images + 0.1 * torch.stack(rows))
        return Views(tuple(crops), self.layout.queries, self.layout.keys, self.layout.pairs)

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the images in [0, 1] as the only view."""
        return Views((unit_interval(images),), (0,), (0,), ((0, 0),))


def _noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed % 2**63)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


class LinearEncoder(Encoder):
    """Stand-in for the encoder: the plan's backbone and a linear layer."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(EncoderSettings(), plan, plan.dim)
        self.projector = nn.Linear(self.features, plan.dim)


class Distance(nn.Module):
    """Stand-in for the loss: the mean squared distance of each query and its key."""

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Return the mean over rows, widths and pairs."""
        terms = [(encoded.queries[q] - targets.keys[k]).square().mean() for q, k in encoded.pairs]
        return torch.stack(terms).mean()


class _Records:
    """An observer that keeps what each hook returned, as the next hook gets it."""

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}

    @hookimpl
    def compute_loss(
        self,
        views: Views,
        encoded: Encoded,
        targets: Targets,
        negatives: tuple[Negatives, ...],
    ) -> None:
        """Keep the records; None lets the loss itself answer."""
        self.records = {
            "views": views,
            "encoded": encoded,
            "targets": targets,
            "negatives": negatives,
        }
