"""What queries are compared with, a chunk of queries and negatives at a time."""

from __future__ import annotations

from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from coview.comparison import own, similarities, unit

Names = tuple[Tensor, Tensor]
"""Identities of candidates and of queries, in any form in which equal ones are equal."""


@attrs.frozen(eq=False)
class Source:
    """Negatives as the chunks read them.

    Attributes:
        vectors: (K, d) shared by all queries, or (N, K, d), a set for each.
        identities: (K,), (N, K) or None; equal to the query's own: no negative.
        cosine: divide by the vectors' norms. Only where no gradient reaches them.
    """

    vectors: Tensor
    identities: Tensor | None = None
    cosine: bool = False

    @property
    def by_row(self) -> bool:
        """Whether each query has candidates, or names for them, of its own."""
        return self.vectors.ndim == 3 or (self.identities is not None and self.identities.ndim == 2)


class Chunk(NamedTuple):
    """Similarities (R, K), the vectors they are with, and their norms where not divided yet."""

    values: Tensor
    vectors: Tensor
    norms: Tensor | None


def names_of(source: Source, identities: Tensor, dtype: torch.dtype) -> Names | None:
    """Return candidates' and queries' identities, as floating point numbers where that is exact.

    Those are the places of identities among the sorted candidates: floating point
    numbers compare into floating point numbers seven times as fast as into truth values.
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
    """Make the similarities with the queries' own so small that their exponential is 0."""
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
    """Compare these queries with these columns of a source."""
    shared = source.vectors.ndim == 2
    vectors = source.vectors[columns] if shared else source.vectors[rows, columns]
    vectors = vectors.to(queries.dtype)
    norms = None
    if source.cosine and shared:
        vectors = unit(vectors)
    elif source.cosine:
        # Dividing the products leaves the (R, K, d) vectors themselves uncopied.
        norms = vectors.norm(dim=-1).clamp_min(1e-12)
    values = similarities(queries, vectors)
    if norms is not None:
        values /= norms
    if names is not None:
        whose, mine = names
        _exclude(values, whose[columns] if whose.ndim == 1 else whose[rows, columns], mine[rows])
    return Chunk(values, vectors, norms)
