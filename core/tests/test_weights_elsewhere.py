"""The printed lines load the file: run here as they stand; and images are checked once."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from small_parts import exported

from coview.cli import main
from coview.weights.exported import ExportedBackbone, load_backbone, save_backbone


def saved(
    file: Path, name: str, size: int = 32, channels: int = 3, **settings: Any
) -> ExportedBackbone:
    """Write a backbone with random weights, as a run does."""
    made = exported(name, size, channels, **settings)
    save_backbone(made, file)
    return made


def printed(*arguments: object) -> tuple[list[str], list[str]]:
    """Run ``coview export``; return what it says of loading, and the indented lines of Python."""
    done = CliRunner().invoke(main, ["export", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    file, *lines = done.stdout.splitlines()
    assert file.startswith(f"{arguments[2]}: ")
    compared = next(n for n, line in enumerate(lines) if line.startswith("Read back: "))
    assert lines[compared] == "Read back: identical." or "--format" in arguments
    lines = lines[compared + 1 :]
    return lines, [line.strip() for line in lines if line.startswith("  ")]


def same(own: ExportedBackbone, lines: list[str], normalised: bool = True) -> None:
    """Run the lines; the network that they leave gives the features of the one written."""
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    net, card = names["net"], own.card
    images = torch.rand(2, card.channels, card.size, card.size)
    shape = (-1, 1, 1)
    given = (images - torch.tensor(card.mean).view(shape)) / torch.tensor(card.std).view(shape)
    with torch.no_grad():
        expected = own(images)
        found = net(given if normalised else images)
    assert expected.std() > 1e-3
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("keys", ["timm", "torchvision"])
@pytest.mark.parametrize(
    ("name", "size", "channels", "settings"),
    [
        ("resnet18", 32, 3, {}),
        ("resnet18", 32, 1, {}),
        pytest.param("resnet50", 32, 3, {}, marks=pytest.mark.slow),
        ("vit_tiny_patch16_224", 32, 3, {}),
        ("vit_tiny_patch16_224", 32, 1, {"patch": 8}),
    ],
)
def test_lines_load_the_file(
    tmp_path: Path, name: str, size: int, channels: int, settings: dict[str, Any], keys: str
) -> None:
    own = saved(tmp_path / "own.safetensors", name, size, channels, **settings)
    file = tmp_path / "file.safetensors"
    lines, code = printed(tmp_path / "own.safetensors", "--out", file, "--keys", keys)
    assert lines[0] == "To load it:"  # nothing else to be said first
    assert any(keys in line for line in code)
    assert not any("coview" in line for line in code[:-2])
    same(own, code)


@pytest.mark.parametrize("keys", ["timm", "torchvision"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_stem_for_small_images_is_said_first(tmp_path: Path, keys: str, channels: int) -> None:
    own = saved(tmp_path / "own.safetensors", "resnet18", channels=channels, stem="3x3")
    file = tmp_path / "file.safetensors"
    lines, code = printed(tmp_path / "own.safetensors", "--out", file, "--keys", keys)
    assert lines[0].startswith("These weights do not load into a stock resnet18: their first layer")
    same(own, code)
    stock = [line for line in code if "Conv2d" not in line]
    with pytest.raises(RuntimeError, match="size mismatch for conv1"):
        same(own, stock)


def test_what_torchvision_lacks_loads_in_timm(tmp_path: Path) -> None:
    own = saved(tmp_path / "own.safetensors", "test_resnet")
    file = tmp_path / "file.safetensors"
    lines, code = printed(tmp_path / "own.safetensors", "--out", file, "--keys", "torchvision")
    assert "torchvision has no network called test_resnet" in lines[0]
    same(own, code)


def test_what_only_coview_has_loads_in_coview(tmp_path: Path) -> None:
    own = saved(tmp_path / "own.safetensors", "resnet10-quarter")
    lines, code = printed(tmp_path / "own.safetensors", "--out", tmp_path / "file.safetensors")
    assert lines[0] == (
        "resnet10-quarter is not a network of timm or torchvision: coview loads it. For weights "
        "that load there, train with --backbone resnet18, for example."
    )
    same(own, code, normalised=False)


def test_lines_of_a_program(tmp_path: Path) -> None:
    own = saved(tmp_path / "own.safetensors", "resnet10-quarter")
    arguments = (tmp_path / "own.safetensors", "--out", tmp_path / "f.pt2")
    _, code = printed(*arguments, "--format", "torch-export")
    assert len(code) == 2
    same(own, code, normalised=False)


def test_lines_are_in_the_json(tmp_path: Path) -> None:
    own = saved(tmp_path / "own.safetensors", "resnet18", stem="3x3")
    wanted = ["export", str(tmp_path / "own.safetensors"), "--out", str(tmp_path / "f"), "--json"]
    document = json.loads(CliRunner().invoke(main, wanted).stdout)
    assert document["note"].startswith("These weights do not load into a stock resnet18")
    same(own, document["load"])


def test_lines_in_a_process_of_their_own(tmp_path: Path) -> None:
    import subprocess
    import sys

    saved(tmp_path / "own.safetensors", "resnet18", stem="3x3")
    _, code = printed(tmp_path / "own.safetensors", "--out", tmp_path / "it's.safetensors")
    code += ["print(net(torch.rand(2, 3, 32, 32)).shape)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "torch.Size([2, 512])\n", done.stderr


def test_images_out_of_range_are_said_once(tmp_path: Path) -> None:
    saved(tmp_path / "own.safetensors", "resnet10-quarter")
    network = load_backbone(tmp_path / "own.safetensors")
    with pytest.warns(
        UserWarning, match=r"run from -1 to 2, but this network takes.*\[0, 1\]"
    ) as w:
        network(torch.rand(4, 3, 32, 32).clamp(0.1, 0.9) * 0 + torch.tensor([-1.0, 2]).repeat(16))
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(torch.full((4, 3, 32, 32), 255.0))  # only the first batch is looked at
        load_backbone(tmp_path / "own.safetensors")(torch.rand(4, 3, 32, 32))


def test_only_the_first_batch_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "own.safetensors", "resnet10-quarter")
    network, read = load_backbone(tmp_path / "own.safetensors"), []
    kept = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda t, *a: read.append(1) or kept(t, *a))
    for _ in range(3):
        network(torch.rand(2, 3, 32, 32))
    assert read == [1]


def test_a_single_image(tmp_path: Path) -> None:
    saved(tmp_path / "own.safetensors", "resnet10-quarter")
    network, images = load_backbone(tmp_path / "own.safetensors"), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        one = network(images[0])
        assert one.shape == (128,)
        assert torch.allclose(one, network(images)[0], atol=1e-5)
