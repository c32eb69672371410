from __future__ import annotations

import math

import pytest
import torch
from timm.models.resnet import Bottleneck
from torch import nn

import coview
from coview import Plan
from coview.nn.backbones import BackboneSettings, find_backbone
from coview_simclr_v2.resnets import SKBottleneck, middle_width, resnet

# Table 1 of the paper: millions of parameters, in its order.
TABLE = {
    (50, 1, False): 24,
    (50, 1, True): 35,
    (50, 2, False): 94,
    (50, 2, True): 140,
    (101, 1, False): 43,
    (101, 1, True): 65,
    (101, 2, False): 170,
    (101, 2, True): 257,
    (152, 1, False): 58,
    (152, 1, True): 89,
    (152, 2, False): 233,
    (152, 2, True): 354,
    (152, 3, True): 795,
}
SMALL = BackboneSettings(stem="3x3")


def name_of(depth: int, width: int, selective: bool) -> str:
    return f"resnet{depth}-{width}x{'-sk' if selective else ''}"


@pytest.mark.parametrize("variant", TABLE, ids=lambda variant: name_of(*variant))
def test_parameters_agree_with_the_paper(variant: tuple[int, int, bool]) -> None:
    factory, entry = find_backbone(name_of(*variant))
    assert entry is not None and entry.package == "coview-simclr-v2"
    with torch.device("meta"):
        net = factory(3, 224, BackboneSettings())
    # The table counts the batch norms' running statistics, as TensorFlow's variables do.
    statistics = sum(b.numel() for n, b in net.named_buffers() if "running" in n)
    total = sum(p.numel() for p in net.parameters()) + statistics
    assert round(total / 1e6) == TABLE[variant]
    assert net.num_features == 2048 * variant[1]


def test_all_widths_of_all_depths_are_installed() -> None:
    for depth in (50, 101, 152):
        for width in (1, 2, 3):
            for selective in (False, True):
                with torch.device("meta"):
                    net = find_backbone(name_of(depth, width, selective))[0](3, 224, SMALL)
                blocks = [m for m in net.modules() if isinstance(m, (Bottleneck, SKBottleneck))]
                assert len(blocks) == (depth - 2) // 3
                assert all(isinstance(block, SKBottleneck) is selective for block in blocks)
                assert net.num_features == 2048 * width


@pytest.mark.parametrize(
    "planes, width", [(64, 32), (128, 32), (256, 32), (512, 32), (1024, 64), (1536, 96)]
)
def test_width_of_the_layer_that_weighs_streams(planes: int, width: int) -> None:
    """T7.3."""
    assert middle_width(planes) == width
    with torch.device("meta"):
        block = SKBottleneck(256, planes)
    assert block.conv2.attn.fc_reduce.out_channels == width


@pytest.mark.parametrize("logits, expected", [((0.0, math.log(3)), 2.5), ((0.0, 0.0), 2.0)])
def test_streams_are_mixed_by_a_softmax(logits: tuple[float, float], expected: float) -> None:
    """T7.3: stream values 1 and 3."""
    selective = SKBottleneck(4, 2).conv2.eval()

    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((1, 2, 3, 3), self.value)

    class Logits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor(logits).repeat_interleave(2).view(1, 4, 1, 1)

    selective.paths = nn.ModuleList([Constant(1.0), Constant(3.0)])
    selective.attn.fc_select = Logits()
    mixed = selective(torch.zeros(1, 2, 3, 3))
    assert mixed.flatten().tolist() == pytest.approx([expected] * 18, abs=1e-6)


def test_both_streams_are_3_by_3_and_see_all_channels() -> None:
    paths = SKBottleneck(256, 64).conv2.paths
    for path in paths:
        assert path.conv.kernel_size == (3, 3) and path.conv.dilation == (1, 1)
        assert path.conv.in_channels == path.conv.out_channels == 64
    assert len(paths) == 2


def test_selective_kernels_come_with_resnet_d() -> None:
    with torch.device("meta"):
        plain, selective = (resnet(50, 2, sk, 3, BackboneSettings()) for sk in (False, True))
    stem = [m for m in selective.conv1.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in stem] == [
        (3, 64, (2, 2)),
        (64, 64, (1, 1)),
        (64, 128, (1, 1)),
    ]
    shortcut = selective.layer2[0].downsample
    assert isinstance(shortcut[0], nn.AvgPool2d) and shortcut[1].stride == (1, 1)
    assert (plain.conv1.kernel_size, plain.conv1.out_channels) == ((7, 7), 128)
    assert plain.layer2[0].downsample[0].stride == (2, 2)


def test_the_first_group_s_shortcut_averages_without_a_stride() -> None:
    net = resnet(50, 1, True, 3, BackboneSettings())
    assert not isinstance(
        resnet(50, 1, False, 3, BackboneSettings()).layer1[0].downsample[0], nn.Sequential
    )
    images = torch.rand(2, 64, 5, 7)
    made = net.layer1[0].downsample[0](images)
    for row in range(5):
        for column in range(7):
            there = images[:, :, row : row + 2, column : column + 2]
            torch.testing.assert_close(made[:, :, row, column], there.mean((2, 3)))
    assert net.layer1[0].downsample[1].stride == (1, 1)
    assert not any("downsample" in name for name, _ in net.layer1[1].named_modules())


@pytest.mark.parametrize("selective", [False, True])
def test_networks_for_small_images(selective: bool) -> None:
    torch.manual_seed(0)
    net = resnet(50, 1, selective, 1, BackboneSettings(stem="3x3", zero_init_last=True))
    features = net(torch.rand(2, 1, 16, 16))
    assert features.shape == (2, 2048) and features.isfinite().all()
    features.sum().backward()
    last = [b.conv3.bn if selective else b.bn3 for stage in (net.layer1, net.layer4) for b in stage]
    assert all(norm.weight.eq(0).all() for norm in last)


@pytest.mark.parametrize("layers, parameters", [(3, 8_659_072), (2, 4_460_672)])
def test_heads(layers: int, parameters: int) -> None:
    """T7.2: batch norms' scales and shifts count, of the last one its scale only."""
    from coview import Layout
    from coview.nn.backbones import BackboneSpec

    class Wide(nn.Module):
        num_features = 2048

    layout = Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))
    spec = BackboneSpec("wide", lambda channels, size, settings: Wide())
    settings = dict(coview.recipe("simclr-v2").encoder.settings) | {"layers": layers}
    plan = Plan(layout=layout, backbone=spec)
    encoder = coview.component("encoders", "projection", plan=plan, **settings)
    trained = [p for p in encoder.projector.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == parameters
    names = {name.split(".")[0] for name, _ in encoder.projector.named_parameters()}
    assert names == {str(n) for n in range(layers)}
    first = encoder.projector.get_submodule("0")
    assert [type(m) for m in first] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
