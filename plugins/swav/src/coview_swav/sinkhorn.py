"""Balanced soft assignment."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coview.training.distributed import gather

BLOCK = 1 << 19
"""Scores that a processor works on at once: 2 MiB in float32, about what its own cache holds."""
LARGEST = 1e30
"""A column's factor at most, to stay within float32 for good."""


@torch.no_grad()
def sinkhorn(
    scores: Tensor, support: Tensor | None = None, epsilon: float = 0.05, iterations: int = 3
) -> Tensor:
    """Return codes: assignments of the rows that use the columns about equally.

    Sinkhorn-Knopp's scaling of exp(scores / epsilon) to equal column sums and
    row sums of one (Caron et al. 2020, section 3.1; Cuturi 2013). Rows sum to
    one; the columns' masses are equal only in the limit.

    No score can overflow or leave a row empty: the columns' maxima are
    subtracted in the logarithm, then the rows'. After that each row has an entry
    of 1, and so has each column, in a row from which nothing more was
    subtracted; sums of rows and columns therefore stay within powers of N and K,
    and scaling needs no logarithm.

    Args:
        scores: (N, K), this process's rows; columns are balanced over the rows
            of all processes. Only K numbers a process are exchanged.
        support: (M, K), rows that take part in the balance and get no code, the
            same on every process and counted once.
        epsilon: the weight of the entropy; high values give uniform codes.
        iterations: scalings of columns and rows.

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
        # Only ratios count; the clamp is far from any that a few iterations can reach.
        columns = (total.amax() / total).clamp_max(LARGEST)
    return tables[0].codes(columns)


class _Table:
    """Scores, and their exponentials scaled so that none overflows and no row or column is empty.

    It is worked on in blocks that stay in a processor's own cache, where each is
    read once a scaling of rows and columns.
    """

    def __init__(self, scores: Tensor) -> None:
        rows, width = scores.shape
        precise = torch.promote_types(scores.dtype, torch.float32)
        self.values = torch.empty_like(scores, dtype=precise)
        # A matrix by a vector is one thread's work; a batch of them is shared out.
        self.groups = 1 if scores.is_cuda else torch.get_num_threads()
        height = rows if scores.is_cuda else max(1, BLOCK // (width * self.groups)) * self.groups
        self.raw = scores.split(max(1, height))
        self.blocks = self.values.split(max(1, height))

    def highest(self) -> Tensor:
        """Return the largest score of each column (K,)."""
        largest = torch.stack([block.amax(dim=0) for block in self.raw]).amax(dim=0)
        return largest.to(self.values.dtype)

    def first_sums(self, highest: Tensor, epsilon: float) -> Tensor:
        """Make the exponentials, and return the columns' sums (K,) over a common constant."""
        scale = math.log2(math.e) / epsilon
        sums = torch.zeros_like(highest)
        for raw, block in zip(self.raw, self.blocks, strict=True):
            torch.add(-scale * highest, raw, alpha=scale, out=block)
            rows = block.amax(dim=1, keepdim=True)
            block.sub_(rows).exp2_()
            sums += self._down(block, rows.exp2_())
        return sums

    def sums(self, columns: Tensor) -> Tensor:
        """Return the columns' sums (K,) after columns, then rows were scaled."""
        sums = torch.zeros_like(columns)
        for block in self.blocks:
            sums += self._down(block, self._along(block, columns).reciprocal_())
        return sums

    def codes(self, columns: Tensor) -> Tensor:
        """Scale columns, then rows to a sum of one; return (N, K)."""
        for block in self.blocks:
            rows = self._along(block, columns)
            block.mul_(columns).div_(rows)
        return self.values

    def _along(self, block: Tensor, columns: Tensor) -> Tensor:
        """Return block times columns, (R, K) and (K,) -> (R, 1)."""
        grouped = self._grouped(block)
        many = columns.expand(len(grouped), 1, -1)
        return torch.bmm(many, grouped.transpose(1, 2)).view(-1, 1)

    def _down(self, block: Tensor, rows: Tensor) -> Tensor:
        """Return rows times block, (R, 1) and (R, K) -> (K,)."""
        grouped = self._grouped(block)
        return torch.bmm(rows.view(len(grouped), 1, -1), grouped).sum(dim=(0, 1))

    def _grouped(self, block: Tensor) -> Tensor:
        groups = self.groups if len(block) % self.groups == 0 else 1
        return block.view(groups, -1, block.shape[1])
