"""Find the k rows of largest cosine, in bounded memory.

Where the device multiplies bfloat16 faster, products in bfloat16 propose more
than k rows; cosines in full precision then choose among them and are returned.
A common vector (the mean of some rows) is subtracted from all rows first. This
shifts all of a query's cosines equally, so it keeps their order, but makes the
numbers small, and their rounding errors too. A row is missed only if k +
``SPARE`` others seem at least as near, so it is at most 2 x ``TOLERANCE`` nearer
than the last one returned; in practice rounding errors hardly ever add up to that.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize

from coview.evaluation.rows import InFile, InMemory, Rows

GROUP = 4
"""Of each group of this many numbers only the largest is compared, until few are left."""
INTEGERS = {
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
"""Integers of the same bits order positive numbers alike, and a CPU compares them faster."""


def largest(values: Tensor, count: int, *, in_order: bool = False) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row (Q, count) and their positions.

    Args:
        values: (Q, N), without NaN.
        count: how many; at most N are returned.
        in_order: largest first; otherwise in no particular order.
    """
    if values.device.type == "cpu" and values.dtype in INTEGERS:
        found, places = _search(values.view(INTEGERS[values.dtype]), count, in_order)
        if found.numel() and found.amin() > 0:
            return found.view(values.dtype), places
    return _search(values, count, in_order)


def _search(values: Tensor, count: int, in_order: bool) -> tuple[Tensor, Tensor]:
    """Return the same, searching only the groups whose maxima are the largest."""
    width = values.shape[1]
    step = width // GROUP
    if step < 2 * count:
        return _compared(values, min(count, width), in_order)
    # The members of a group are a step apart, so all groups are compared side by side.
    even = GROUP * step
    groups = values[:, :even].unflatten(1, (GROUP, step))
    chosen = _search(groups.amax(dim=1), count, False)[1]
    wanted = chosen.unsqueeze(1).expand(-1, GROUP, -1)
    members = torch.cat([groups.gather(2, wanted).flatten(1), values[:, even:]], dim=1)
    found, which = _compared(members, count, in_order)
    member = which // count
    if even == width:
        return found, chosen.gather(1, which - member * count) + member * step
    # Values left over are in no group.
    inside = chosen.gather(1, which % count) + member * step
    return found, torch.where(member < GROUP, inside, which + (even - GROUP * count))


def _compared(values: Tensor, count: int, in_order: bool) -> tuple[Tensor, Tensor]:
    found, places = values.topk(count, dim=1, sorted=in_order)
    return found, places


VALUES = (1 << 18, 1 << 25)
"""Values copied at once, on a CPU (1 MiB in float32, to stay in its cache) and elsewhere."""


def products(rows: Rows, queries: Tensor, places: Tensor) -> Tensor:
    """Return each query's products with its own rows.

    Args:
        rows: N rows.
        queries: (Q, D).
        places: (Q, n), the rows of each query, none twice.

    Returns:
        (Q, n), in the queries' precision.
    """
    table = rows.rows if isinstance(rows, InMemory) else None
    if table is None or queries.is_cuda or table.is_cuda or table.dtype != queries.dtype:
        return _copied(rows, queries, places)
    return _in_order_of_rows(table.contiguous(), queries, places)


def _in_order_of_rows(table: Tensor, queries: Tensor, places: Tensor) -> Tensor:
    """Read each row once, in place; only the queries, which are few, are read repeatedly.

    The products are the entries at ``places`` of a matrix product; no others are computed.
    """
    place, order = places.flatten().int().sort(stable=True)
    ends = order.new_zeros(len(table) + 1)
    torch.cumsum(torch.bincount(place, minlength=len(table)), 0, out=ends[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR tensor|invariant checks)", UserWarning)
        wanted = torch.sparse_csr_tensor(
            ends,
            order // places.shape[1],
            queries.new_zeros(len(order)),
            (len(table), len(queries)),
            check_invariants=False,
        )
        found: Tensor = torch.sparse.sampled_addmm(wanted, table, queries.T, beta=0.0)
    return torch.empty_like(found.values()).scatter_(0, order, found.values()).view_as(places)


def _copied(rows: Rows, queries: Tensor, places: Tensor) -> Tensor:
    """Copy the rows of a few queries at a time."""
    few = max(1, VALUES[queries.is_cuda] // (places.shape[1] * queries.shape[1]))
    parts = []
    for query, own in zip(queries.split(few), places.split(few), strict=True):
        found = rows.at(own).to(query.device, query.dtype)
        # A row times a matrix; the other way round uses a slower kernel.
        parts.append(torch.bmm(query.unsqueeze(1), found.transpose(1, 2)).squeeze(1))
    return torch.cat(parts)


QUERIES = 1024
"""Queries compared at once (a chunk)."""
CHUNKS = 8
"""Chunks of queries that share one reading and preparation of a block of rows."""
BLOCK_BYTES = 1 << 28
"""Largest size in bytes of a block of rows, and of its products with a chunk of queries."""
PIECE_VALUES = 1 << 20
"""Values that a CPU prepares at once: 4 MiB in float32, to stay in its cache."""
SAMPLE = 1024
"""Rows whose mean is subtracted from all."""
SPARE = 32
"""Neighbours beyond k that are scored again if the first scores are in half precision."""
TOLERANCE = 2**-5
"""Above any error of a product: 2^-8 of each factor and of the result, lengths at most 2."""
HALF_FROM = (8192, 128)
"""Numbers of rows and dimensions from which bfloat16 is worth it."""


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
    queries: rows are read one block at a time, and the best so far are kept.

    Args:
        rows: N rows, of any length.
        queries: (Q, D) float, of any length.
        k: at most N.
        queries_at_once: size of a chunk.
        half: compare in bfloat16, then score the best again in full precision;
            None: :func:`half_pays` decides.
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
    """Whether to use bfloat16: the device is faster in it, and there is enough to compare."""
    large = rows >= max(HALF_FROM[0], 16 * k) and queries.shape[1] >= HALF_FROM[1]
    if not large or queries.dtype == torch.float64:
        return False
    if queries.is_cuda:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public way to ask what a CPU multiplies natively.
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return queries.device.type == "cpu" and any(getattr(torch.cpu, a, bool)() for a in asked)


def precision(rows: Tensor | Rows, queries: Tensor, k: int) -> str:
    """Return, in words, the precision in which neighbours are found and scored."""
    full = "float64" if queries.dtype == torch.float64 else "float32"
    half = half_pays(len(rows), queries, k)
    said = f"bfloat16, the best {k + SPARE} again in {full}" if half else full
    return f"{said}, of features stored in bfloat16" if isinstance(rows, InFile) else said


@attrs.define(eq=False)
class _Best:
    """The largest values (q, n) so far, in no particular order, and their places."""

    values: Tensor
    places: Tensor

    def add(self, values: Tensor, start: int, count: int) -> None:
        """Add products with a block of rows that begins at ``start``."""
        found, which = largest(values, count)
        self.values = torch.cat([self.values, found], dim=1)
        self.places = torch.cat([self.places, which + start], dim=1)
        if self.values.shape[1] > count:
            self.values, kept = largest(self.values, count)
            self.places = self.places.gather(1, kept)


def _best(
    rows: Rows, parts: Sequence[Tensor], count: int, dtype: torch.dtype
) -> tuple[list[_Best], Tensor]:
    """Return the best rows for each part of the queries, and the rows' lengths (N,).

    If ``dtype`` is not the queries' own, values are products in ``dtype``, shifted by
    the same amount for all rows of a query.
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
    """Yield each block's start, its prepared rows (r, D) and their original lengths (r,).

    Prepared rows have length one; if ``dtype`` is not ``like``'s own, the mean of some
    rows is subtracted. The next block overwrites the last.
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
    """Return the mean (D,) of normalised rows, spread out, as rows may be sorted by class."""
    count = min(SAMPLE, len(rows))
    some = torch.arange(count) * len(rows) // count
    return normalize(rows.at(some).to(like.device, like.dtype), dim=1).mean(dim=0)
