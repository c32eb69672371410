"""How many bytes the tensors of a pretended device take at once."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


class Memory:
    """Counts the storages of the device's tensors as they come and go.

    Attributes:
        now: bytes at this moment.
        most: the most bytes at once since the last :meth:`begin`.
    """

    def __init__(self) -> None:
        self.now = self.most = 0
        self._there: dict[int, weakref.ref[Any]] = {}

    def begin(self) -> None:
        """Forget what was the most so far."""
        self.most = self.now

    def count(self, made: Any) -> None:
        """Count the tensors that an operation made, unless they share what is counted."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_cuda:
                self._count(tensor.untyped_storage())

    def _count(self, storage: Any) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._there:
            return

        def gone(_: Any) -> None:
            del self._there[place]
            self.now -= size

        self._there[place] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)
