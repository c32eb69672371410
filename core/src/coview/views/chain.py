"""A chain of batched operations whose randomness is determined by the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from kornia.augmentation.base import _BasicAugmentationBase
from kornia.augmentation.container.base import ImageSequentialBase
from torch import Tensor

from coview.components import declared
from coview.errors import RequestError
from coview.seeds import generators_kept, seed_generators
from coview.views.backends.fused.plan import Fused
from coview.views.operations import Operation, OwnOperation

# Parameters that describe the whole call, not one row each.
_WHOLE = frozenset({"order", "forward_input_shape"})


def refuse_other_types(backend: str, dtype: torch.dtype) -> None:
    """Refuse a number type that only the fused backend gives.

    Raises:
        RequestError: it is not float32.
    """
    if dtype != torch.float32:
        name = str(dtype).removeprefix("torch.")
        raise RequestError(
            f"views.dtype = {name} needs views.backend = fused; {backend} gives float32."
        )


def unit_interval(images: Tensor) -> Tensor:
    """Return images as float in [0, 1]: uint8 is divided by 255, float is left unchanged."""
    return images if images.is_floating_point() else images.float() / 255


class Chain:
    """Operations applied one after the other to a batch of images.

    kornia's augmentations first draw their parameters for the global batch, and
    this process then applies its own rows: n processes see what one would. kornia
    draws from torch's global CPU generator, which is therefore seeded from the step
    and restored afterwards. Any other callable (a torchvision transform, for
    example) draws once per call and is therefore applied image by image, under the
    same seed. A callable with an attribute ``batched = True`` is called with the
    batch and should draw nothing. A
    :class:`coview.views.backends.fused.plan.Fused` draws on the images' device.

    The operations are deliberately not registered in an ``nn.Module``: moving
    kornia's to a GPU moves their random generators there, and every parameter that
    a Python branch reads would then wait for the device.
    """

    def __init__(self, operations: Sequence[Operation | Fused]) -> None:
        self.operations = tuple(operations)

    @property
    def whole(self) -> Fused | None:
        """The fused operation, if it is the chain's only one; else None."""
        only = self.operations[0] if len(self.operations) == 1 else None
        return only if isinstance(only, Fused) else None

    def __call__(self, images: Tensor, seed: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """Apply the chain.

        Args:
            images: (B, C, H, W) uint8, or float in [0, 1].
            seed: determines everything random.
            rank: number of this process.
            world_size: number of processes that share the global batch.

        Returns:
            (B, C, h, w) float.
        """
        if self.whole is not None:
            return self._fused(self.whole, images, seed, rank, world_size)
        with generators_kept():
            torch.manual_seed(seed)
            for number, operation in enumerate(self.operations):
                if isinstance(operation, Fused):
                    images = self._fused(operation, images, seed + number, rank, world_size)
                    continue
                images = unit_interval(images)
                if isinstance(operation, _BasicAugmentationBase):
                    images = _apply_own_rows(operation, images, rank, world_size)
                elif isinstance(operation, ImageSequentialBase):
                    torch.manual_seed(seed + rank)  # its parameters cannot be split by row
                    images = operation(images)
                elif declared(operation, OwnOperation, "batched"):
                    images = operation(images)
                else:
                    images = torch.stack(applied_to_each(operation, images, rank, world_size))
        return unit_interval(images)

    def _fused(
        self, operation: Fused, images: Tensor, seed: int, rank: int, world_size: int
    ) -> Tensor:
        generator = torch.Generator(device=images.device)
        generator.manual_seed(seed)
        return operation(images, generator, seed, rank, world_size)[0]


def _apply_own_rows(
    operation: _BasicAugmentationBase, images: Tensor, rank: int, world_size: int
) -> Tensor:
    rows = len(images)
    shape = torch.Size((rows * world_size, *images.shape[1:]))
    params = operation.forward_parameters(shape)
    if world_size > 1:
        params = _own_rows(params, rows, rank, world_size)
    output: Tensor = operation(images, params=params)
    return output


def _own_rows(params: Mapping[str, Any], rows: int, rank: int, world_size: int) -> dict[str, Any]:
    own = slice(rank * rows, (rank + 1) * rows)
    kept: dict[str, Any] = {}
    for name, value in params.items():
        by_row = isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows * world_size
        kept[name] = value[own] if by_row and name not in _WHOLE else value
    kept["forward_input_shape"] = params["forward_input_shape"].clone()
    kept["forward_input_shape"][0] = rows
    return kept


def applied_to_each(
    operation: Callable[[Any], Any], images: Tensor | Sequence[Any], rank: int, world_size: int
) -> list[Any]:
    """Apply an operation image by image, each with its own seed.

    Each image of the global batch has a seed, so that a process can skip other processes'
    images. The next operation has one too, so that these images' draws do not affect it.
    """
    *seeds, after = torch.randint(2**62, (len(images) * world_size + 1,)).tolist()
    done = []
    for image, seed in zip(images, seeds[rank * len(images) :], strict=False):
        _seed(seed, images)
        done.append(operation(image))
    _seed(after, images)
    return done


def _seed(seed: int, images: Tensor | Sequence[Any]) -> None:
    """Seed the generators that operations on images draw from: the host's and their device's."""
    seed_generators(seed)
    if isinstance(images, Tensor) and images.is_cuda:
        torch.cuda.default_generators[images.get_device()].manual_seed(seed)
