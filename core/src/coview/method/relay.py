"""Register a component with a run: for its roles, with its own randomness and name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pluggy
from torch import nn

from coview.components import refuse_undeclared
from coview.errors import CoviewError, PluginError, nearest
from coview.hookspecs import HOOK_NAMES, OPEN_HOOKS, PROJECT, ROLE_HOOKS, hookimpl
from coview.records import Step

_IMPL = f"{PROJECT}_impl"


@attrs.frozen(eq=False)
class BuiltComponent:
    """A built component: the module, the roles it fills, and its name in messages."""

    key: str
    module: nn.Module
    roles: tuple[str, ...]
    name: str
    package: str

    @property
    def label(self) -> str:
        """Its name in messages: ``negatives 'queue' of package coview-moco``."""
        return f"{self.roles[0]} {self.name!r} of package {self.package}"


def register(manager: pluggy.PluginManager, component: BuiltComponent) -> None:
    """Register a component for the hooks of its roles and the open ones.

    Raises:
        PluginError: it does not fit; the message names it and its package.
    """
    refuse_misspelt(component.module, component.label)
    refuse_undeclared(component.module, component.label, component.roles)
    relay = SimpleNamespace()
    for name in (*(ROLE_HOOKS[role] for role in component.roles), *OPEN_HOOKS):
        implementation = getattr(component.module, name, None)
        if implementation is not None and hasattr(implementation, _IMPL):
            setattr(relay, name, _relay(implementation, component))
        elif name not in OPEN_HOOKS:
            role = next(role for role, hook in ROLE_HOOKS.items() if hook == name)
            raise PluginError(f"{component.label} fills {role!r}, but has no @hookimpl {name}.")
    try:
        manager.register(relay, name=component.key)
    except pluggy.PluginValidationError as error:
        # pluggy 1.6 leaves the plugin half registered; undo that.
        if manager.has_plugin(component.key):
            manager.unregister(name=component.key)
        raise PluginError(
            f"{component.label} does not fit its hooks: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the last line of pluggy's message, which says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def refuse_misspelt(component: object, label: str) -> None:
    """Refuse an implementation of a hook that does not exist; pluggy alone would ignore it."""
    for name in dir(type(component)):
        if hasattr(getattr(type(component), name, None), _IMPL) and name not in HOOK_NAMES:
            raise PluginError(
                f"{label} implements a hook {name!r} that does not exist."
                f"{nearest(name, HOOK_NAMES)}"
            )


def _relay(implementation: Callable[..., Any], component: BuiltComponent) -> Callable[..., Any]:
    """Wrap a hook, so that its step has the component's randomness and its errors name it."""
    signature = inspect.signature(implementation)
    names = list(signature.parameters)
    position = names.index("step") if "step" in names else None

    @functools.wraps(implementation)
    def call(*arguments: Any) -> Any:
        if position is not None:
            step: Step = arguments[position]
            given = list(arguments)
            given[position] = step.within(component.key)
            arguments = tuple(given)
        try:
            return implementation(*arguments)
        except Exception as error:
            error.add_note(f"in {component.label}")
            raise

    call.__signature__ = signature  # type: ignore[attr-defined]
    return hookimpl(call)


def check_roles(manager: pluggy.PluginManager) -> None:
    """Check that one component fills each role (negatives: at least one)."""
    for role, hook in ROLE_HOOKS.items():
        answering = len(getattr(manager.hook, hook).get_hookimpls())
        if answering == 0 or (answering > 1 and role != "negatives"):
            raise CoviewError(f"Role {role!r} needs exactly one component; {answering} fill it.")
