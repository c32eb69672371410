"""The k rows of largest cosine, in memory that is bounded by construction.

Where the device multiplies bfloat16 faster, such products propose more than k
rows, and cosines in full precision choose among them and are what is returned.
Rows are compared less a common vector (the mean of some), which takes the same
from all of a query's cosines and so changes no order, but leaves small numbers,
whose rounding is small too. A row is missed only if ``SPARE`` more than k others
seem as near, so it is at most 2 x ``TOLERANCE`` nearer than the last one
returned: a bound that rounding would have to conspire to reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize

from coview.evaluation.largest import largest
from coview.evaluation.pairs import products
from coview.evaluation.stored import InFile, Rows

QUERIES = 1024
"""Queries that are compared at once."""
CHUNKS = 8
"""Chunks of queries that a block of rows is read, and made ready, once for."""
BLOCK_BYTES = 1 << 28
"""Bytes of a block of rows, and of its products with a chunk of queries, at most."""
PIECE_VALUES = 1 << 20
"""Numbers that a CPU makes ready at once: 4 MiB in float32, to stay in its cache."""
SAMPLE = 1024
"""Rows whose mean is what is common to all."""
SPARE = 32
"""Neighbours beyond k that are scored again where the first scores are in half precision."""
TOLERANCE = 2**-5
"""More than a product can be wrong: 2^-8 of each factor and of the result, lengths at most 2."""
HALF_FROM = (8192, 128)
"""Rows and dimensions from which bfloat16 pays."""


@torch.no_grad()
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
    count, dtype = (min(k + SPARE, len(rows)), torch.bfloat16) if half else (k, queries.dtype)
    for many in queries.split(CHUNKS * queries_at_once):
        parts = normalize(many, dim=1).split(queries_at_once)
        best, lengths = _best(rows, parts, count, dtype)
        for part, found in zip(parts, best, strict=True):
            if half:
                found.values = products(rows, part, found.places) / lengths[found.places]
            cosines, which = largest(found.values, k, in_order=True)
            yield cosines, found.places.gather(1, which)


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


def precision(rows: Tensor | Rows, queries: Tensor, k: int) -> str:
    """Return in words what neighbours are found and scored in, for a result's protocol."""
    full = "float64" if queries.dtype == torch.float64 else "float32"
    half = half_pays(len(rows), queries, k)
    said = f"bfloat16, the best {k + SPARE} again in {full}" if half else full
    return f"{said}, of features stored in bfloat16" if isinstance(rows, InFile) else said


@attrs.define(eq=False)
class _Best:
    """The largest values (q, n) so far, in no order, and their places."""

    values: Tensor
    places: Tensor

    def add(self, values: Tensor, start: int, count: int) -> None:
        """Take in products with a block of rows that begins at ``start``."""
        found, which = largest(values, count)
        self.values = torch.cat([self.values, found], dim=1)
        self.places = torch.cat([self.places, which + start], dim=1)
        if self.values.shape[1] > count:
            self.values, kept = largest(self.values, count)
            self.places = self.places.gather(1, kept)


def _best(
    rows: Rows, parts: Sequence[Tensor], count: int, dtype: torch.dtype
) -> tuple[list[_Best], Tensor]:
    """Return for each part of the queries its best, and the rows' lengths (N,).

    If ``dtype`` is not the queries' own, values are products in it, less what is
    common to a query's.
    """
    ready = [part.to(dtype) for part in parts]
    best = [_Best(p.new_empty(len(p), 0), p.new_empty(len(p), 0, dtype=torch.int64)) for p in ready]
    height = max(1, BLOCK_BYTES // (dtype.itemsize * max(parts[0].shape)))
    height = -(-len(rows) // -(-len(rows) // height))  # blocks of one size
    room = ready[0].new_empty(len(ready[0]) * height)
    lengths = []
    for start, block, length in _blocks(rows, parts[0], height, dtype):
        lengths.append(length)
        for part, found in zip(ready, best, strict=True):
            values = room[: len(part) * len(block)].view(len(part), len(block))
            found.add(torch.mm(part, block.T, out=values), start, count)
    return best, torch.cat(lengths)


def _blocks(
    rows: Rows, like: Tensor, height: int, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each block's start, its rows made ready (r, D) and their lengths (r,).

    They are of length one and, if ``dtype`` is not ``like``'s own, less what is
    common to all. The next block takes the place of the last.
    """
    count, width = len(rows), like.shape[1]
    less = None if dtype == like.dtype else -_mean(rows, like)
    room = like.new_empty(min(height, count), width, dtype=dtype)
    piece = height if like.is_cuda else max(1, PIECE_VALUES // width)
    for start in range(0, count, height):
        block = room[: min(height, count - start)]
        lengths = []
        for place, part in enumerate(block.split(piece)):
            first = start + place * piece
            found = rows.block(first, first + len(part)).to(like.device, like.dtype)
            length = found.norm(dim=1, keepdim=True).clamp_min_(1e-12)
            lengths.append(length.squeeze(1))
            if less is None:
                torch.div(found, length, out=part)
            else:
                part.copy_(torch.addcmul(less, found, length.reciprocal()))
        yield start, block, torch.cat(lengths)


def _mean(rows: Rows, like: Tensor) -> Tensor:
    """Return the mean (D,) of normalised rows from all over, as they may be sorted by class."""
    count = min(SAMPLE, len(rows))
    some = torch.arange(count) * len(rows) // count
    return normalize(rows.at(some).to(like.device, like.dtype), dim=1).mean(dim=0)
