"""What both losses do: compare two batches of embeddings by their statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from coview.records import Encoded, Targets

T = TypeVar("T")


def mean_over_pairs(
    encoded: Encoded,
    targets: Targets,
    prepare: Callable[[Tensor], T],
    compare: Callable[[T, T], Tensor],
) -> Tensor:
    """Return the mean over positive pairs of a term that is the same in both directions.

    Each tensor is prepared once, and the two directions of a pair of views, which compare
    the same two tensors if the target is the network itself, are computed once.

    Args:
        encoded: the queries (N, d) and pairs.
        targets: the keys (N, d).
        prepare: what is made of a slot's rows before they are compared.
        compare: the term of two slots.
    """
    prepared: dict[int, T] = {}
    terms: dict[frozenset[int], Tensor] = {}
    total: Tensor | float = 0.0
    for query, key in encoded.pairs:
        both = (encoded.queries[query], targets.keys[key])
        for rows in both:
            if id(rows) not in prepared:
                prepared[id(rows)] = prepare(rows)
        names = frozenset(map(id, both))
        if names not in terms:
            terms[names] = compare(*(prepared[id(rows)] for rows in both))
        total = total + terms[names]
    mean: Tensor = total / len(encoded.pairs)
    return mean


def sum_of_squares(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum of the squared entries of first' second, of rows (N, d) and (N, d).

    With fewer rows than columns it comes from the two (N, N) products of rows, as the
    squared norm of A'B is the sum of AA' times BB': at 2048 rows of width 8192 that is a
    sixteenth of the memory.
    """
    rows, columns = first.shape
    if rows >= columns:
        return (first.T @ second).square().sum()
    one = first @ first.T
    return (one * (one if second is first else second @ second.T)).sum()
