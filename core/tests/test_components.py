"""What components declare: defaults, and the refusal of what nobody would read."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from torch import nn

from coview import components
from coview.components import (
    ROLE_CLASSES,
    Component,
    LossComponent,
    TargetComponent,
    ViewsComponent,
    declared,
    refuse_undeclared,
)
from coview.errors import PluginError
from coview.registry import entries, kind_of_role, role_of

SOURCE = Path(components.__file__).parent


class Plain(nn.Module):
    """A component that derives from no class of coview's."""

    @attrs.frozen
    class Settings:
        """No settings."""

    def helper(self) -> None:
        """A method of its own."""


def made(**body: Any) -> type[nn.Module]:
    return type("Mine", (Plain,), body)


def test_defaults_of_what_is_not_said() -> None:
    thing = Plain()
    assert declared(thing, Component, "needs") == {}
    assert declared(thing, Component, "guards")() == ()
    assert declared(thing, TargetComponent, "backbone")() is None
    assert declared(thing, ViewsComponent, "normalization") is None
    assert declared(made(needs={"negatives": "x"}), Component, "needs") == {"negatives": "x"}
    assert declared(made(by_view=True)(), TargetComponent, "by_view") is True


def test_only_what_is_listed_can_be_read() -> None:
    with pytest.raises(AttributeError, match="does not list an attribute 'temperature'"):
        declared(Plain(), LossComponent, "temperature")


@pytest.mark.parametrize("role", [*ROLE_CLASSES.values(), Component])
def test_every_attribute_is_typed_and_documented(role: type) -> None:
    tree = ast.parse(Path(components.__file__).read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == role.__name__)
    assert inspect.getdoc(role)
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        assert not isinstance(node, ast.Assign), f"{role.__name__}: untyped {ast.unparse(node)}"
        if isinstance(node, ast.AnnAssign):
            assert isinstance(after, ast.Expr), f"{ast.unparse(node)} has no docstring"
        if isinstance(node, ast.FunctionDef):
            assert ast.get_docstring(node) and node.returns is not None, node.name


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"need": {"negatives": "x"}}, "'need' that coview does not know. Did you mean 'needs'"),
        ({"passes_gradients": True}, "Did you mean 'passes_gradient'"),
        ({"colour": "red"}, "'colour' that coview does not know. Start the names"),
        ({"gaurds": lambda self: ()}, "has 'gaurds', which coview does not know. Did you mean"),
        ({"needs": {"negative": "x"}}, "needs must list roles .*, not 'negative'"),
        ({"ignores": ("target", "loss_")}, "ignores must list roles .*, not 'loss_'"),
        ({"constant_keys": "yes"}, "constant_keys must be True or False, not 'yes'"),
    ],
)
def test_a_slip_is_refused_by_name(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PluginError, match=sentence) as caught:
        refuse_undeclared(made(**body), "loss 'mine' of package coview-mine")
    assert str(caught.value).startswith("loss 'mine' of package coview-mine")


def test_a_slip_is_refused_beside_an_inherited_default() -> None:
    derived = type("Derived", (LossComponent, Plain), {"gaurds": lambda self: ()})
    with pytest.raises(PluginError, match="'gaurds', which .* Did you mean 'guards'"):
        refuse_undeclared(derived, "loss 'mine'")
    both = type("Both", (LossComponent, Plain), {"guards": list, "guard": lambda self: ()})
    refuse_undeclared(both, "loss 'mine'")


def test_a_slip_in_an_instance_is_refused() -> None:
    def begin(self: Any) -> None:
        nn.Module.__init__(self)
        self.own_bufers = ("bank",)

    with pytest.raises(PluginError, match="'own_bufers', .* Did you mean 'own_buffers'"):
        refuse_undeclared(made(__init__=begin)(), "negatives 'mine'")


def test_what_is_a_components_own_business_passes() -> None:
    class Base(TargetComponent, Plain):
        _secret: ClassVar[int] = 3
        needs: ClassVar[dict[str, str]] = {"negatives": "x"}

        @property
        def rows(self) -> int:
            return 3

    refuse_undeclared(Base, "target 'mine'")
    refuse_undeclared(Base(), "target 'mine'")


@pytest.mark.parametrize(
    "entry",
    [e for role in ROLE_CLASSES for e in entries(kind_of_role(role))],
    ids=lambda e: f"{e.kind}:{e.name}",
)
def test_installed_components_declare_what_is_listed(entry: Any) -> None:
    refuse_undeclared(entry.load(), entry.name, (role_of(entry.kind),))


def reads(text: str) -> list[str]:
    """Return the names that ``declared`` is asked for."""
    return [
        node.args[2].value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "declared"
        and isinstance(node.args[2], ast.Constant)
    ]


def guesses(text: str) -> list[str]:
    """Return the listed names that a file asks for by ``getattr`` or ``hasattr``."""
    known = {name for role in ROLE_CLASSES.values() for name in components._listed(role)}
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and name.value in known - {"Settings"}:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("look", [guesses])
def test_the_engine_guesses_no_attribute(look: Callable[[str], list[str]]) -> None:
    for path in SOURCE.rglob("*.py"):
        if path.name != "components.py":
            assert look(path.read_text(encoding="utf-8")) == [], path
    assert look("getattr(part, 'needs', {})") == ["getattr(part, 'needs', {})"]


def test_the_engine_reads_what_is_listed() -> None:
    found = {n for path in SOURCE.rglob("*.py") for n in reads(path.read_text(encoding="utf-8"))}
    assert {"needs", "ignores", "own_buffers", "guards", "parameter_groups", "by_view"} <= found
