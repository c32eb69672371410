"""What tests of a component assert: a right gradient, equal states, equality between processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.multiprocessing.spawn import spawn

from coview.components import LossComponent, declared
from coview.method.joining import share
from coview.method.relay import BuiltComponent, answer
from coview.recipes.recipe import Recipe
from coview.records import Encoded, Negatives, Step, Targets
from coview.testing.driver import a_method_of
from coview.testing.errors import ConformanceError
from coview.testing.evidence import different, shown
from coview.testing.fakes import a_batch, a_step, an_encoded, some_targets
from coview.testing.processes import State, averaged, compare, in_groups, train_part, train_together
from coview.testing.subject import InDouble, Subject

STEPS = 3


def assert_gradient(function: Callable[..., Any], *tensors: Tensor, atol: float = 1e-6) -> None:
    """Assert that autograd's gradient is that of finite differences, in float64.

    Args:
        function: of these tensors; returns a tensor, or a tuple of tensors.
        *tensors: floating-point tensors of any shape; copies in float64 are used.
        atol: greatest difference between the two.

    Raises:
        ConformanceError: they differ; the message has both.
    """
    inputs = tuple(t.detach().double().clone().requires_grad_() for t in tensors)
    try:
        gradcheck(function, inputs, atol=atol)
    except GradcheckError as error:
        raise ConformanceError(
            f"autograd's gradient differs from finite differences (float64): {error}"
        ) from error


def assert_loss_gradient(
    loss: nn.Module,
    encoded: Encoded | None = None,
    targets: Targets | None = None,
    negatives: tuple[Negatives, ...] = (),
    **given: Any,
) -> None:
    """Assert that a loss has a right gradient, to queries and to keys.

    Keys are left out if the loss declares ``constant_keys``.

    Args:
        loss: the component.
        encoded, targets: the records; None: those of :func:`coview.testing.an_encoded` and
            :func:`coview.testing.some_targets`.
        negatives: what :func:`coview.testing.some_negatives` returns, for a loss that needs them.
        **given: other arguments of ``compute_loss``, where the loss asks for them.

    Raises:
        ConformanceError: it is wrong, or the loss gives no number.
    """
    encoded, targets = encoded or an_encoded(4, 3), targets or some_targets(4, 3)
    call = answer(BuiltComponent("loss", loss, ("loss",), "loss", "under test"), "compute_loss")
    queries, keys = tuple(encoded.queries), tuple(targets.keys)
    rows = [encoded.queries[s] for s in queries]
    if not declared(loss, LossComponent, "constant_keys"):
        rows += [targets.keys[s] for s in keys]

    def value(*tensors: Tensor) -> Any:
        theirs = dict(zip(queries, tensors, strict=False))
        mine = dict(zip(keys, tensors[len(queries) :], strict=False)) or targets.keys
        records = {
            "encoder": None,
            "views": None,
            "encoded": attrs.evolve(encoded, queries=theirs, projections=theirs),
            "targets": attrs.evolve(targets, keys=mine),
            "negatives": negatives,
            "batch": a_batch(len(rows[0]), size=4),
            "step": a_step(component="loss"),
        }
        return call({**records, **given})

    assert_gradient(value, *rows)


def assert_identical(first: Any, second: Any, what: str = "the states") -> None:
    """Assert that two nested states (or tensors, or numbers) are equal to the last bit.

    Raises:
        ConformanceError: the message names the first difference, with both values.
    """
    for place, one, other in different(first, second):
        raise ConformanceError(f"{what} differ{place and f' in {place}'}", shown(one, other))


def assert_equal_between_processes(
    method: Mapping[str, nn.Module] | str | Recipe, processes: int = 2
) -> None:
    """Assert that processes with a part of the batch each train what one trains with all of it.

    Three steps under gloo, in float64; compared are the first averaged gradients and, at the
    end, all weights and buffers.

    Args:
        method: the name of an installed method, a recipe, or components by role with
            stand-ins for the rest (:func:`coview.testing.a_method_of`); their classes must
            be importable, as each process imports them anew.
        processes: number of processes, which must divide the 8 (a method: 16) images.

    Raises:
        ConformanceError: the message names the first difference.
    """
    if isinstance(method, (str, Recipe)):
        subject = Subject(method)
        (several,) = train_together([subject], processes)
        compare(train_part(subject), several, in_groups(subject))
        return
    components = dict(method)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(components, f"{folder}/components.pt")
        spawn(_work, args=(processes, folder), nprocs=processes)
        results = [torch.load(f"{folder}/{rank}.pt") for rank in range(processes)]
    compare(_trained(components, 0, 1), results, groups=False)


def _work(rank: int, processes: int, folder: str) -> None:
    torch.set_num_threads(1)
    # Made by this very call, in a folder of its own.
    components = torch.load(Path(folder) / "components.pt", weights_only=False)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=120),
    )
    try:
        torch.save(_trained(components, rank, processes), f"{folder}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _trained(components: Mapping[str, nn.Module], rank: int, processes: int) -> State:
    """Return the first gradients and the state after three steps on this process's rows."""
    method = a_method_of(components).double()
    method.observe(InDouble(), "in-double")
    kept: State = {}
    for number in range(STEPS):
        whole, step = a_batch(seed=number), Step(number=number, total_steps=40, seed=3)
        method.zero_grad(set_to_none=True)
        method(share(whole, rank, processes), step).backward()
        gradients = averaged(method, processes)
        kept = kept or {f"gradient of {name}": g.clone() for name, g in gradients.items()}
        method.gradients_ready(step)
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=0.01)
        method.update_target(step)
    return kept | {name: value.clone() for name, value in method.state_dict().items()}
