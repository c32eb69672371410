"""Feature rows: in memory, or in bfloat16 in a file that is mapped block by block.

ImageNet's 1,281,167 training images with 2048 features each take 10.5 GB in
float32, and 5.2 GB in a bfloat16 file, of which one block at a time is in
memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from coview.files import replacing


class Rows(Protocol):
    """An (N, D) table that can be read in parts."""

    def __len__(self) -> int: ...

    def block(self, start: int, stop: int) -> Tensor:
        """Return rows from ``start`` up to ``stop``, as they are stored."""
        ...

    def at(self, places: Tensor) -> Tensor:
        """Return the rows at ``places``, int64 of any shape: (*places.shape, D)."""
        ...


@attrs.frozen(eq=False)
class InMemory:
    """Rows of a tensor."""

    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, stop: int) -> Tensor:
        """Return a part of the tensor, not copied."""
        return self.rows[start:stop]

    def at(self, places: Tensor) -> Tensor:
        """Return the rows at ``places``."""
        # For whole rows, index_select takes half the time of indexing.
        found = self.rows.index_select(0, places.flatten().to(self.rows.device))
        return found.view(*places.shape, self.rows.shape[1])


@attrs.frozen(eq=False)
class InFile:
    """Rows in a bfloat16 file.

    A block is mapped while it is read and unmapped afterwards, so the memory that
    the system counts for this process is bounded too.

    Attributes:
        path: N x D values of two bytes, row by row, nothing else.
        count: N.
        width: D.
    """

    path: Path
    count: int
    width: int

    @classmethod
    def write(cls, path: Path, batches: Iterable[Tensor]) -> InFile:
        """Write batches (B, D) as they come; the file exists only if all of them were written.

        Raises:
            CoviewError: the disk is full, or whatever ``batches`` raise.
        """
        count = width = 0
        with replacing(path) as temporary, temporary.open("wb") as file:
            for rows in batches:
                count, width = count + len(rows), rows.shape[1]
                file.write(rows.to(torch.bfloat16).contiguous().view(torch.uint8).numpy().data)
        return cls(path, count, width)

    def __len__(self) -> int:
        return self.count

    def block(self, start: int, stop: int) -> Tensor:
        """Return a part of the file as bfloat16, copied into memory."""
        stop = min(stop, self.count)
        mapped = self._mapped((stop - start) * self.width, start * self.width * 2)
        # torch does not wrap read-only memory; the copy also ends the mapping.
        return torch.from_numpy(np.array(mapped)).view(torch.bfloat16).view(-1, self.width)

    def at(self, places: Tensor) -> Tensor:
        """Return the rows at ``places`` as bfloat16."""
        mapped = self._mapped(self.count * self.width, 0).reshape(self.count, self.width)
        found = mapped[places.flatten().cpu().numpy()]  # a copy
        return torch.from_numpy(found).view(torch.bfloat16).view(*places.shape, self.width)

    def _mapped(self, values: int, offset: int) -> np.ndarray[Any, Any]:
        return np.memmap(self.path, np.int16, "r", offset, (values,))
