"""Proof that a measurement leaves the network as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from coview.errors import CoviewError


def state_hash(module: nn.Module) -> str:
    """Return a hash of all parameters and buffers, batch-norm statistics included."""
    hasher = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict(keep_vars=True).items():
        values = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        # Not every element type has a NumPy equivalent; bytes always do.
        hasher.update(values.flatten().view(torch.uint8).numpy().data if values.numel() else b"")
    return hasher.hexdigest()


@contextmanager
def unmoved(network: Any) -> Iterator[None]:
    """Refuse to let the code inside change a network; what is no module has no state.

    Raises:
        CoviewError: a parameter or a buffer is different afterwards.
    """
    if not isinstance(network, nn.Module):
        yield
        return
    before = state_hash(network)
    yield
    if state_hash(network) != before:
        raise CoviewError(
            "The backbone's parameters or batch-norm statistics moved while its features were "
            "being measured: the number would not be that of the weights given."
        )
