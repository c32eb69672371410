"""The k rows of largest cosine, in memory that is bounded by construction."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from coview.evaluation.stored import Rows

QUERIES = 1024
"""Queries that are compared at once."""
BLOCK_VALUES = 1 << 25
"""Numbers of a block of rows at most: 128 MiB in float32."""
SPARE = 16
"""Neighbours beyond k that are scored again where the first scores are in half precision."""


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
            precision; None: on CUDA only, where it is faster.
    """
    half = queries.is_cuda if half is None else half
    for chunk in queries.split(queries_at_once):
        part = normalize(chunk, dim=1)
        if half:
            _, places = _best(rows, part, min(k + SPARE, len(rows)), torch.bfloat16)
            yield _scored_again(rows, part, places, k)
        else:
            yield _best(rows, part, k, part.dtype)


def _best(rows: Rows, queries: Tensor, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    height = max(1, BLOCK_VALUES // max(queries.shape))
    cosines = queries.new_empty(len(queries), 0, dtype=dtype)
    places = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(rows), height):
        block = rows.block(start, start + height).to(queries.device, queries.dtype)
        here = queries.to(dtype) @ normalize(block, dim=1).to(dtype).T
        value, which = here.topk(min(k, len(block)), dim=1)
        cosines, places = torch.cat([cosines, value], 1), torch.cat([places, which + start], 1)
        cosines, kept = cosines.topk(min(k, cosines.shape[1]), dim=1)
        places = places.gather(1, kept)
    return cosines, places


def _scored_again(rows: Rows, queries: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of ``places`` by cosines in full precision."""
    few = max(1, BLOCK_VALUES // (places.shape[1] * queries.shape[1]))
    cosines = []
    for query, own in zip(queries.split(few), places.split(few), strict=True):
        found = normalize(rows.at(own).to(query.device, query.dtype), dim=-1)
        cosines.append(torch.einsum("qd,qkd->qk", query, found))
    value, which = torch.cat(cosines).topk(k, dim=1)
    return value, places.gather(1, which)
