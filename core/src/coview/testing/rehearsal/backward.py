"""The backward pass in Python, for tensors of a device that is not there.

torch's own engine asks the driver for a context of the device before it runs a node. Nodes
can be called from Python too, so this one walks the graph itself, in the same order.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge

Gradient = Tensor | None


class Saved:
    """A tensor that a node saves for its backward pass; let go as soon as that has run.

    ``saved_tensors_hooks(Saved, Saved.read)`` has every node save its tensors so. Nodes that
    Python calls would keep them as long as the graph lives, where torch's engine lets go.
    """

    _read: ClassVar[list[Saved]] = []

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor
        self.version = tensor._version

    def read(self) -> Tensor:
        """Return the tensor, which must be as it was saved.

        Raises:
            RuntimeError: it was let go, or was written to; torch's own words.
        """
        if self.tensor is None:
            raise RuntimeError("Trying to backward through the graph a second time")
        if self.tensor._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: a {tuple(self.tensor.shape)} {self.tensor.dtype} is at "
                f"version {self.tensor._version}; expected version {self.version} instead"
            )
        Saved._read.append(self)
        return self.tensor

    @classmethod
    def let_go(cls, keep: bool) -> None:
        """Forget the tensors read since the last call, unless the graph is to be kept."""
        for saved in cls._read:
            saved.tensor = saved.tensor if keep else None
        cls._read.clear()


def run_backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Gradient],
    keep_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor],
    allow_unreachable: bool = True,
    accumulate_grad: bool = False,
) -> tuple[Gradient, ...]:
    """Compute gradients; the arguments are those of torch's ``_engine_run_backward``."""
    walk = _Walk(outputs, inputs, keep_graph)
    with torch.set_grad_enabled(create_graph):
        for output, gradient in zip(outputs, gradients, strict=True):
            edge = get_gradient_edge(output)
            walk.put(edge.node, edge.output_nr, gradient)
        return walk.run(accumulate=accumulate_grad)


class _Walk:
    """One pass over the graph: each node runs when all that follow it have run."""

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], keep: bool) -> None:
        self.keep = keep
        self.roots = list(dict.fromkeys(get_gradient_edge(output).node for output in outputs))
        self.waiting = _edges_into(self.roots)
        self.given: dict[Any, list[Gradient]] = {}
        self.found: list[Gradient] = [None] * len(inputs)
        self.wanted: dict[tuple[Any, int], list[int]] = {}
        for place, tensor in enumerate(inputs):
            edge = get_gradient_edge(tensor)
            self.wanted.setdefault((edge.node, edge.output_nr), []).append(place)

    def put(self, node: Any, number: int, gradient: Gradient) -> None:
        """Add a gradient to an output of a node, in that output's shape and number type."""
        about = node._input_metadata
        row = self.given.setdefault(node, [None] * max(len(about), number + 1))
        if gradient is None:
            return
        if number < len(about):
            gradient = _fitting(node, gradient, about[number])
        before = row[number]
        row[number] = gradient if before is None else before + gradient

    def run(self, accumulate: bool) -> tuple[Gradient, ...]:
        """Run all nodes; return the gradients of the inputs that were asked for."""
        order, ready = count(), list[tuple[int, int, Any]]()
        for node in self.roots:
            if not self.waiting[node]:
                heapq.heappush(ready, (-node._sequence_nr(), next(order), node))
        while ready:
            node = heapq.heappop(ready)[2]
            made = self._called(node, accumulate)
            Saved.let_go(self.keep)
            for (following, number), gradient in zip(node.next_functions, made, strict=False):
                if following is None:
                    continue
                self.put(following, number, gradient)
                self.waiting[following] -= 1
                if not self.waiting[following]:
                    heapq.heappush(ready, (-following._sequence_nr(), next(order), following))
        return tuple(self.found)

    def _called(self, node: Any, accumulate: bool) -> Sequence[Gradient]:
        given = self.given.pop(node, [None])
        for number, gradient in enumerate(given):
            for place in self.wanted.get((node, number), ()):
                self.found[place] = gradient
        if hasattr(node, "variable"):  # a leaf, whose gradient is kept
            if accumulate and not self.found and given[0] is not None:
                node(given[0])
            return ()
        if all(gradient is None for gradient in given):
            return [None] * len(node.next_functions)
        if isinstance(node, BackwardCFunction):
            return _own_function(node, given)
        made = node(*given)
        return made if isinstance(made, tuple) else (made,)


def _edges_into(roots: Sequence[Any]) -> Counter[Any]:
    """Return how many edges lead into each node that the roots reach."""
    counts: Counter[Any] = Counter()
    seen, stack = set(roots), list(roots)
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is None:
                continue
            counts[following] += 1
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return counts


def _fitting(node: Any, gradient: Tensor, about: Any) -> Tensor:
    """Return a gradient as its tensor is; torch does the same for broadcast and cast ones."""
    if gradient.device != about.device:
        raise RuntimeError(
            f"the gradient of {node.name()} lies on {gradient.device}, its tensor on {about.device}"
        )
    shape = torch.Size(about.shape)
    whole = gradient if gradient.shape == shape else gradient.sum_to_size(shape)
    return whole if whole.dtype == about.dtype else whole.to(about.dtype)


def _own_function(node: Any, given: Sequence[Gradient]) -> Sequence[Gradient]:
    """Call the backward of a ``torch.autograd.Function``, with zeros for missing gradients."""
    whole = [
        torch.zeros(tuple(about.shape), dtype=about.dtype, device=about.device)
        if gradient is None
        else gradient
        for gradient, about in zip(given, node._input_metadata, strict=True)
    ]
    made = node.apply(*whole)
    made = made if isinstance(made, tuple) else (made,)
    # It answers for all arguments, and has edges only for its tensors.
    needed = iter([g for g, need in zip(made, node.needs_input_grad, strict=False) if need])
    return [None if following is None else next(needed) for following, _ in node.next_functions]
