"""Attention maps, their mask, and the command that draws them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_sample_images

import coview
from coview import RequestError
from coview.cli import main
from coview.nn.backbones import BackboneSettings, find_backbone
from coview_dino.attention import attention, mask

SHORT = {"encoder.hidden": 16, "encoder.dim": 16, "backbone.patch": 8}


def network() -> Any:
    torch.manual_seed(0)
    factory, _ = find_backbone("test_vit")
    return factory(3, 32, BackboneSettings(patch=8)).eval()


def test_dino_toy_5() -> None:
    maps = torch.tensor([0.4, 0.05, 0.25, 0.1, 0.2], dtype=torch.float64)
    assert mask(maps, 0.6).tolist() == [True, False, True, False, False]
    assert maps[mask(maps, 0.6)].sum().item() == pytest.approx(0.65)
    assert mask(maps, 1.0).tolist() == [True] * 5


def test_masks_of_many_maps_hold_what_is_asked() -> None:
    maps = torch.rand(3, 4, 20, generator=torch.Generator().manual_seed(0)).double()
    for keep in (0.2, 0.6, 0.9):
        kept = mask(maps, keep)
        share = (maps * kept).sum(-1) / maps.sum(-1)
        assert (share >= keep - 1e-9).all()
        for m, k in zip(maps.view(-1, 20), kept.view(-1, 20), strict=True):
            assert k.any()
            assert not k.all() and m[k].min() > m[~k].max()
            weakest = m.masked_fill(~k, 2).argmin()
            assert (m[k].sum() - m[weakest]) / m.sum() < keep


def test_maps_are_the_softmax_that_the_network_uses() -> None:
    """With identity values the last block's attention output is the attention itself."""
    net = network()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = attention(net, images)
    layer = net.blocks[-1].attn
    assert maps.shape == (2, layer.num_heads, 4, 4)
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    layer.proj.register_forward_pre_hook(lambda module, args: outputs.append(args[0]))
    with torch.no_grad():
        net(images)
        width = inputs[0].shape[-1]
        values = layer.qkv(inputs[0])[..., 2 * width :].reshape(2, 17, layer.num_heads, -1)
        own = 1 - maps.flatten(2).sum(-1)
        for image in range(2):
            for head in range(layer.num_heads):
                weights = torch.cat([own[image, head].view(1), maps[image, head].flatten()])
                expected = weights @ values[image, :, head]
                found = outputs[0][image, 0].view(layer.num_heads, -1)[head]
                assert torch.allclose(found, expected, atol=1e-5)


def test_larger_images_have_more_patches() -> None:
    maps = attention(network(), torch.zeros(1, 3, 64, 64))
    assert maps.shape[2:] == (8, 8)
    assert (maps.sum((2, 3)) < 1).all()


def test_a_backbone_without_attention_is_refused() -> None:
    factory, _ = find_backbone("resnet10-quarter")
    with pytest.raises(RequestError, match="has no class token"):
        attention(factory(3, 32, BackboneSettings()), torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two photographs that scikit-learn brings, several crops of each."""
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(load_sample_images().images):
        for shift in range(0, 160, 20):
            crop = image[shift : shift + 260, shift : shift + 260]
            Image.fromarray(np.asarray(crop)).save(folder / f"{number}-{shift:03}.png")
    return folder


def test_the_command_draws_real_photographs(photos: Path, tmp_path: Path) -> None:
    sets = {**SHORT, "views.size": 32, "data.size": 64}
    run = coview.train(
        "dino", data=str(photos), out=tmp_path / "run", max_steps=1, batch_size=4, device="cpu",
        backbone="test_vit", progress=False, set=sets, preset="none",
    )  # fmt: skip
    out = tmp_path / "pictures" / "attention.png"
    arguments = ["attention", run.path, "--data", photos, "--out", out, "--images", 2,
                 "--image-size", 100, "--json"]  # fmt: skip
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    heads = run.method.encoder.trunk.blocks[-1].attn.num_heads
    assert (facts["heads"], facts["patch"], facts["size"], facts["images"]) == (heads, 8, 96, 2)
    assert 0 < facts["entropy"] <= np.log(144)
    assert 0 < facts["masked"] <= 0.6
    picture = Image.open(out)
    columns = heads + 2
    assert picture.size == (columns * 226 + 2, 2 * 226 + 2)
    assert np.asarray(picture).std() > 20


def test_the_command_refuses_what_it_cannot_draw(photos: Path, tmp_path: Path) -> None:
    run = coview.train(
        "dino", data="digits", out=tmp_path / "run", max_steps=1, batch_size=4, device="cpu",
        backbone="resnet10-quarter", progress=False, evaluate=False,
        set={"encoder.hidden": 16, "encoder.dim": 16},
    )  # fmt: skip
    arguments = [
        "attention",
        str(run.path),
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "a.png"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "need a vision transformer" in result.stderr
