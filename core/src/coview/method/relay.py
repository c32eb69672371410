"""Register a component with a run: for its roles, with its own randomness and name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

import attrs
import pluggy
from torch import nn

from coview.components import refuse_undeclared
from coview.errors import CoviewError, PluginError, nearest
from coview.hookspecs import (
    HOOK_NAMES,
    LIFE_HOOKS,
    OPEN_HOOKS,
    PROJECT,
    RENAMED,
    ROLE_HOOKS,
    hookimpl,
)
from coview.records import Encoded
from coview.schedules import Schedule

_IMPL = f"{PROJECT}_impl"
_WRAP = "wrap"


@attrs.frozen(eq=False)
class BuiltComponent:
    """A built component: the module, the roles it fills, and its name in messages.

    Attributes:
        weight: of one loss in their sum, or of one views component in their mixture.
        on_projections: its hooks get projections as queries, because the encoder's queries
            are of another space (``queries_are``) and it needs them in that of the keys.
    """

    key: str
    module: nn.Module
    roles: tuple[str, ...]
    name: str
    package: str
    weight: float | Schedule = 1.0
    on_projections: bool = False

    @property
    def label(self) -> str:
        """Its name in messages: ``negatives 'queue' of package coview-moco``."""
        return f"{self.roles[0]} {self.name!r} of package {self.package}"


class Relay:
    """What is registered for a component; pluggy tells plugins apart by their identity."""


def relay_of(*hooks: Callable[..., Any]) -> Relay:
    """Return a plugin with these hooks."""
    relay = Relay()
    for hook in hooks:
        setattr(relay, hook.__name__, hook)
    return relay


def register(
    manager: pluggy.PluginManager, component: BuiltComponent, without: Collection[str] = ()
) -> None:
    """Register a component for the hooks of its roles, the open ones and those of a run's life.

    Args:
        manager: the run's hooks.
        component: what implements them.
        without: roles whose hooks are left out, because several components share them.

    Raises:
        PluginError: it does not fit; the message names it and its package.
    """
    refuse_misspelt(component.module, component.label)
    refuse_undeclared(component.module, component.label, component.roles)
    relay = Relay()
    own = {ROLE_HOOKS[role]: role for role in component.roles if role != _WRAP}
    wrapped = ROLE_HOOKS.values() if _WRAP in component.roles else own
    for name in (*wrapped, *OPEN_HOOKS, *LIFE_HOOKS):
        implementation = getattr(component.module, name, None)
        if implementation is not None and hasattr(implementation, _IMPL):
            if own.get(name) not in without:
                setattr(relay, name, _relay(implementation, component))
        elif name in own:
            raise PluginError(
                f"{component.label} fills {own[name]!r}, but has no @hookimpl {name}."
            )
    if _WRAP in component.roles and not vars(relay):
        raise PluginError(f"{component.label} implements no hook, so it wraps nothing.")
    try:
        manager.register(relay, name=component.key)
    except pluggy.PluginValidationError as error:
        # pluggy 1.6 leaves the plugin half registered; undo that.
        if manager.has_plugin(component.key):
            manager.unregister(name=component.key)
        raise PluginError(
            f"{component.label} does not fit its hooks: {first_line(error)}"
        ) from error


def answer(component: BuiltComponent, hook: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a component's implementation of a hook, called with all that the hook is given."""
    call = _relay(getattr(component.module, hook), component)
    names = list(inspect.signature(call).parameters)
    return lambda given: call(*(given[name] for name in names))


def first_line(error: BaseException) -> str:
    """Return the last line of pluggy's message, which says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def refuse_misspelt(component: object, label: str) -> None:
    """Refuse an implementation of a hook that does not exist; pluggy alone would ignore it.

    A hook or an argument of an earlier version is told with its new name.
    """
    for name in dir(type(component)):
        member = getattr(type(component), name, None)
        if not hasattr(member, _IMPL):
            continue
        for word in (name, *inspect.signature(member).parameters):  # type: ignore[arg-type]
            if word in RENAMED:
                what = "hook" if word == name else f"argument of {name}"
                raise PluginError(f"{label}: the {what} {word!r} is called {RENAMED[word]!r} now.")
        if name not in HOOK_NAMES:
            raise PluginError(
                f"{label} implements a hook {name!r} that does not exist."
                f"{nearest(name, HOOK_NAMES)}"
            )


def _relay(implementation: Callable[..., Any], component: BuiltComponent) -> Callable[..., Any]:
    """Wrap a hook, so that its step has the component's randomness and its errors name it."""
    signature = inspect.signature(implementation)
    names = list(signature.parameters)
    changes: dict[int, Callable[[Any], Any]] = {}
    if "step" in names:
        changes[names.index("step")] = lambda step: step.within(component.key)
    if component.on_projections and "encoded" in names:
        changes[names.index("encoded")] = _on_projections
    wraps = _wraps(implementation, component)
    where = f"{component.label}: {implementation.__name__}"

    def own(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        given = list(arguments)
        for position, changed in changes.items():
            given[position] = changed(given[position])
        return tuple(given)

    def call(*arguments: Any) -> Any:
        try:
            return implementation(*own(arguments))
        except Exception as error:
            error.add_note(f"in {component.label}")
            raise

    def wrap(*arguments: Any) -> Any:
        try:
            return (yield from _once(implementation(*own(arguments)), where))
        except Exception as error:
            if not getattr(error, "__notes__", ()):  # else what it wraps has said its name
                error.add_note(f"in {component.label}")
            raise

    relayed = functools.wraps(implementation)(wrap if wraps else call)
    relayed.__signature__ = signature  # type: ignore[attr-defined]
    return hookimpl(wrapper=True)(relayed) if wraps else hookimpl(relayed)


def _on_projections(encoded: Encoded) -> Encoded:
    return attrs.evolve(encoded, queries=encoded.projections)


def _once(wrapping: Generator[Any, Any, Any], where: str) -> Any:
    """Run a wrapper that must yield once; pluggy would not say whose it is."""
    wrong = PluginError(f"{where} must yield once.")
    if next(wrapping, wrong) is wrong:
        raise wrong
    try:
        inner = yield
    except Exception as error:
        given: Callable[[], Any] = functools.partial(wrapping.throw, error)
    else:
        given = functools.partial(wrapping.send, inner)
    try:
        given()
    except StopIteration as end:
        return end.value
    raise wrong


def _wraps(implementation: Callable[..., Any], component: BuiltComponent) -> bool:
    """Return whether a hook is wrapped, which a wrapper must do and a component may not."""
    options: dict[str, Any] = getattr(implementation, _IMPL)
    name, wraps = implementation.__name__, bool(options["wrapper"] or options["hookwrapper"])
    if wraps and _WRAP not in component.roles:
        raise PluginError(
            f"{component.label} may not wrap {name}: a wrapper (group coview.wrappers) may."
        )
    wrong = wraps and not inspect.isgeneratorfunction(implementation)
    wrong |= not wraps and name in ROLE_HOOKS.values()
    if wrong and _WRAP in component.roles:
        raise PluginError(
            f"{component.label} may wrap {name} but not answer it: write "
            "@hookimpl(wrapper=True) and yield once."
        )
    return wraps


def check_roles(manager: pluggy.PluginManager) -> None:
    """Check that one component fills each role (negatives: at least one)."""
    for role, hook in ROLE_HOOKS.items():
        implementations = getattr(manager.hook, hook).get_hookimpls()
        answering = sum(not (one.wrapper or one.hookwrapper) for one in implementations)
        if answering == 0 or (answering > 1 and role != "negatives"):
            raise CoviewError(f"Role {role!r} needs exactly one component; {answering} fill it.")
