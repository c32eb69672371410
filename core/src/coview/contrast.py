"""Cross-entropy of every positive pair of a step among its negatives, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coview.candidates import Source
from coview.chunked import cross_entropy_in_chunks
from coview.comparison import unit
from coview.compiling import compilable
from coview.records import Encoded, Negatives, Pairs, Targets

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
    """Return -log softmax of the positive among all candidates, the mean over each pair's rows.

    It is what :func:`coview.comparison.candidates` and
    :func:`coview.comparison.cross_entropy` give, without their (N, K) tensors:
    similarities, identities and exponentials exist a chunk at a time and the
    gradient is computed with the value. Views that are compared with the same
    negatives are compared in one matrix product, and a query's negatives once
    for all its positives.

    Gradient reaches queries, keys and negative vectors that have any, and a
    temperature that requires it; a second derivative is refused. Numbers are
    float32 or better, whatever the precision of the records and of autocast.

    Args:
        encoded: queries and pairs.
        targets: keys.
        negatives: one part for each source.
        cosine: compare by cosine instead of dot product.
        temperature: what similarities are divided by.
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
    """Return what is compared, of each group of pairs that have the same negatives.

    ``share`` is what a pair counts for.

    Returns:
        What the pairs have, and the vectors of each source of theirs.
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
        # Divided by the temperature: logits need no division of their own.
        rows = rows_of(encoded.queries[query]) / temperature
        logits = [(rows * rows_of(targets.keys[key])).sum(dim=-1) for key in theirs]
        # A query with fewer positives than the others: the rest counts for nothing.
        missing = [torch.zeros_like(logits[0])] * (most - len(theirs))
        positives.append(torch.stack([*logits, *missing], dim=1))
        # Filled there: numbers from the host would have to be waited for.
        weight = torch.full_like(positives[-1], share / max(len(rows), 1))
        if len(theirs) < most:
            weight[:, len(theirs) :].zero_()
        weights.append(weight)
        queries.append(rows)
    names = torch.cat([encoded.identities[query] for query in keys])
    parts = [(part.vectors[pairs[0][1]], part.normalized) for part in negatives]
    # Only vectors with a gradient are normalised here.
    vectors = [v if not v.requires_grad else rows_of(v, normalized) for v, normalized in parts]
    return (torch.cat(queries), torch.cat(positives), torch.cat(weights), names), vectors


class _Rows:
    """Rows as they are compared; a tensor that is given twice is made ready once."""

    def __init__(self, cosine: bool, dtype: torch.dtype) -> None:
        self.cosine = cosine
        self.dtype = dtype
        self.made: list[tuple[Tensor, Tensor]] = []

    def __call__(self, tensor: Tensor, normalized: bool = False) -> Tensor:
        """Return rows in full precision, of unit length for a cosine."""
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
            part.identities[pairs[0][1]],
            cosine and not (part.normalized or made.requires_grad),
        )
        for part, made in zip(negatives, vectors, strict=True)
    ]


def _alike(pairs: Pairs, negatives: Sequence[Negatives]) -> list[Pairs]:
    """Return the pairs in groups that are compared with the very same negatives."""
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for query, key in pairs:
        mark: list[int] = []
        for part in negatives:
            source = Source(part.vectors[key], part.identities[key])
            mark += [id(source.vectors), id(source.identities), query if source.by_row else -1]
        groups.setdefault(tuple(mark), []).append((query, key))
    return [tuple(group) for group in groups.values()]
