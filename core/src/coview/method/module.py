"""A built recipe: its components in one module, connected by the run's own hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import pluggy
import torch
from torch import Tensor, nn

from coview.components import EncoderComponent, TargetComponent, ViewsComponent, declared
from coview.errors import CoviewError, PluginError, RequestError
from coview.hookspecs import PROJECT, LifeHooks, StepHooks
from coview.method.border import Border
from coview.method.joining import detached, joined
from coview.method.relay import BuiltComponent, check_roles, first_line, refuse_misspelt, register
from coview.method.several import shared_roles, tell_of_shared_negatives, together
from coview.method.spaces import matched
from coview.nn.drop_path import drawing
from coview.nn.encoder import Encoder
from coview.plan import BackboneSpec, Plan
from coview.recipes.recipe import COMPONENTS
from coview.recipes.resolve import Part, Resolved
from coview.records import Batch, Encoded, Step, Targets, Views


class Method(nn.Module):
    """The components of five roles, wrappers if there are any, and the hooks that connect them.

    One step: ``loss = method(batch, step)``, backward, ``method.gradients_ready(step)``,
    the optimiser's step, ``method.update_target(step)``. In between, the step's records
    are kept, detached.

    Attributes:
        always_checked: check the components' records in every step, not only in the first.
    """

    def __init__(self, components: Sequence[BuiltComponent], evaluates: str = "online") -> None:
        super().__init__()
        self.components = nn.ModuleDict({c.key: c.module for c in components})
        self.parts = {component.key: component for component in components}
        self.evaluates = evaluates
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(StepHooks)
        self.manager.add_hookspecs(LifeHooks)
        self.always_checked, self._checked = False, False
        self._records: list[tuple[Batch, Views, Encoded, Targets]] = []
        self._step_number = -1
        shared = shared_roles(components)
        # pluggy calls the last one registered first, so the recipe's order is reversed,
        # but for wrappers, of which the first is the innermost.
        answering = [component for component in components if "wrap" not in component.roles]
        wrapping = [component for component in components if "wrap" in component.roles]
        for component in (*reversed(answering), *wrapping):
            register(self.manager, component, shared)
        for role, parts in shared.items():
            self.manager.register(together(role, parts), name=f"several:{role}")
        check_roles(self.manager)

    @property
    def encoder(self) -> Encoder:
        """The online encoder."""
        encoder = self.components["encoder"]
        return encoder  # type: ignore[return-value]

    def forward(self, batch: Batch, step: Step) -> Tensor:
        """Return the step's loss, a scalar with gradient.

        Raises:
            PluginError: in the first step, a component's record is wrong.
        """
        call = self._call if self._checked else self._border().call
        with torch.no_grad():
            views = call("generate_views", batch=batch, step=step)
        with self.autocast(), drawing(step):
            encoded = call("encode", views=views, batch=batch, step=step)
            targets = call(
                "encode_targets",
                encoder=self.encoder,
                views=views,
                encoded=encoded,
                batch=batch,
                step=step,
            )
        negatives = tuple(
            call(
                "draw_negatives",
                views=views,
                encoded=encoded,
                targets=targets,
                batch=batch,
                step=step,
            )
        )
        loss: Tensor = call(
            "compute_loss",
            encoder=self.encoder,
            views=views,
            encoded=encoded,
            targets=targets,
            negatives=negatives,
            batch=batch,
            step=step,
        )
        self._checked = not self.always_checked
        self._keep(step, (batch, views, encoded, targets))
        return loss

    def gradients_ready(self, step: Step) -> None:
        """Let every component change its gradients, before the optimiser's step."""
        self.manager.hook.gradients_ready(step=step)

    @torch.no_grad()
    def update_target(self, step: Step) -> None:
        """Let targets, queues and banks update themselves, after the optimiser's step."""
        if not self._records:
            raise CoviewError("update_target needs a forward pass of the same step before it.")
        batches, views, encoded, targets = zip(*self._records, strict=True)
        self._records = []
        self.manager.hook.update_target(
            encoder=self.encoder,
            views=joined(views),
            encoded=joined(encoded),
            targets=joined(targets),
            batch=joined(batches),
            step=step,
        )

    def backbone(self) -> nn.Module:
        """Return the network that the recipe exports and evaluates."""
        if self.evaluates == "online":
            return self.encoder.backbone()
        backbone: nn.Module | None = declared(
            self.components["target"], TargetComponent, "backbone"
        )()
        if backbone is None:
            raise RequestError(
                f"evaluates = {self.evaluates!r}, but {self.parts['target'].label} has no "
                "network of its own to evaluate."
            )
        return backbone

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the evaluation views of images (B, C, H, W) uint8."""
        views: Views = self.components["views"].evaluation_views(images)  # type: ignore[operator]
        return views

    def observe(self, observer: object, name: str, package: str = "") -> None:
        """Register an observer, which watches or wraps hooks and fills no role.

        Args:
            observer: an object with hook implementations.
            name: its name, for messages.
            package: the distribution it comes from, for messages.

        Raises:
            PluginError: it implements a hook, or takes an argument, that does not exist.
        """
        label = f"observer {name!r}" + (f" of package {package}" if package else "")
        refuse_misspelt(observer, label)
        try:
            self.manager.register(observer, name=f"observer:{name}")
        except pluggy.PluginValidationError as error:
            raise PluginError(f"{label} does not fit its hooks: {first_line(error)}") from error

    def _border(self) -> Border:
        views = next(part.module for part in self.parts.values() if "views" in part.roles)
        layout = declared(views, ViewsComponent, "layout")
        return Border(list(self.parts.values()), layout, self.manager)

    def _call(self, hook: str, **given: Any) -> Any:
        return getattr(self.manager.hook, hook)(**given)

    def _keep(self, step: Step, records: tuple[Batch, Views, Encoded, Targets]) -> None:
        if not self.training:
            return
        if step.number != self._step_number:
            self._records = []  # for loops that never call update_target
        self._step_number = step.number
        batch, views, encoded, targets = records
        self._records.append(
            (detached(batch), detached(views), detached(encoded), detached(targets))
        )


def build_method(resolved: Resolved, plan: Plan, objects: dict[str, Any] | None = None) -> Method:
    """Build the components in the order of their roles, each from all that is known by then.

    Args:
        resolved: a validated recipe.
        plan: the run as far as it is known.
        objects: modules to use instead of named ones: ``views``, ``backbone``.

    Raises:
        RequestError: components do not fit together; the message says why.
    """
    objects = objects or {}
    backbone = resolved.part("backbone")
    spec = BackboneSpec(backbone.name, backbone.factory, backbone.settings)
    plan = attrs.evolve(plan, backbone=objects.get("backbone", spec))
    built: dict[str, BuiltComponent] = {}
    for role in COMPONENTS:
        for part in resolved.parts[role]:
            if part.shared_with:
                owner = next(c for c in built.values() if part.shared_with in c.roles)
                built[owner.key] = attrs.evolve(owner, roles=(*owner.roles, role))
                continue
            key = role if role not in built and role != "wrap" else f"{role}-{part.name}"
            module = objects.get(role) or _construct(part, plan)
            built[key] = BuiltComponent(key, module, (role,), part.name, part.package, part.weight)
            _refuse_other_slots(built, key)
            plan = _learned(plan, built[key])
    method = Method(matched(built, plan.notice), resolved.training.evaluates)
    tell_of_shared_negatives([c for c in built.values() if "loss" in c.roles], plan.notice)
    method.backbone()  # fail now, not after training, if there is nothing to evaluate
    return method


def _refuse_other_slots(built: dict[str, BuiltComponent], key: str) -> None:
    """Refuse a target with keys by view next to an encoder whose slots are not views."""
    target, encoder = built[key], built.get("encoder")
    if encoder is None or not declared(target.module, TargetComponent, "by_view"):
        return
    if declared(encoder.module, EncoderComponent, "by_view"):
        return
    by_encoder = declared(target.module, TargetComponent, "uses_encode_keys")
    if not (by_encoder and declared(encoder.module, EncoderComponent, "slots")):
        raise RequestError(
            f"{target.roles[0]} {target.name!r} gives a key for each view, but encoder "
            f"{encoder.name!r} does not compare views. Use --use target=shared."
        )


def _construct(part: Part, plan: Plan) -> nn.Module:
    try:
        module = part.factory(part.settings, plan)
    except RequestError:
        raise
    except Exception as error:
        error.add_note(f"while building {part.table} {part.name!r} of package {part.package}")
        raise
    if not isinstance(module, nn.Module):
        raise PluginError(
            f"{part.table} {part.name!r} of package {part.package} is not a torch.nn.Module."
        )
    return module


def _learned(plan: Plan, component: BuiltComponent) -> Plan:
    module: Any = component.module
    if "views" in component.roles:
        if plan.layout is not None and plan.layout != module.layout:
            raise RequestError(
                f"{component.label} makes other views than the first of the mixture: number, "
                "sizes, channels and pairs must be the same."
            )
        return attrs.evolve(plan, layout=module.layout)
    if "encoder" in component.roles:
        slots = declared(module, EncoderComponent, "slots")
        return attrs.evolve(plan, dim=module.dim, slots=slots, encoder=module)
    return plan
