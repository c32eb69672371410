"""Balanced soft assignment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coview.distributed import gather

BLOCK = 1 << 21
"""Scores processed at a time: 8 MiB in float32, to fit the cache that processor cores share."""
GROUP = 16
"""Rows whose largest value is found first, as scanning the columns of a tall table is slow."""
LARGEST = 1e30
"""Largest factor of a column, to stay well within float32."""


@torch.no_grad()
def sinkhorn(
    scores: Tensor, support: Tensor | None = None, epsilon: float = 0.05, iterations: int = 3
) -> Tensor:
    """Return codes: assignments of the rows that use the columns about equally.

    Sinkhorn-Knopp's scaling of exp(scores / epsilon) to equal column sums and row
    sums of one (Caron et al. 2020, section 3.1; Cuturi 2013). Rows sum to one; the
    columns' masses are equal only in the limit.

    No score can overflow or leave a row empty: the columns' maxima are subtracted
    in the logarithm, then the rows'. Each row then has an entry of 1, and so has
    each column (in a row from which nothing more was subtracted). Sums of rows and
    columns therefore stay within powers of N and K, and scaling needs no logarithm.

    Args:
        scores: (N, K), this process's rows; columns are balanced over the rows
            of all processes. Each process exchanges only K numbers.
        support: (M, K), rows that take part in the balance but get no code; they
            are the same on every process and count once.
        epsilon: weight of the entropy; high values give uniform codes.
        iterations: number of scalings of columns and rows.

    Returns:
        (N, K), float32 or better; without gradient.
    """
    parts = [scores] if support is None else [scores, support]
    tables = [_Table(part) for part in parts]
    highest = torch.stack([table.highest() for table in tables]).amax(dim=0)
    highest = gather(highest.unsqueeze(0)).amax(dim=0)
    columns = torch.ones_like(highest)
    for iteration in range(iterations):
        if iteration == 0:
            sums = [table.first_sums(highest, epsilon) for table in tables]
        else:
            sums = [table.sums(columns) for table in tables]
        total = gather(sums[0].unsqueeze(0)).sum(dim=0)
        total = total if support is None else total + sums[1]
        # Only ratios matter; the clamp is far above any that a few iterations can reach.
        columns = (total.amax() / total).clamp_max(LARGEST)
    return tables[0].codes(columns)


class _Table:
    """Scores, and their exponentials scaled so that none overflows and no row or column is empty.

    They are processed in blocks that fit a cache. Each scaling of rows and columns
    reads every block once, in the reverse order of the time before, as the last
    block may still be in the cache. A product of vector and matrix uses one thread;
    a block is therefore G matrices (G, R, K), one for each thread.
    """

    def __init__(self, scores: Tensor) -> None:
        rows, width = scores.shape
        self.scores = scores
        self.values = scores.new_empty(
            scores.shape, dtype=torch.promote_types(scores.dtype, torch.float32)
        )
        self.groups = 1 if scores.is_cuda else torch.get_num_threads()
        height = rows if scores.is_cuda else max(1, BLOCK // (width * self.groups)) * self.groups
        parts = (table.split(max(1, height)) for table in (scores, self.values))
        self.blocks = [(self._shared(a), self._shared(b)) for a, b in zip(*parts, strict=True)]

    def _shared(self, part: Tensor) -> Tensor:
        groups = self.groups if len(part) % self.groups == 0 else 1
        return part.unflatten(0, (groups, -1))

    def highest(self) -> Tensor:
        """Return the largest score of each column (K,)."""
        even = len(self.scores) - len(self.scores) % GROUP
        grouped = self.scores[:even].unflatten(0, (even // GROUP, GROUP)).amax(dim=1)
        return torch.cat([grouped, self.scores[even:]]).amax(dim=0).to(self.values.dtype)

    def first_sums(self, highest: Tensor, epsilon: float) -> Tensor:
        """Compute the exponentials; return the columns' sums (K,), up to a common factor."""
        scale = math.log2(math.e) / epsilon
        lowered, sums = -scale * highest, self._zeros()
        for raw, block in self._turned():
            torch.add(lowered, raw, alpha=scale, out=block)
            rows = block.amax(dim=2, keepdim=True)
            block.sub_(rows).exp2_()
            sums[: len(block)].baddbmm_(rows.exp2_().mT, block)
        return sums.sum(dim=(0, 1))

    def sums(self, columns: Tensor) -> Tensor:
        """Return the columns' sums (K,) after scaling columns, then rows."""
        sums = self._zeros()
        for _, block in self._turned():
            sums[: len(block)].baddbmm_(_row_factors(block, columns), block)
        return sums.sum(dim=(0, 1))

    def codes(self, columns: Tensor) -> Tensor:
        """Scale columns, then rows to a sum of one; return (N, K)."""
        for _, block in self._turned():
            rows = _row_factors(block, columns)
            block.mul_(columns).mul_(rows.mT)
        return self.values

    def _turned(self) -> list[tuple[Tensor, Tensor]]:
        """Return the blocks of scores and exponentials, in the reverse order of the last call."""
        self.blocks.reverse()
        return self.blocks

    def _zeros(self) -> Tensor:
        return self.values.new_zeros(self.groups, 1, self.values.shape[1])


def _row_factors(block: Tensor, columns: Tensor) -> Tensor:
    """Return factors that scale rows to sum to one, given columns' factors (K,): (G, 1, R)."""
    return torch.bmm(columns.expand(len(block), 1, -1), block.mT).reciprocal_()
