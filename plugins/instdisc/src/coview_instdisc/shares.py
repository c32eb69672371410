"""A memory bank divided among processes: each keeps a block of rows, and all can read any row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from coview.distributed import gather, is_first, rank, world_size
from coview.losses.similarity import unit

BLOCK = 1 << 20
"""Rows drawn at a time when a bank starts; a larger bank is drawn block by block."""

PIECE = 1 << 16
"""Rows sent at a time when a checkpoint gathers them."""

# torch 2.14 renamed it, and warns.
_reduce_scatter: Callable[..., Any] = (
    getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
)


@attrs.frozen
class Share:
    """The rows that this process owns: a block of the bank; the last block may be shorter.

    A share has one extra row, of zeros, beside its block. Rows of other processes
    are read from it and written to it, so that shapes do not depend on ownership and
    nothing waits for the device.

    Attributes:
        rows: number of rows of the whole bank.
        rank: number of this process.
        processes: number of processes.
    """

    rows: int
    rank: int = attrs.field(factory=rank)
    processes: int = attrs.field(factory=world_size)

    @property
    def block(self) -> int:
        """Number of rows of a share, without the extra row."""
        return -(-self.rows // self.processes)

    def range(self, owner: int) -> tuple[int, int]:
        """Return the first row that ``owner`` has, and the one after its last."""
        first = min(owner * self.block, self.rows)
        return first, min(first + self.block, self.rows)

    def read(self, share: Tensor, numbers: Tensor) -> Tensor:
        """Return any rows of the whole bank: numbers (...) int64 -> (..., d).

        All processes call this together and ask for the same number of rows. Each
        fills in the rows that it owns, and the sum over processes is scattered to
        those that asked. It is exact, since all other summands are zero.
        """
        asked = gather(numbers.flatten())
        filled = share[self._place(asked)]
        answer = filled.new_empty(numbers.numel(), share.shape[-1])
        _reduce_scatter(answer, filled)
        return answer.view(*numbers.shape, -1)

    def move(self, share: Tensor, numbers: Tensor, features: Tensor, keep: float) -> None:
        """Update, as :func:`moved` does, those rows of the global batch that this process owns."""
        places = self._place(numbers)
        share.index_copy_(0, places, moved(share[places], features, keep))
        share[-1].zero_()

    def whole(self, share: Tensor) -> Tensor:
        """Return all rows, gathered from all shares, on the first process's host.

        Every process must call this with its share (..., block + 1, d); all but the
        first get their own rows back.
        """
        own = self.range(self.rank)
        if not is_first():
            self._send(share)
            return share[..., : own[1] - own[0], :]
        whole = torch.empty(*share.shape[:-2], self.rows, share.shape[-1], dtype=share.dtype)
        whole[..., own[0] : own[1], :] = share[..., : own[1] - own[0], :].cpu()
        for owner in range(1, self.processes):
            for start, stop in self._pieces(owner):
                piece = share.new_empty(*share.shape[:-2], stop - start, share.shape[-1])
                dist.recv(piece, src=owner)
                whole[..., start:stop, :] = piece.cpu()
        return whole

    def part_of(self, whole: Tensor) -> Tensor:
        """Return this process's share of all rows: (..., rows, d) -> (..., block + 1, d)."""
        first, stop = self.range(self.rank)
        share = whole.new_zeros(*whole.shape[:-2], self.block + 1, whole.shape[-1])
        share[..., : stop - first, :] = whole[..., first:stop, :]
        return share

    def _place(self, numbers: Tensor) -> Tensor:
        """Return the positions of rows in this share; the extra row for those of others."""
        local = numbers - self.rank * self.block
        return torch.where((local >= 0) & (local < self.block), local, self.block)

    def _pieces(self, owner: int) -> list[tuple[int, int]]:
        first, last = self.range(owner)
        return [(start, min(start + PIECE, last)) for start in range(first, last, PIECE)]

    def _send(self, share: Tensor) -> None:
        first, _ = self.range(self.rank)
        for start, stop in self._pieces(self.rank):
            dist.send(share[..., start - first : stop - first, :].contiguous(), dst=0)


def moved(rows: Tensor, features: Tensor, keep: float) -> Tensor:
    """Return unit(keep x row + (1 - keep) x feature), (B, d)."""
    return unit(keep * rows + (1 - keep) * features.to(rows.dtype))


def fresh(banks: int | None, rows: int, dim: int, share: Share | None) -> Tensor:
    """Return uniform rows in (-s, s), s = 1 / sqrt(d / 3): (rows, d), or (banks, rows, d).

    With a share, only this process's rows are returned. The rows do not depend on
    the number of processes: up to 2^20 are drawn at once from torch's generator; if
    there are more, each block has its own generator, so that no process draws the
    blocks of others.
    """
    bound = (3 / dim) ** 0.5
    leading = () if banks is None else (banks,)
    if rows <= BLOCK:
        whole = torch.empty(*leading, rows, dim).uniform_(-bound, bound)
        return whole if share is None else share.part_of(whole)
    first, stop = (0, rows) if share is None else share.range(share.rank)
    made = torch.zeros(*leading, stop - first if share is None else share.block + 1, dim)
    seed = int(torch.randint(2**62, ()))
    for bank, own in enumerate([made] if banks is None else made):
        for number in range(first // BLOCK, -(-stop // BLOCK)):
            generator = torch.Generator().manual_seed(seed + bank * (rows // BLOCK + 1) + number)
            start = number * BLOCK
            block = torch.empty(min(BLOCK, rows - start), dim)
            block.uniform_(-bound, bound, generator=generator)
            ours = slice(max(start, first), min(start + len(block), stop))
            own[ours.start - first : ours.stop - first] = block[
                ours.start - start : ours.stop - start
            ]
    return made
