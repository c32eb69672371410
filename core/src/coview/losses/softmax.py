"""Cross-entropy of every positive pair of a step against its negatives, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from coview.errors import CoviewError
from coview.losses.similarity import Chunk, Source, compared, names_of, unit
from coview.nn.compile import compilable
from coview.records import Encoded, Negatives, Pairs, Targets

VALUES = 1 << 21
"""Most similarities held at once: 8 MiB in float32, which still fits a processor's cache."""
ROWS = 1024
"""Most queries compared at once."""
LOG2_E = math.log2(math.e)
"""Chunks hold base-2 logarithms, whose exponentials take a third of the time."""


def cross_entropy_in_chunks(
    queries: Tensor,
    positives: Tensor,
    weights: Tensor,
    identities: Tensor,
    sources: Sequence[Source],
) -> Tensor:
    """Return the weighted sum of -log softmax of each positive against all negatives.

    The gradient is computed together with the value, so that no similarity is kept.
    It reaches queries, positives, and vectors that require it. Second derivatives
    are refused.

    Args:
        queries: (N, d), divided by the temperature, float32 or float64.
        positives: (N, M) logits; each is compared with the negatives separately.
        weights: (N, M) weights of the terms; 0 for a missing positive.
        identities: (N,), the queries' identities.
        sources: the negatives, whose similarities with the queries are the logits.
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
    """See :func:`cross_entropy_in_chunks`; vectors are passed again so that autograd sees them."""

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
                "This loss computes its gradient with its value and cannot be differentiated "
                "twice (create_graph=True). For second derivatives, build it from "
                "coview.losses.similarity.candidates and coview.losses.similarity.cross_entropy."
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
    """Return the loss and its gradients for queries, positives and the vectors that need one."""
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
        # Each term is log(1 + negatives / positive), which stays exact when it is small.
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
    """Running sums over the negatives seen so far, for each row.

    Attributes:
        largest: (R, 1) largest logit; without any, a finite number below all others.
        total: (R, 1) sum of 2^(logit - largest): at least 1, or 0 without any.
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
        """Return the sums including these chunks, and their 2^(logit - largest), in place."""
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
        """Return the natural logarithm of the sum (R, 1), -inf without any negative."""
        return (self.largest + self.total.log2()) / LOG2_E


def _pull(shares: Tensor, vectors: Tensor) -> Tensor:
    if vectors.ndim == 2:
        return shares @ vectors
    return torch.bmm(shares.unsqueeze(1), vectors).squeeze(1)


def _push(gradient: Tensor, rows: slice, shares: Tensor, queries: Tensor) -> None:
    """Add these queries' share of the vectors' gradient."""
    if gradient.ndim == 2:
        gradient.addmm_(shares.T, queries)
    else:
        torch.mul(shares.unsqueeze(-1), queries.unsqueeze(1), out=gradient[rows])


def _height(rows: int, live: Sequence[Source]) -> int:
    """Return how many rows to compare at once: vectors with gradient need whole rows."""
    width = sum(source.vectors.shape[-2] for source in live)
    return max(1, min(rows, ROWS, VALUES // max(width, 1)))


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


Compared = tuple[Tensor, Tensor, Tensor, Tensor]
"""Queries (N, d), positives (N, M) logits, weights (N, M) and identities (N,), as
:func:`cross_entropy_in_chunks` takes them."""


def softmax_loss(
    encoded: Encoded,
    targets: Targets,
    negatives: Sequence[Negatives],
    *,
    cosine: bool,
    temperature: float | Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Return -log softmax of the positive among all candidates, averaged over each pair's rows.

    The result is that of :func:`coview.losses.similarity.candidates` and
    :func:`coview.losses.similarity.cross_entropy`, without their (N, K) tensors:
    similarities, identities and exponentials exist a chunk at a time, and the
    gradient is computed together with the value. Views with the same negatives are
    compared in one matrix product, and a query's negatives once for all its
    positives.

    Gradient reaches the queries, keys and negative vectors that require it, and a
    temperature that requires it; second derivatives are refused. Numbers are
    float32 or better, whatever the precision of the records and of autocast.

    Args:
        encoded: the queries and pairs.
        targets: the keys.
        negatives: one element per source.
        cosine: compare by cosine instead of dot product.
        temperature: divisor of the similarities.
        reduction: over pairs, ``mean`` or ``sum``.
    """
    groups = _alike(encoded.pairs, negatives)
    first = next(iter(encoded.queries.values()))
    share = 1 / len(encoded.pairs) if reduction == "mean" else 1.0
    with torch.autocast(first.device.type, enabled=False):
        ready = _ready(encoded, targets, negatives, groups, cosine, temperature, share)
        losses = [
            cross_entropy_in_chunks(*compared, _sources(negatives, pairs, vectors, cosine))
            for pairs, (compared, vectors) in zip(groups, ready, strict=True)
        ]
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


@compilable()
def _ready(
    encoded: Encoded,
    targets: Targets,
    negatives: Sequence[Negatives],
    groups: Sequence[Pairs],
    cosine: bool,
    temperature: float | Tensor,
    share: float,
) -> list[tuple[Compared, list[Tensor]]]:
    """Prepare each group of pairs that have the same negatives for comparison.

    ``share`` is the weight of a pair.

    Returns:
        For each group, what is compared and the vectors of each source.
    """
    first = next(iter(encoded.queries.values()))
    rows_of = _Rows(cosine, torch.promote_types(first.dtype, torch.float32))
    return [
        _together(encoded, targets, negatives, pairs, rows_of, temperature, share)
        for pairs in groups
    ]


def _together(
    encoded: Encoded,
    targets: Targets,
    negatives: Sequence[Negatives],
    pairs: Pairs,
    rows_of: _Rows,
    temperature: float | Tensor,
    share: float,
) -> tuple[Compared, list[Tensor]]:
    keys: dict[int, list[int]] = {}
    for query, key in pairs:
        keys.setdefault(query, []).append(key)
    most = max(map(len, keys.values()))
    queries, positives, weights = [], [], []
    for query, theirs in keys.items():
        # Divided by the temperature here, so that the logits need not be.
        rows = rows_of(encoded.queries[query]) / temperature
        logits = [(rows * rows_of(targets.keys[key])).sum(dim=-1) for key in theirs]
        # A query with fewer positives than the others gets padding of weight 0.
        missing = [torch.zeros_like(logits[0])] * (most - len(theirs))
        positives.append(torch.stack([*logits, *missing], dim=1))
        # Filled on the device, as copying numbers from the host would wait for it.
        weight = torch.full_like(positives[-1], share / max(len(rows), 1))
        if len(theirs) < most:
            weight[:, len(theirs) :].zero_()
        weights.append(weight)
        queries.append(rows)
    names = torch.cat([encoded.identities[query] for query in keys])
    parts = [(part.of(*pairs[0])[0], part.normalized) for part in negatives]
    # Only vectors with a gradient are normalised here.
    vectors = [v if not v.requires_grad else rows_of(v, normalized) for v, normalized in parts]
    return (torch.cat(queries), torch.cat(positives), torch.cat(weights), names), vectors


class _Rows:
    """Prepares rows for comparison; a tensor passed twice is prepared once."""

    def __init__(self, cosine: bool, dtype: torch.dtype) -> None:
        self.cosine = cosine
        self.dtype = dtype
        self.made: list[tuple[Tensor, Tensor]] = []

    def __call__(self, tensor: Tensor, normalized: bool = False) -> Tensor:
        """Return rows in full precision, and of unit length for a cosine."""
        precise = tensor.to(self.dtype)
        if normalized or not self.cosine:
            return precise
        for given, made in self.made:
            if given is tensor:
                return made
        self.made.append((tensor, unit(precise)))
        return self.made[-1][1]


def _sources(
    negatives: Sequence[Negatives], pairs: Pairs, vectors: Sequence[Tensor], cosine: bool
) -> list[Source]:
    return [
        Source(
            made,
            part.of(*pairs[0])[1],
            cosine and not (part.normalized or made.requires_grad),
        )
        for part, made in zip(negatives, vectors, strict=True)
    ]


def _alike(pairs: Pairs, negatives: Sequence[Negatives]) -> list[Pairs]:
    """Return the pairs in groups, each compared with the very same negatives."""
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for query, key in pairs:
        mark: list[int] = []
        for part in negatives:
            source = Source(*part.of(query, key))
            mark += [id(source.vectors), id(source.identities), query if source.by_row else -1]
        groups.setdefault(tuple(mark), []).append((query, key))
    return [tuple(group) for group in groups.values()]
