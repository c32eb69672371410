"""Batch normalisation over all processes, also on CPUs, where torch has none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coview.distributed import active, rank, world_size
from coview.nn.encoder import Encoder


class _Sum(torch.autograd.Function):
    """Sums over processes (of a group): the value in forward, the gradient in backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


_OWN: dict[int, Any] = {}
"""This process's group of processes, by the number of groups, where there are several."""


class _Grouped:
    """Names its processes by the number of groups, as a group itself cannot be copied."""

    groups = 1

    @property
    def process_group(self) -> Any:
        """This process's group; None: all processes."""
        return _OWN.get(self.groups)

    @process_group.setter
    def process_group(self, value: Any) -> None:
        """Ignore what torch's own layer sets when it is built."""


class SyncBatchNorm(_Grouped, _BatchNorm):
    """Batch norm whose statistics are taken over the rows of all processes.

    torch's own refuses CPU tensors; this one runs under gloo too. All processes
    must have the same number of rows, as coview's loader gives them.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {input.dim()} dimension(s)")

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, C, ...), normalised over N, ... and all processes."""
        if not (self.training and active()):
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        group = self.process_group
        processes = world_size() if group is None else dist.get_world_size(group)
        count = input.numel() // input.shape[1] * processes
        wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean = _summed(wide.sum(axes), group) / count
        centred = wide - mean.view(shape)
        variance = _summed(centred.square().sum(axes), group) / count
        self._track(mean.detach(), variance.detach(), count)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None and self.bias is not None:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 0.1 if self.momentum is None else self.momentum
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _summed(value: Tensor, group: Any) -> Tensor:
    total: Tensor = _Sum.apply(value, group)
    return total


class TorchSyncBatchNorm(_Grouped, nn.SyncBatchNorm):
    """torch's own, for a GPU."""


def synchronise(method: nn.Module) -> None:
    """Make batch norms of encoders see their group's rows, wherever these are, in place.

    With ``norm_groups`` = 1, batch norm sees all rows of all processes. With fewer groups than
    processes a group is several processes, which exchange statistics among themselves; with as
    many or more each group lies within a process, and batch norm is left unchanged. Does
    nothing in a single process.
    """
    if not active():
        return
    _OWN.clear()
    for encoder in method.modules():
        if isinstance(encoder, Encoder) and (count := encoder.global_norm_groups) < world_size():
            if count > 1 and count not in _OWN:
                _OWN[count] = _own_group(count)
            _replace(encoder, partial(_synchronised, groups=count))


def _own_group(count: int) -> Any:
    """Return this process's group of processes, of ``count``; all processes must call it."""
    members = [list(part) for part in torch.arange(world_size()).tensor_split(count)]
    groups = [dist.new_group([int(number) for number in part]) for part in members]
    return groups[rank() * count // world_size()]


def localise(network: nn.Module) -> nn.Module:
    """Make batch norms see only this process's rows, in place; return the network.

    For work that one process does alone: a synchronised batch norm would wait for
    the others forever.
    """
    _replace(network, _local)
    return network


def _replace(network: nn.Module, change: Callable[[_BatchNorm], nn.Module]) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, change(child))


def _synchronised(layer: _BatchNorm, groups: int) -> nn.Module:
    if hasattr(layer, "alone"):
        return layer
    cuda = layer.running_mean is not None and layer.running_mean.is_cuda
    made = _remade(layer, TorchSyncBatchNorm if cuda else SyncBatchNorm)
    made.alone = type(layer)  # type: ignore[assignment]
    made.groups = groups  # type: ignore[assignment]
    return made


def _local(layer: _BatchNorm) -> nn.Module:
    alone: Any = getattr(layer, "alone", None)
    return layer if alone is None else _remade(layer, alone)


def _remade(layer: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    made = kind(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    made.train(layer.training)
    # The same parameter and buffer objects, as an optimiser or a copy may hold them already.
    made._parameters, made._buffers = layer._parameters, layer._buffers
    return made
