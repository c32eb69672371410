"""Similarities of queries with keys and negatives, whole or a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize

from coview.errors import RequestError
from coview.records import Encoded, Negatives, Pairs, Targets


def unit(rows: Tensor) -> Tensor:
    """Return rows divided by their Euclidean norm, (..., d) -> (..., d)."""
    return normalize(rows, dim=-1)


def similarities(queries: Tensor, vectors: Tensor) -> Tensor:
    """Return dot products (N, K) of queries (N, d) with (K, d), or with (N, K, d) row by row."""
    if vectors.ndim == 2:
        return queries @ vectors.T
    return torch.bmm(vectors, queries.unsqueeze(-1)).squeeze(-1)


def own(identities: Tensor, queries: Tensor) -> Tensor:
    """Return (N, K) bool: where candidates (K,) or (N, K) are of the same image as queries (N,)."""
    return identities == queries.unsqueeze(-1)


def negative_similarities(
    queries: Tensor,
    identities: Tensor,
    negatives: Negatives,
    key: int,
    cosine: bool,
    query: int | None = None,
) -> Tensor:
    """Return every query's similarities with one source, -inf for those that are not negatives.

    Args:
        queries: (N, d), unit vectors if ``cosine``.
        identities: (N,), the queries' identities.
        negatives: the negatives of one source.
        key: the key slot of the pair.
        cosine: divide by the negatives' norms, unless they are known to be 1.
        query: the query slot of the pair, for negatives that depend on it.

    Returns:
        (N, K); gradient flows to the queries and, if the source allows it, to the vectors.
    """
    vectors, candidate = negatives.of(-1 if query is None else query, key)
    values = similarities(queries, vectors.to(queries.dtype))
    if cosine and not negatives.normalized:
        # Dividing the products avoids a copy of the (N, K, d) vectors.
        values = values / vectors.norm(dim=-1).clamp_min(1e-12)
    if candidate is None:
        return values
    return values.masked_fill(own(candidate, identities), -torch.inf)


def candidates(
    encoded: Encoded, targets: Targets, negatives: Sequence[Negatives], cosine: bool
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield for every positive pair its similarity (N,) and those with each source (N, K).

    A similarity of -inf is of a candidate that is no negative of that query.
    """
    for query, key in encoded.pairs:
        anchors, keys = encoded.queries[query], targets.keys[key]
        if cosine:
            anchors, keys = unit(anchors), unit(keys)
        positive = (anchors * keys).sum(dim=-1)
        identities = encoded.identities[query]
        yield (
            positive,
            [negative_similarities(anchors, identities, n, key, cosine, query) for n in negatives],
        )


def cross_entropy(
    positive: Tensor, others: Sequence[Tensor], temperature: float | Tensor
) -> Tensor:
    """Return -log softmax of the positive among all candidates, averaged over rows.

    Every similarity is kept for backward; :func:`coview.losses.softmax.softmax_loss`
    computes the same in bounded memory.

    Args:
        positive: (N,) similarities with the key.
        others: (N, K) similarities with the negatives of each source.
        temperature: divisor of the similarities; a tensor may be learned.
    """
    values = torch.cat([positive.unsqueeze(-1), *others], dim=-1)
    if isinstance(temperature, Tensor):
        # -inf divided by a learned temperature would give that a gradient of 0 times infinity.
        excluded = values == -torch.inf
        values = values.masked_fill(excluded, 0)
        logits = (values / temperature).masked_fill(excluded, -torch.inf)
    else:
        logits = values / temperature
    return (logits.logsumexp(dim=-1) - logits[:, 0]).mean()


def soft_cross_entropies(
    scores: Mapping[int, Tensor],
    probabilities: Mapping[int, Tensor],
    pairs: Pairs,
    temperature: float | Tensor,
) -> list[Tensor]:
    """Return -sum of p log softmax(scores / temperature) for each pair, averaged over rows.

    A query's softmax is normalised once for all its pairs, and its logarithms are
    never stored: a pair costs one sum of products.

    Args:
        scores: by query slot, (N, K).
        probabilities: by key slot, (N, K), rows that sum to one, without gradient.
        pairs: (query slot, key slot).
        temperature: divisor of the scores.
    """
    logits, mass = {}, {}
    for slot in dict.fromkeys(query for query, _ in pairs):
        rows = scores[slot]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        logits[slot] = rows / temperature
        mass[slot] = logits[slot].logsumexp(dim=-1)
    return [(mass[q] - (probabilities[k] * logits[q]).sum(dim=-1)).mean() for q, k in pairs]


def shared_vectors(negatives: Negatives, key: int) -> Tensor:
    """Return one source's vectors (K, d) for a key slot, of a loss that takes no others.

    Raises:
        RequestError: they are made for each query or for each pair of views.
    """
    vectors = negatives.vectors.get(key)
    if vectors is None or vectors.ndim != 2:
        raise RequestError(
            "It takes negatives that all queries share (those of a queue, say), and these are made "
            "for each query: leave out what makes them (negatives or wrap)."
        )
    return vectors


def reduced(terms: Iterable[Tensor], reduction: str) -> Tensor:
    """Return the mean of the terms if ``reduction`` is ``mean``, else their sum."""
    stacked = torch.stack(list(terms))
    return stacked.mean() if reduction == "mean" else stacked.sum()


Names = tuple[Tensor, Tensor]
"""Identities of candidates and of queries, in any form that keeps equal ones equal."""


@attrs.frozen(eq=False)
class Source:
    """Negatives in the form that chunks are taken from.

    Attributes:
        vectors: (K, d) shared by all queries, or (N, K, d), a set for each.
        identities: (K,), (N, K) or None; a vector with the query's own identity is
            not a negative.
        cosine: divide by the vectors' norms; only if no gradient reaches them.
    """

    vectors: Tensor
    identities: Tensor | None = None
    cosine: bool = False

    @property
    def by_row(self) -> bool:
        """Whether each query has its own candidates, or its own identities for them."""
        return self.vectors.ndim == 3 or (self.identities is not None and self.identities.ndim == 2)


class Chunk(NamedTuple):
    """Similarities (R, K), the vectors compared with, and their norms if not applied to those."""

    values: Tensor
    vectors: Tensor
    norms: Tensor | None


def names_of(source: Source, identities: Tensor, dtype: torch.dtype) -> Names | None:
    """Return candidates' and queries' identities, as floating point numbers if that is exact.

    The numbers are the identities' positions among the sorted candidates. A comparison
    of floating point numbers is seven times as fast if its result is floating point too,
    not boolean.
    """
    whose = source.identities
    if whose is None or whose.ndim == 2 or len(whose) >= 1 << 24:
        return None if whose is None else (whose, identities)
    whose, identities = whose.contiguous(), identities.contiguous()
    ordered = whose.sort().values
    places = torch.searchsorted(ordered, identities).clamp_max(len(whose) - 1)
    found = ordered[places] == identities
    mine = torch.where(found, places, -1)
    return torch.searchsorted(ordered, whose).to(dtype), mine.to(dtype)


def _exclude(values: Tensor, whose: Tensor, mine: Tensor) -> None:
    """Make similarities with the query's own image so small that their exponential is 0."""
    if not whose.is_floating_point():
        values.masked_fill_(own(whose, mine), -torch.inf)
        return
    same = torch.eq(whose, mine.unsqueeze(-1), out=torch.empty_like(values))
    values.addcmul_(same, same, value=torch.finfo(values.dtype).min)


def compared(
    source: Source,
    rows: slice,
    columns: slice,
    queries: Tensor,
    names: Names | None,
) -> Chunk:
    """Return the similarities of queries with the chosen columns of a source."""
    shared = source.vectors.ndim == 2
    vectors = source.vectors[columns] if shared else source.vectors[rows, columns]
    vectors = vectors.to(queries.dtype)
    norms = None
    if source.cosine and shared:
        vectors = unit(vectors)
    elif source.cosine:
        # Dividing the products avoids a copy of the (R, K, d) vectors.
        norms = vectors.norm(dim=-1).clamp_min(1e-12)
    values = similarities(queries, vectors)
    if norms is not None:
        values /= norms
    if names is not None:
        whose, mine = names
        _exclude(values, whose[columns] if whose.ndim == 1 else whose[rows, columns], mine[rows])
    return Chunk(values, vectors, norms)
