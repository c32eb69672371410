"""Products of some pairs of queries and rows, in full precision."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from coview.evaluation.stored import InMemory, Rows

VALUES = (1 << 18, 1 << 25)
"""Numbers of rows copied at once: on a CPU 1 MiB in float32, to stay in its cache; on others."""


def products(rows: Rows, queries: Tensor, places: Tensor) -> Tensor:
    """Return each query's products with its rows.

    Args:
        rows: N of them.
        queries: (Q, D).
        places: (Q, n), each query's own, none twice.

    Returns:
        (Q, n), in the queries' precision.
    """
    table = rows.rows if isinstance(rows, InMemory) else None
    if table is None or queries.is_cuda or table.is_cuda or table.dtype != queries.dtype:
        return _copied(rows, queries, places)
    return _in_order_of_rows(table.contiguous(), queries, places)


def _in_order_of_rows(table: Tensor, queries: Tensor, places: Tensor) -> Tensor:
    """Read each row once, where it is; what is read again and again are queries, which are few.

    They are the entries at ``places`` of a matrix product of which no others are computed.
    """
    place, order = places.flatten().int().sort(stable=True)
    ends = order.new_zeros(len(table) + 1)
    torch.cumsum(torch.bincount(place, minlength=len(table)), 0, out=ends[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
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
        # A row times a matrix: the other way round is a slower kernel.
        parts.append(torch.bmm(query.unsqueeze(1), found.transpose(1, 2)).squeeze(1))
    return torch.cat(parts)
