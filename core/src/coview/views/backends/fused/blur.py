"""Gaussian blur with a standard deviation per image, as two convolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from coview.nn.compile import compilable, compiling

PASSES = 3
"""Box blurs along each axis by which Pillow approximates a Gaussian."""
FEW_TAPS = 9
"""Up to this many taps, a compiled sum of shifted images is as fast on a CPU as a convolution."""


def taps_of(sigma: Tensor, on: Tensor, reach: int) -> Tensor:
    """Return the blur's weights for 2 x reach + 1 pixels, (..., taps).

    Where ``on`` (...) is false, all the weight is on the central pixel.
    """
    distance = torch.arange(-reach, reach + 1, device=sigma.device, dtype=sigma.dtype)
    weights = torch.exp(-0.5 * (distance / sigma.unsqueeze(-1)).square())
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.where(on.unsqueeze(-1), weights, (distance == 0).to(sigma.dtype))


def box_taps_of(sigma: Tensor, on: Tensor, reach: int) -> Tensor:
    """Return the weights of one of Pillow's box blurs, (..., 2 x reach + 1).

    Three of them have the variance of a Gaussian: a box of 2 l + 1 pixels, with a share of
    the next ones on both sides. Where ``on`` (...) is false, all the weight is on the
    central pixel.
    """
    variance = sigma.square().unsqueeze(-1) / PASSES
    half = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    share = (2 * half + 1) * (half * (half + 1) - 3 * variance)
    share = share / (6 * (variance - (half + 1).square()))
    distance = torch.arange(-reach, reach + 1, device=sigma.device, dtype=sigma.dtype).abs()
    weights = torch.where(distance <= half, 1, share * (distance == half + 1).to(sigma.dtype))
    weights = weights / (2 * (half + share) + 1)
    return torch.where(on.unsqueeze(-1), weights, (distance == 0).to(sigma.dtype))


def box_blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur images (n, C, H, W) by three passes along each axis, with weights (n, taps).

    As in Pillow, 8 bits are left after each pass; images that are not blurred stay as they are.
    """
    rows, channels = images.shape[:2]
    reach = weights.shape[1] // 2
    kernels = weights.repeat_interleave(channels, dim=0)
    x = images.flatten(0, 1).unsqueeze(0) * 255
    for _ in range(PASSES):
        # The border is repeated in every pass: once for all would differ there.
        padded = pad(x, (reach, reach, 0, 0), mode="replicate")
        x = conv2d(padded, kernels[:, None, None, :], groups=rows * channels).round_()
    for _ in range(PASSES):
        padded = pad(x, (0, 0, reach, reach), mode="replicate")
        x = conv2d(padded, kernels[:, None, :, None], groups=rows * channels).round_()
    still = (weights[:, reach] == 1)[:, None, None, None]
    return torch.where(still, images, x.view_as(images).mul_(1 / 255))


def blur(images: Tensor, weights: Tensor) -> Tensor:
    """Blur images (n, C, H, W), reflected at the border, each by its own weights (n, taps)."""
    if compiling() and (images.is_cuda or weights.shape[1] <= FEW_TAPS):
        return blur_by_taps(images, weights)
    rows, channels = images.shape[:2]
    reach = weights.shape[1] // 2
    kernels = weights.repeat_interleave(channels, dim=0)
    padded = pad(images, (reach,) * 4, mode="reflect").flatten(0, 1).unsqueeze(0)
    groups = rows * channels
    across = conv2d(padded, kernels[:, None, None, :], groups=groups)
    return conv2d(across, kernels[:, None, :, None], groups=groups).view_as(images)


@compilable(dynamic=True)
def blur_by_taps(images: Tensor, weights: Tensor) -> Tensor:
    """Blur all images by a sum of shifted ones, which a compiler turns into one loop."""
    taps = weights.shape[1]
    height, width = images.shape[-2:]
    padded = pad(images, (taps // 2,) * 4, mode="reflect")
    own = weights[:, :, None, None, None]
    down = sum(padded[:, :, k : k + height] * own[:, k] for k in range(taps))
    assert isinstance(down, Tensor)
    across = sum(down[..., k : k + width] * own[:, k] for k in range(taps))
    assert isinstance(across, Tensor)
    return across
