"""Augmentation of each patch separately, so that borders and colours give nothing away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import kornia.augmentation as kornia
import torch
from torch import Tensor
from torch.nn.functional import pad

from coview.distributed import rank, world_size
from coview.records import Step
from coview.settings import between, ge, gt, setting
from coview.views import Chain, fuse


@attrs.frozen
class PatchAugmentation:
    """Settings of the augmentation of each patch; CPC only moves it, CPC v2 does all of this.

    The second paper names the operations (Hénaff et al. 2019, section 2.2); if it
    gives no strength, this package's recipe says what it chose.
    """

    kept: int | None = setting(
        None,
        "size in pixels of the random part of a patch that is kept, then padded; none: 15/16",
        gt(0),
    )
    drop_colours_p: float = setting(
        0.0, "probability that a patch keeps only one of its channels", between(0, 1)
    )
    jitter: tuple[float, float, float, float] = setting(
        (0.4, 0.4, 0.4, 0.1), "strength of brightness, contrast, saturation, hue"
    )
    jitter_p: float = setting(0.0, "probability of colour jitter of a patch", between(0, 1))
    degrees: float = setting(10.0, "greatest rotation of a patch in degrees", ge(0))
    shear: float = setting(10.0, "greatest shear of a patch in degrees", ge(0))
    affine_p: float = setting(0.0, "probability of rotation and shear of a patch", between(0, 1))
    elastic_p: float = setting(0.0, "probability of elastic deformation of a patch", between(0, 1))

    def chain(self, channels: int, notice: Callable[[str], None]) -> Chain:
        """Return the operations on patches (N, C, p, p) in [0, 1]."""
        operations: list[Callable[[Tensor], Tensor]] = []
        if self.jitter_p and channels == 3:
            operations.append(kornia.ColorJitter(*self.jitter, p=self.jitter_p))
        if self.affine_p:
            operations.append(kornia.RandomAffine(self.degrees, shear=self.shear, p=self.affine_p))
        if self.elastic_p:
            operations.append(kornia.RandomElasticTransform((15, 15), (4.0, 4.0), p=self.elastic_p))
        if channels != 3 and (self.jitter_p or self.drop_colours_p):
            notice(f"images have {channels} channel(s), so patches keep their colours")
        return Chain(fuse(operations))

    def applied(self, operations: Chain, patches: Tensor, seed: int) -> Tensor:
        """Apply the operations to this process's patches (N, C, p, p)."""
        if not operations.operations:
            return patches
        return operations(patches, seed, rank(), world_size())

    def moved(self, patches: Tensor, step: Step) -> Tensor:
        """Drop colours of normalised patches (N, C, p, p), then move each by a few pixels.

        Removed parts are filled with zero, which is the data's mean.
        """
        rows, channels, side = patches.shape[:3]
        if self.drop_colours_p and channels == 3:
            dropping = draw(step, rows) < self.drop_colours_p
            kept = draw(step, rows, high=channels).view(-1, 1) == torch.arange(
                channels, device=patches.device
            )
            patches = patches * (kept | ~dropping.view(-1, 1)).view(rows, channels, 1, 1)
        kept_side = min(self.kept or max(1, side * 15 // 16), side)
        slack = side - kept_side
        if slack == 0:
            return patches
        corners = draw(step, rows, 2, high=slack + 1)
        part = window(patches, corners[:, 0], corners[:, 1], kept_side)
        return pad(part, (slack // 2, slack - slack // 2) * 2)


def draw(step: Step, rows: int, *shape: int, high: int | None = None) -> Tensor:
    """Draw numbers for the global batch and return those of this process, (rows, *shape).

    Args:
        step: the step, whose generator is used.
        rows: number of rows of this process.
        shape: shape of what is drawn for each row.
        high: draw whole numbers below this; None: floats in [0, 1).
    """
    size: Sequence[int] = (rows * world_size(), *shape)
    generator = step.generator
    if high is None:
        drawn = torch.rand(size, generator=generator, device=generator.device)
    else:
        drawn = torch.randint(high, size, generator=generator, device=generator.device)
    return drawn[rank() * rows : (rank() + 1) * rows]


def window(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Cut a square out of each image: (N, C, H, W), corners (N,) -> (N, C, side, side)."""
    span = torch.arange(side, device=images.device)
    rows = (top.view(-1, 1) + span)[:, None, :, None]
    columns = (left.view(-1, 1) + span)[:, None, None, :]
    number = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[number, channel, rows, columns]
