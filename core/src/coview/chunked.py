"""The softmax over negatives, chunk by chunk, its gradient computed on the way forward.

Comparing N queries with K negatives makes N x K similarities, and a plain
cross-entropy keeps several copies of them until backward (He et al. 2020 have
65536 negatives, Chen et al. 2020 compare 8192 with 8192). Here a chunk of them
exists at a time: its exponentials are added up, turned into the gradient and
forgotten. What remains is as large as the queries and vectors themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from coview.candidates import Chunk, Source, compared, names_of
from coview.compiling import compilable
from coview.errors import CoviewError

VALUES = 1 << 21
"""Similarities that exist at once: 8 MiB in float32, what a processor's cache still holds."""
ROWS = 1024
"""Queries that are compared at once, at most."""
LOG2_E = math.log2(math.e)
"""Chunks hold logarithms to the base 2: their exponentials take a third of the time."""


def cross_entropy_in_chunks(
    queries: Tensor,
    positives: Tensor,
    weights: Tensor,
    identities: Tensor,
    sources: Sequence[Source],
) -> Tensor:
    """Return the weighted sum of -log softmax of each positive beside all negatives.

    The gradient is computed with the value, so that no similarity is kept. It
    reaches queries, positives and those vectors that require it, once: a second
    derivative is refused.

    Args:
        queries: (N, d), divided by the temperature, float32 or float64.
        positives: (N, M) logits; each is compared with the negatives by itself.
        weights: (N, M) of the terms; 0 for one that is not there.
        identities: (N,) of the queries.
        sources: negatives. Similarities with them are the logits.
    """
    if not torch.is_grad_enabled():
        queries, positives = queries.detach(), positives.detach()
        sources = [attrs.evolve(s, vectors=s.vectors.detach()) for s in sources]
    sources = [source for source in sources if source.vectors.shape[-2]]
    loss: Tensor = _CrossEntropy.apply(
        queries, positives, weights, identities, sources, *(s.vectors for s in sources)
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    """See :func:`cross_entropy_in_chunks`; vectors are given again for autograd to see."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        positives: Tensor,
        weights: Tensor,
        identities: Tensor,
        sources: Sequence[Source],
        *vectors: Tensor,
    ) -> Tensor:
        ctx.needed = ctx.needs_input_grad[5:]
        loss, *gradients = _summed(queries, positives, weights, identities, sources, ctx.needed)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise CoviewError(
                "This loss computes its gradient with its value, and cannot be differentiated "
                "twice (create_graph=True): build it from coview.comparison.candidates and "
                "coview.comparison.cross_entropy, which keep what that takes."
            )
        to_queries, to_positives, *pushes = torch._foreach_mul(ctx.saved_tensors, gradients[0])
        vectors = (pushes.pop(0) if needed else None for needed in ctx.needed)
        return (to_queries, to_positives, None, None, None, *vectors)


@compilable()
def _summed(
    queries: Tensor,
    positives: Tensor,
    weights: Tensor,
    identities: Tensor,
    sources: Sequence[Source],
    needed: Sequence[bool],
) -> list[Tensor]:
    """Return the loss, and its gradient by queries, by positives and by each vectors needed."""
    live = [s for s, wanted in zip(sources, needed, strict=True) if wanted]
    still = [s for s, wanted in zip(sources, needed, strict=True) if not wanted]
    live_names = [names_of(source, identities, queries.dtype) for source in live]
    still_names = [names_of(source, identities, queries.dtype) for source in still]
    pushes = [torch.zeros_like(source.vectors) for source in live]
    to_queries = torch.zeros_like(queries)
    to_positives = torch.zeros_like(positives)
    loss = queries.new_zeros(())
    for rows in _slices(len(queries), _height(len(queries), live)):
        own_rows = queries[rows] * LOG2_E
        sums = _Sums.none(own_rows)
        for source, names in zip(still, still_names, strict=True):
            for columns in _slices(source.vectors.shape[-2], VALUES // len(own_rows)):
                chunk = compared(source, rows, columns, own_rows, names)
                sums = sums.with_chunks([chunk])[0]
        chunks = [
            compared(source, rows, slice(None), own_rows, names)
            for source, names in zip(live, live_names, strict=True)
        ]
        sums, shares = sums.with_chunks(chunks) if chunks else (sums, [])
        # Each term is log(1 + negatives / positive), which loses nothing when it is small.
        odds = sums.log_total() - positives[rows]
        loss += (weights[rows] * torch.logaddexp(torch.zeros_like(odds), odds)).sum()
        slope = weights[rows] * odds.sigmoid()
        to_positives[rows] = -slope
        scale = slope.sum(dim=1, keepdim=True) / sums.total.clamp_min(1)
        to_queries[rows] = sums.pull * scale
        for share, push in zip(shares, pushes, strict=True):
            _push(push, rows, share, queries[rows] * scale)
    return [loss, to_queries, to_positives, *pushes]


class _Sums(NamedTuple):
    """Over the negatives seen so far, for each row.

    Attributes:
        largest: (R, 1) logit, a finite number below all others where there is none.
        total: (R, 1) sum of 2^(logit - largest): at least 1, or 0 where there is none.
        pull: (R, d) sum of 2^(logit - largest) times the vector.
    """

    largest: Tensor
    total: Tensor
    pull: Tensor

    @classmethod
    def none(cls, queries: Tensor) -> _Sums:
        lowest = torch.finfo(queries.dtype).min / 2
        zero = queries.new_zeros(len(queries), 1)
        return cls(zero + lowest, zero, torch.zeros_like(queries))

    def with_chunks(self, chunks: Sequence[Chunk]) -> tuple[_Sums, list[Tensor]]:
        """Return the sums with these added, and 2^(logit - largest); values are overwritten."""
        largest = self.largest
        for chunk in chunks:
            largest = torch.maximum(largest, chunk.values.amax(dim=1, keepdim=True))
        shrunk = (self.largest - largest).exp2()
        total, pull = self.total * shrunk, self.pull * shrunk
        shares = []
        for chunk in chunks:
            share = chunk.values.sub_(largest).exp2_()
            total += share.sum(dim=1, keepdim=True)
            pull += _pull(share if chunk.norms is None else share / chunk.norms, chunk.vectors)
            shares.append(share)
        return _Sums(largest, total, pull), shares

    def log_total(self) -> Tensor:
        """Return the natural logarithm of the sum (R, 1), -inf where there is none."""
        return (self.largest + self.total.log2()) / LOG2_E


def _pull(shares: Tensor, vectors: Tensor) -> Tensor:
    if vectors.ndim == 2:
        return shares @ vectors
    return torch.bmm(shares.unsqueeze(1), vectors).squeeze(1)


def _push(gradient: Tensor, rows: slice, shares: Tensor, queries: Tensor) -> None:
    """Add what these queries ask of the vectors."""
    if gradient.ndim == 2:
        gradient.addmm_(shares.T, queries)
    else:
        torch.mul(shares.unsqueeze(-1), queries.unsqueeze(1), out=gradient[rows])


def _height(rows: int, live: Sequence[Source]) -> int:
    """Return how many rows are compared at once: vectors with gradient need all of a row."""
    width = sum(source.vectors.shape[-2] for source in live)
    return max(1, min(rows, ROWS, VALUES // max(width, 1)))


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
