"""The k rows of largest cosine, in memory that is bounded by construction.

Where the device multiplies bfloat16 faster, such products propose more than k
rows, and cosines in full precision choose among them and are what is returned.
Rows are compared less a common vector (the mean of the first block), which
takes the same from all of a query's cosines and so changes no order, but leaves
small numbers, whose rounding is small too. A row is missed only if ``SPARE`` more
than k others seem as near, so it is at most 2 x ``TOLERANCE`` nearer than the
last one returned: a bound that rounding would have to conspire to reach.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize

from coview.evaluation.stored import InMemory, Rows

QUERIES = 1024
"""Queries that are compared at once."""
CHUNKS = 8
"""Chunks of queries that a block of rows is read, and made ready, once for."""
BLOCK_VALUES = 1 << 25
"""Numbers of a block of rows at most: 128 MiB in float32."""
SCORED_VALUES = 1 << 18
"""Numbers of rows scored again at once on a CPU: 1 MiB in float32, to stay in its cache."""
SPARE = 32
"""Neighbours beyond k that are scored again where the first scores are in half precision."""
TOLERANCE = 2**-5
"""More than a product can be wrong: 2^-8 of each factor and of the result, lengths at most 2."""
GROUP = 16
"""Of so many products only the largest is compared in the first search for the best."""
HALF_FROM = (8192, 128)
"""Rows and dimensions from which bfloat16 pays."""


def nearest(
    rows: Rows,
    queries: Tensor,
    k: int,
    *,
    queries_at_once: int = QUERIES,
    half: bool | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield cosines and places (q, k), largest cosine first, for each chunk of queries.

    Memory is bounded by chunk x block, whatever the number of rows and
    queries: rows are read a block at a time, and the best so far are kept.

    Args:
        rows: N of them, of any length.
        queries: (Q, D) float, of any length.
        k: at most N.
        queries_at_once: the chunk.
        half: compare in bfloat16, and then score the best again in full
            precision; None: where :func:`half_pays`.
    """
    half = half_pays(len(rows), queries, k) if half is None else half
    for many in queries.split(CHUNKS * queries_at_once):
        parts = normalize(many, dim=1).split(queries_at_once)
        if not half:
            yield from ((b.values, b.places) for b in _best(rows, parts, k, None)[0])
            continue
        best, lengths = _best(rows, parts, min(k + SPARE, len(rows)), torch.bfloat16)
        for part, proposed in zip(parts, best, strict=True):
            yield _scored_again(rows, lengths, part, proposed.places, k)


def half_pays(rows: int, queries: Tensor, k: int) -> bool:
    """Whether bfloat16 is used: the device is faster in it, and there is enough to compare."""
    large = rows >= max(HALF_FROM[0], 16 * k) and queries.shape[1] >= HALF_FROM[1]
    if not large or queries.dtype == torch.float64:
        return False
    if queries.is_cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public question for what a CPU multiplies natively.
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return queries.device.type == "cpu" and any(getattr(torch.cpu, a, bool)() for a in asked)


def precision(rows: int, queries: Tensor, k: int) -> str:
    """Return in words what neighbours are found and scored in, for a result's protocol."""
    full = "float64" if queries.dtype == torch.float64 else "float32"
    if half_pays(rows, queries, k):
        return f"bfloat16, the best {k + SPARE} again in {full}"
    return full


@attrs.define(eq=False)
class _Best:
    """The largest values (q, n) so far and their places, largest first."""

    values: Tensor
    places: Tensor

    def add(self, values: Tensor, start: int, count: int) -> None:
        """Take in products with a block of rows that begins at ``start``."""
        found, which = _largest(values, count)
        joined = torch.cat([self.values, found], dim=1)
        places = torch.cat([self.places, which + start], dim=1)
        self.values, kept = joined.topk(min(count, joined.shape[1]), dim=1)
        self.places = places.gather(1, kept)


def _best(
    rows: Rows, parts: tuple[Tensor, ...], count: int, dtype: torch.dtype | None
) -> tuple[list[_Best], Tensor]:
    """Return for each part of the queries its best, and the rows' lengths (N,).

    With a ``dtype`` values are products in it, less what is common to a query's.
    """
    first = parts[0]
    ready = [part if dtype is None else part.to(dtype) for part in parts]
    height = max(1, BLOCK_VALUES // max(first.shape))
    best = [
        _Best(p.new_empty(len(p), 0), torch.empty(len(p), 0, dtype=torch.int64, device=p.device))
        for p in ready
    ]
    lengths, common = [], None
    for start in range(0, len(rows), height):
        block = rows.block(start, start + height).to(first.device, first.dtype)
        lengths.append(block.norm(dim=1).clamp_min(1e-12))
        block = block / lengths[-1].unsqueeze(1)
        if dtype is not None:
            common = block.mean(dim=0) if common is None else common
            block = block.sub_(common).to(dtype)
        for part, found in zip(ready, best, strict=True):
            found.add(part @ block.T, start, count)
    return best, torch.cat(lengths)


def _largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest of each row (q, n) and where they are, as ``topk`` does."""
    width = values.shape[1]
    if 2 * GROUP * count > width:
        return values.topk(min(count, width), dim=1)
    # They are in the groups whose largest values are the largest: most need not be sorted.
    even = width - width % GROUP
    groups = values[:, :even].view(len(values), GROUP, -1)
    chosen = groups.amax(dim=1).topk(count, dim=1, sorted=False).indices
    members = torch.arange(0, even, even // GROUP, device=values.device)
    places = (chosen.unsqueeze(1) + members.unsqueeze(1)).flatten(1)
    rest = torch.arange(even, width, device=values.device).expand(len(values), -1)
    places = torch.cat([places, rest], dim=1)
    found, which = values.gather(1, places).topk(count, dim=1)
    return found, places.gather(1, which)


def _scored_again(
    rows: Rows, lengths: Tensor, queries: Tensor, places: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the k best of ``places`` by cosines in full precision."""
    table = rows.rows if isinstance(rows, InMemory) else None
    if table is None or queries.is_cuda or table.is_cuda or table.dtype != queries.dtype:
        products = _products(rows, queries, places)
    else:
        products = _products_in_place(table.contiguous(), queries, places)
    cosines = products / lengths[places]
    value, which = cosines.topk(k, dim=1)
    return value, places.gather(1, which)


def _products_in_place(table: Tensor, queries: Tensor, places: Tensor) -> Tensor:
    """Return each query's products with its rows (q, n), read where they are.

    They are the entries at ``places`` of a matrix product of which no others are
    computed, without a copy of the rows.
    """
    ends = torch.arange(0, places.numel() + 1, places.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        wanted = torch.sparse_csr_tensor(
            ends,
            places.flatten(),
            queries.new_zeros(places.numel()),
            (len(queries), len(table)),
            check_invariants=False,
        )
        found: Tensor = torch.sparse.sampled_addmm(wanted, queries, table.T, beta=0.0)
    return found.values().view_as(places)


def _products(rows: Rows, queries: Tensor, places: Tensor) -> Tensor:
    """Return each query's products with its rows (q, n), a few queries at a time."""
    at_once = BLOCK_VALUES if queries.is_cuda else SCORED_VALUES
    few = max(1, at_once // (places.shape[1] * queries.shape[1]))
    products = []
    for query, own in zip(queries.split(few), places.split(few), strict=True):
        found = rows.at(own).to(query.device, query.dtype)
        # A row times a matrix: the other way round is a slower kernel.
        products.append(torch.bmm(query.unsqueeze(1), found.transpose(1, 2)).squeeze(1))
    return torch.cat(products)
