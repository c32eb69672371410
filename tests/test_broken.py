"""Components broken on purpose: each is caught, and its package is named, not who choked on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from small_parts import Distance, Flat, TwoViews, a_batch, a_method, part
from torch import Tensor, nn

from coview import hookspecs
from coview.errors import PluginError
from coview.hookspecs import hookimpl
from coview.method.relay import BuiltComponent
from coview.records import Encoded, Negatives, Step, Targets, Views


class Detached(nn.Module):
    """A target: the projections, without gradient."""

    @hookimpl
    def encode_targets(self, encoded: Encoded) -> Targets:
        """Return them as keys."""
        return Targets({s: z.detach() for s, z in encoded.projections.items()}, encoded.identities)


class Fixed(nn.Module):
    """Two negatives, with identities."""

    @hookimpl
    def draw_negatives(self, targets: Targets) -> Negatives:
        """Return them for each slot."""
        keys = targets.keys
        return Negatives(
            dict.fromkeys(keys, torch.zeros(2, 3)), dict.fromkeys(keys, torch.arange(2))
        )


RIGHT = {
    "views": TwoViews,
    "encoder": Flat,
    "target": Detached,
    "negatives": Fixed,
    "loss": Distance,
}

# --- records ------------------------------------------------------------------------------------


def change(**changes: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what changes these fields of a record."""
    return lambda record: attrs.evolve(
        record, **{name: function(getattr(record, name)) for name, function in changes.items()}
    )


def each(function: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    """Return what changes the rows of every slot."""
    return lambda rows: {slot: function(value) for slot, value in rows.items()}


def crops(function: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    """Return what changes the first crop of views."""
    return change(crops=lambda made: (function(made[0]), *made[1:]))


def elsewhere(value: Tensor) -> Tensor:
    """Return the tensor on another device."""
    return value.to("meta")


def only(slot: int) -> Callable[[Any], Any]:
    """Return what leaves one slot."""
    return lambda rows: {slot: rows[slot]}


Case = tuple[str, Callable[[Any], Any], str]
RECORDS: dict[str, Case] = {
    "views: nothing": ("views", lambda v: None, "a Views is wanted, not None"),
    "views: a tuple": ("views", lambda v: v.crops, "a Views is wanted, not a tuple"),
    "views: integers": ("views", crops(Tensor.long), "crop 0 must be floating point"),
    "views: half the rows": ("views", crops(lambda c: c[:2]), "crop 0 must have 4 rows"),
    "views: one number": ("views", crops(Tensor.sum), "crop 0 must have 4 rows, not the shape ()"),
    "views: an array": (
        "views",
        crops(lambda c: np.zeros(c.shape)),
        "crop 0 must be a tensor, not a ndarray",
    ),
    "views: another device": ("views", crops(elsewhere), "crop 0 is on meta, but the batch on cpu"),
    "views: another size": ("views", crops(lambda c: c[..., :2]), "crop 0 is (1, 4, 2), but the"),
    "views: more channels": (
        "views",
        crops(lambda c: c.repeat(1, 3, 1, 1)),
        "crop 0 is (3, 4, 4), but the layout says (1, 4, 4)",
    ),
    "views: too few": ("views", change(crops=lambda c: c[:1]), "the layout has 2 views"),
    "views: too many": ("views", change(crops=lambda c: c + c[:1]), "there are 3 crops"),
    "views: a pair of nothing": (
        "views",
        change(pairs=lambda p: ((0, 5),)),
        "(0, 5) is not of a query and a key",
    ),
    "views: fewer pairs": (
        "views",
        change(pairs=lambda p: p[:1]),
        "queries, keys and pairs are not those of the layout",
    ),
    "views: queries": ("views", change(queries=lambda q: (0, 7)), "queries name views [7], of 2"),
    "views: keys": ("views", change(keys=lambda k: (-1, 1)), "keys name views [-1], of 2"),
    "encoded: nothing": ("encoder", lambda e: None, "an Encoded is wanted, not None"),
    "encoded: a tensor": ("encoder", lambda e: e.queries[0], "an Encoded is wanted, not a Tensor"),
    "encoded: no queries": ("encoder", change(queries=lambda q: {}), "there are no queries"),
    "encoded: 3-D": (
        "encoder",
        change(queries=each(lambda q: q[None])),
        "queries[0] must be (N, d) floating point, not (1, 4, 3)",
    ),
    "encoded: integers": (
        "encoder",
        change(queries=each(Tensor.long)),
        "queries[0] must be (N, d) floating point",
    ),
    "encoded: no rows": (
        "encoder",
        change(queries=each(lambda q: None)),
        "queries[0] must be (N, d) floating point, not None",
    ),
    "encoded: 1-D projections": (
        "encoder",
        change(projections=each(lambda z: z[:, 0])),
        "projections[0] must be (N, d) floating point, not (4,)",
    ),
    "encoded: another device": (
        "encoder",
        change(projections=each(elsewhere)),
        "projections[0] is on meta, not on cpu",
    ),
    "encoded: two widths": (
        "encoder",
        change(queries=lambda q: {0: q[0], 1: q[1][:, :2]}),
        "queries must have one width, not [2, 3]",
    ),
    "encoded: detached": ("encoder", change(queries=each(Tensor.detach)), "must carry gradient"),
    "encoded: no identities": (
        "encoder",
        change(identities=lambda i: {}),
        "identities[0] is missing",
    ),
    "encoded: identities of one slot": (
        "encoder",
        change(identities=only(0)),
        "identities[1] is missing",
    ),
    "encoded: half the identities": (
        "encoder",
        change(identities=each(lambda i: i[:1])),
        "identities[0] must be (4,), not (1,)",
    ),
    "encoded: identities of two columns": (
        "encoder",
        change(identities=each(lambda i: i[:, None])),
        "identities[0] must be (4,), not (4, 1)",
    ),
    "encoded: floating identities": (
        "encoder",
        change(identities=each(Tensor.float)),
        "identities[0] must be an int64 tensor",
    ),
    "encoded: a list of identities": (
        "encoder",
        change(identities=each(Tensor.tolist)),
        "identities[0] must be an int64 tensor, not a list",
    ),
    "encoded: pairs": ("encoder", change(pairs=lambda p: ((9, 0),)), "a pair names query slot 9"),
    "targets: nothing": ("target", lambda t: None, "a Targets is wanted, not None"),
    "targets: a dictionary": ("target", lambda t: t.keys, "a Targets is wanted, not a dict"),
    "targets: another width": (
        "target",
        change(keys=each(lambda k: k[:, :2])),
        "keys[0] has width 2, but projections have 3",
    ),
    "targets: one slot": ("target", change(keys=only(0)), "a pair names key slot 1, of [0]"),
    "targets: no slots": ("target", change(keys=lambda k: {}), "a pair names key slot 1, of []"),
    "targets: integers": ("target", change(keys=each(Tensor.long)), "keys[0] must be (N, d) float"),
    "targets: 1-D": (
        "target",
        change(keys=each(lambda k: k[0])),
        "keys[0] must be (N, d) floating point, not (3,)",
    ),
    "targets: a list": (
        "target",
        change(keys=each(Tensor.tolist)),
        "keys[0] must be (N, d) floating point, not a list",
    ),
    "targets: another device": (
        "target",
        change(keys=each(elsewhere)),
        "keys[0] is on meta, not on cpu",
    ),
    "targets: gradient": (
        "target",
        change(keys=each(lambda k: k.clone().requires_grad_())),
        "keys[0] carries gradient, which a target must declare (passes_gradient = True)",
    ),
    "targets: no identities": (
        "target",
        change(identities=lambda i: {}),
        "identities[0] is missing",
    ),
    "targets: half the identities": (
        "target",
        change(identities=each(lambda i: i[:2])),
        "identities[0] must be (4,), not (2,)",
    ),
    "targets: floating identities": (
        "target",
        change(identities=each(Tensor.double)),
        "identities[0] must be an int64 tensor",
    ),
    "negatives: a list": ("negatives", lambda n: [n], "a Negatives is wanted, not a list"),
    "negatives: a tensor": ("negatives", lambda n: n.vectors[0], "a Negatives is wanted, not a T"),
    "negatives: 1-D": (
        "negatives",
        change(vectors=each(lambda v: v[0])),
        "vectors[0] must be (K, d) or (N, K, d), not (3,)",
    ),
    "negatives: 4-D": (
        "negatives",
        change(vectors=each(lambda v: v[None, None])),
        "vectors[0] must be (K, d) or (N, K, d), not (1, 1, 2, 3)",
    ),
    "negatives: nothing in a slot": (
        "negatives",
        change(vectors=each(lambda v: None)),
        "vectors[0] must be (K, d) or (N, K, d), not None",
    ),
    "negatives: another width": (
        "negatives",
        change(vectors=each(lambda v: v[:, :1])),
        "vectors[0] has width 1 on cpu, but keys have width 3",
    ),
    "negatives: another device": (
        "negatives",
        change(vectors=each(elsewhere)),
        "vectors[0] has width 3 on meta",
    ),
    "negatives: identities": (
        "negatives",
        change(identities=each(lambda i: torch.zeros(5))),
        "identities[0] must be (2,), not (5,)",
    ),
    "negatives: identities of each row": (
        "negatives",
        change(identities=each(lambda i: i.expand(4, 2))),
        "identities[0] must be (2,), not (4, 2)",
    ),
    "negatives: by pair without identities": (
        "negatives",
        change(by_pair=lambda p: {(0, 1): torch.zeros(2, 3)}),
        "by_pair[(0, 1)] must be a tuple of vectors and identities, not a Tensor",
    ),
    "negatives: by pair of another width": (
        "negatives",
        change(by_pair=lambda p: {(0, 1): (torch.zeros(4, 2, 1), None)}),
        "by_pair[(0, 1)] has width 1 on cpu, but keys have width 3",
    ),
    "negatives: by pair with identities of one row": (
        "negatives",
        change(by_pair=lambda p: {(0, 1): (torch.zeros(4, 2, 3), torch.arange(2))}),
        "identities[(0, 1)] must be (4, 2), not (2,)",
    ),
    "loss: nothing": ("loss", lambda x: None, "a loss must be a tensor, not None"),
    "loss: a number": ("loss", lambda x: 1.5, "a loss must be a tensor, not a float"),
    "loss: by name": ("loss", lambda x: {"near": x}, "a loss must be a tensor, not a dict"),
    "loss: a row": ("loss", lambda x: x[None], "a loss must be one number, (), not (1,)"),
    "loss: of each image": ("loss", lambda x: x.expand(4), "one number, (), not (4,)"),
    "loss: an integer": ("loss", lambda x: x.long(), "one number, (), not () torch.int64"),
    "loss: detached": ("loss", Tensor.detach, "the loss must carry gradient"),
}


def replaced(base: type[nn.Module], hook: str, changed: Callable[[Any], Any]) -> nn.Module:
    """Return a component whose record is changed."""
    right = getattr(base, hook)
    names = ", ".join(right.__code__.co_varnames[: right.__code__.co_argcount])
    scope: dict[str, Any] = {"changed": changed, "right": right}
    exec(f"def {hook}({names}):\n    return changed(right({names}))", scope)
    return type("Wrong", (base,), {hook: hookimpl(scope[hook])})()


def around(hook: str, changed: Callable[[Any], Any]) -> nn.Module:
    """Return a wrapper that changes what a hook returns."""

    def wrap(self: nn.Module) -> Iterator[None]:
        return changed((yield))  # type: ignore[return-value]

    wrap.__name__ = hook
    return type("Around", (nn.Module,), {hook: hookimpl(wrapper=True)(wrap)})()


def wrapper(module: nn.Module, name: str) -> BuiltComponent:
    """Return a wrapper of package coview-b."""
    return BuiltComponent(name, module, ("wrap",), name, "coview-b")


def refusal(*wrappers: BuiltComponent, **modules: nn.Module) -> str:
    """Return what a method of right parts, but for these, says in its first step."""
    parts = {role: RIGHT[role]() for role in ("target", "negatives")} | modules
    with pytest.raises(PluginError) as caught:
        a_method(*wrappers, **parts)(a_batch(), Step())
    return str(caught.value)


@pytest.mark.parametrize("case", RECORDS)
def test_a_wrong_record_names_the_package_that_made_it(case: str) -> None:
    role, changed, said = RECORDS[case]
    hook = hookspecs.ROLE_HOOKS[role]
    told = refusal(**{role: replaced(RIGHT[role], hook, changed)})
    assert told.startswith(f"{role} 'my-{role}' of package coview-a made a wrong record: ")
    assert said in told


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_a_wrapper_made_wrong_names_the_wrapper(case: str) -> None:
    role, changed, said = RECORDS[case]
    hook = hookspecs.ROLE_HOOKS[role]
    if role == "negatives":  # a wrapper is given all of them
        one, changed = changed, lambda parts: [one(part) for part in parts]
    right = wrapper(around(hook, lambda record: record), "right")
    told = refusal(right, wrapper(around(hook, changed), "wrong"))
    assert told.startswith("wrap 'wrong' of package coview-b made a wrong record: ")
    assert said in told and "coview-a" not in told and "'right'" not in told


@pytest.mark.parametrize("case", RECORDS)
def test_a_wrapper_that_chokes_on_a_wrong_record_is_not_named(case: str) -> None:
    role, changed, said = RECORDS[case]
    hook = hookspecs.ROLE_HOOKS[role]

    def choke(record: Any) -> Any:
        raise AttributeError("no such thing")

    for after in (lambda record: record, choke):
        told = refusal(
            wrapper(around(hook, after), "after"),
            **{role: replaced(RIGHT[role], hook, changed)},
        )
        assert told.startswith(f"{role} 'my-{role}' of package coview-a made a wrong record: ")
        assert said in told and "coview-b" not in told


def test_what_a_wrapper_does_wrong_on_a_right_record_is_its_own_error() -> None:
    def choke(record: Any) -> Any:
        raise AttributeError("no such thing")

    failing = wrapper(around("encode", choke), "failing")
    with pytest.raises(AttributeError, match="no such thing") as caught:
        a_method(failing)(a_batch(), Step())
    assert caught.value.__notes__ == ["in wrap 'failing' of package coview-b"]


def test_of_several_negatives_the_wrong_one_is_named() -> None:
    bad = replaced(Fixed, "draw_negatives", lambda n: None if n is None else n.vectors)
    for names in (("right", "wrong"), ("wrong", "right")):
        parts = [
            BuiltComponent(name, bad if name == "wrong" else Fixed(), ("negatives",), name, name)
            for name in names
        ]
        with pytest.raises(PluginError) as caught:
            a_method(*parts, target=Detached())(a_batch(), Step())
        assert str(caught.value).startswith("negatives 'wrong' of package wrong made a wrong")


def test_a_record_that_is_wrong_once_names_all_that_had_it_in_hand() -> None:
    answers = iter([None])
    once = wrapper(around("encode", lambda record: next(answers, record)), "once")
    told = refusal(once)
    assert told.startswith("encoder 'my-encoder' of package coview-a (or wrap 'once' of package")
    assert "coview-b, which may wrap it) made a wrong record: an Encoded is wanted" in told


def test_several_processes_do_not_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coview.method.border.active", lambda: True)
    wrong = wrapper(around("compute_loss", lambda loss: None), "wrong")
    assert "loss 'my-loss' of package coview-a (or wrap 'wrong'" in refusal(wrong)


def test_target_with_gradient_may_declare_it() -> None:
    class Declared(Detached):
        """Keys with gradient, said."""

        passes_gradient = True

        @hookimpl
        def encode_targets(self, encoded: Encoded) -> Targets:
            """Return the projections."""
            return Targets(encoded.projections, encoded.identities)

    assert a_method(target=Declared())(a_batch(), Step()).requires_grad


def test_only_the_first_step_is_checked_unless_asked() -> None:
    method = a_method(target=Detached())
    method(a_batch(), Step())
    later = replaced(Distance, "compute_loss", Tensor.detach)
    method.manager.unregister(name="loss")
    method.manager.register(later, name="loss")
    method(a_batch(), Step(number=1))
    method.always_checked, method._checked = True, False
    with pytest.raises(PluginError, match="must carry gradient"):
        method(a_batch(), Step(number=2))


# --- components that are refused, or fail ---------------------------------------------------------


class Answers(nn.Module):
    """A wrapper that answers instead of wrapping."""

    @hookimpl
    def encode(self, views: Views) -> None:
        """Return nothing."""


class Nothing(nn.Module):
    """A component without hooks."""


class Wrapping(Distance):
    """A loss that wraps."""

    @hookimpl(wrapper=True)
    def compute_loss(self) -> Any:
        """Return what it wraps."""
        return (yield)


class NoYield(nn.Module):
    """A wrapper that does not yield."""

    @hookimpl(wrapper=True)
    def encode(self) -> None:
        """Return nothing."""


class Misspelt(Detached):
    """A target with a hook of a misspelt name."""

    @hookimpl
    def update_targets(self) -> None:
        """Never called."""


class Unmarked(nn.Module):
    """A loss whose hook has no mark."""

    def compute_loss(self, encoded: Encoded) -> None:
        """Never called."""


class Argument(Detached):
    """A target with an argument that its hook does not have."""

    @hookimpl
    def encode_targets(self, encodings: Encoded) -> None:  # type: ignore[override]
        """Never called."""


class Unknown(Distance):
    """A loss with an attribute that is near one that is read."""

    need = ("negatives",)


class Own(Distance):
    """A loss with an attribute of its own."""

    colour = "red"


class WrongValue(Distance):
    """A loss that declares a value of another kind."""

    needs_fields = "labels"


REFUSED: dict[str, tuple[str, type[nn.Module], str]] = {
    "a wrapper that answers": ("wrap", Answers, "may wrap encode but not answer it: write @hook"),
    "a wrapper without a yield": ("wrap", NoYield, "may wrap encode but not answer it: write @h"),
    "a wrapper without hooks": ("wrap", Nothing, "implements no hook, so it wraps nothing"),
    "a loss that wraps": ("loss", Wrapping, "may not wrap compute_loss: a wrapper"),
    "a misspelt hook": ("target", Misspelt, "a hook 'update_targets' that does not exist"),
    "a hook without its mark": ("loss", Unmarked, "has no @hookimpl compute_loss"),
    "no hook": ("negatives", Nothing, "has no @hookimpl draw_negatives"),
    "an argument that is not given": ("target", Argument, "'encodings'"),
    "a misspelt attribute": ("loss", Unknown, "Did you mean 'needs'?"),
    "an attribute of its own": ("loss", Own, "an attribute 'colour' that coview does not know"),
    "a value of another kind": ("loss", WrongValue, "needs_fields must be a tuple"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_component_that_does_not_fit_is_refused_by_name(case: str) -> None:
    role, kind, said = REFUSED[case]
    with pytest.raises(PluginError) as caught:
        a_method(part(role, kind(), "mine"))
    assert said in str(caught.value)
    assert f"{role} 'mine' of package coview-a" in str(caught.value)


@pytest.mark.parametrize("role", RIGHT)
def test_a_component_that_fails_is_named(role: str) -> None:
    def fail(record: Any) -> Any:
        raise ValueError("no")

    hook = hookspecs.ROLE_HOOKS[role]
    modules = {"target": Detached(), "negatives": Fixed()}
    passive = wrapper(around(hook, lambda record: record), "passive")
    for wrappers in ((), (passive,)):
        with pytest.raises(ValueError, match="no") as caught:
            a_method(*wrappers, **modules | {role: replaced(RIGHT[role], hook, fail)})(
                a_batch(), Step()
            )
        assert caught.value.__notes__ == [f"in {role} 'my-{role}' of package coview-a"]


def test_a_wrapper_may_answer_for_what_failed() -> None:
    class Rescue(nn.Module):
        """Gives zero for a loss that fails."""

        @hookimpl(wrapper=True)
        def compute_loss(self) -> Any:
            """Return it."""
            try:
                return (yield)
            except ZeroDivisionError:
                return torch.zeros((), requires_grad=True)

    failing = replaced(Distance, "compute_loss", lambda loss: 1 / 0)
    method = a_method(wrapper(Rescue(), "rescue"), loss=failing, target=Detached())
    assert method(a_batch(), Step()).item() == 0.0


@pytest.mark.parametrize("yields", [0, 2])
def test_a_wrapper_that_does_not_yield_once_is_named(yields: int) -> None:
    class Wrapper(nn.Module):
        """Yields another number of times."""

        @hookimpl(wrapper=True)
        def encode(self) -> Iterator[None]:
            """Return None."""
            for _ in range(yields):
                yield

    with pytest.raises(
        PluginError, match="wrap 'mine' of package coview-b: encode must yield once"
    ):
        a_method(wrapper(Wrapper(), "mine"))(a_batch(), Step())
