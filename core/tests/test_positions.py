"""A transformer's positions on crops of another size, as DINO's code has them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import timm
import torch

from coview.nn.positions import ReleasedPositions, as_released, between


def cubic(distance: np.ndarray) -> np.ndarray:
    """Return the weights of the cubic kernel with a = -0.75 (Keys 1981)."""
    x, a = np.abs(distance), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def matrix(old: int, new: int) -> np.ndarray:
    """Return the (new, old) matrix of one axis, whose scale is (new + 0.1) / old."""
    made = np.zeros((new, old))
    for place in range(new):
        centre = (place + 0.5) * old / (new + 0.1) - 0.5
        base = int(np.floor(centre))
        for tap in range(base - 1, base + 3):
            made[place, min(max(tap, 0), old - 1)] += cubic(np.array(centre - tap))
    return made


@pytest.mark.parametrize("new", [(6, 6), (20, 17), (14, 9)])
def test_against_a_matrix_of_the_cubic_kernel(new: tuple[int, int]) -> None:
    positions = torch.randn(1, 14 * 14, 5, dtype=torch.float64)
    grid = positions.view(14, 14, 5).numpy()
    rows, columns = matrix(14, new[0]), matrix(14, new[1])
    wanted = np.einsum("ai,bj,ijd->abd", rows, columns, grid).reshape(1, -1, 5)
    np.testing.assert_allclose(between(positions, (14, 14), new).numpy(), wanted, atol=1e-9)


def network() -> Any:
    torch.manual_seed(0)
    options = {"num_classes": 0, "img_size": 64, "dynamic_img_size": True, "depth": 2}
    return timm.create_model("vit_small_patch16_224", **options).eval()


@torch.no_grad()
def test_only_other_sizes_change() -> None:
    own, other = network(), network()
    as_released(other)
    assert isinstance(other, ReleasedPositions)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(own(images), other(images))
    small = images[..., :32, :32]
    assert not torch.allclose(own(small), other(small))
    assert list(own.state_dict()) == list(other.state_dict())


@torch.no_grad()
def test_the_class_token_keeps_its_position_and_patches_get_theirs() -> None:
    net = network()
    as_released(net)
    small = torch.rand(1, 3, 32, 32)
    seen = net._pos_embed(net.patch_embed(small))
    patches = net.patch_embed(small).flatten(1, 2)
    wanted = torch.cat((net.cls_token, patches), dim=1)
    moved = torch.cat((net.pos_embed[:, :1], between(net.pos_embed[:, 1:], (4, 4), (2, 2))), dim=1)
    torch.testing.assert_close(seen, wanted + moved)


@torch.no_grad()
def test_a_copy_has_its_own_positions() -> None:
    net = network()
    as_released(net)
    twin = copy.deepcopy(net)
    twin.pos_embed.add_(1.0)
    small = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(net(small), twin(small))


def test_other_networks_stay_as_they_are() -> None:
    net = timm.create_model("test_resnet", num_classes=0)
    kind = type(net)
    as_released(net)
    assert type(net) is kind
