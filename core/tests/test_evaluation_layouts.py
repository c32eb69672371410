"""Checkpoints of other programs, laid out as theirs are, and files that are refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from coview.errors import CoviewError, RequestError
from coview.weights.foreign import load_into, match, read_tensors

Tensors = dict[str, Tensor]


def resnet(seed: int) -> nn.Module:
    """torchvision's network and names, with a head as checkpoints have."""
    torch.manual_seed(seed)
    network = torchvision.models.resnet18(num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


def own() -> nn.Module:
    return timm.create_model("resnet18", num_classes=0)


def body(network: nn.Module) -> Tensors:
    return {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + key: value for key, value in tensors.items()}


HEAD = {"fc.0.weight": torch.ones(4, 4), "fc.2.bias": torch.ones(4)}
SECOND = 1
"""Seed of a checkpoint's further network, which must not be taken for the first."""


def moco(net: Tensors, other: Tensors) -> Any:
    keys = {**under("module.encoder_q.", {**net, **HEAD}), **under("module.encoder_k.", other)}
    return {"epoch": 3, "arch": "resnet18", "state_dict": {**keys, "module.queue": torch.ones(4)}}


def moco_v3(net: Tensors, other: Tensors) -> Any:
    keys = under("module.base_encoder.", {**net, **HEAD})
    return {"state_dict": {**keys, **under("module.momentum_encoder.", other)}}


def swav(net: Tensors, other: Tensors) -> Any:
    return under("module.", {**net, "prototypes.weight": torch.ones(3, 4)})


def simsiam(net: Tensors, other: Tensors) -> Any:
    return {"state_dict": under("module.encoder.", {**net, **HEAD})}


def dino(net: Tensors, other: Tensors) -> Any:
    head = {"head.last_layer.weight_v": torch.ones(3, 4)}
    return {
        "student": under("module.", {**under("backbone.", other), **head}),
        "teacher": {**under("backbone.", net), **head},
        "epoch": 99,
    }


def vissl(net: Tensors, other: Tensors) -> Any:
    trunk = under("_feature_blocks.", net)
    model = {"trunk": trunk, "heads": {"0.clf.0.weight": torch.ones(2, 2)}}
    return {"classy_state_dict": {"base_model": {"model": model}}, "phase_idx": 7}


def solo(net: Tensors, other: Tensors) -> Any:
    keys = {**under("backbone.", net), **under("momentum_backbone.", other)}
    return {"state_dict": {**keys, "projector.0.weight": torch.ones(2, 2)}, "global_step": 1}


def solo_before(net: Tensors, other: Tensors) -> Any:
    return {"state_dict": {**under("encoder.", net), "projector.0.weight": torch.ones(2, 2)}}


def lightly(net: Tensors, other: Tensors) -> Any:
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    named = {}
    for key, value in net.items():
        first, _, rest = key.partition(".")
        named[f"backbone.{numbers[first]}.{rest}"] = value
    return {"state_dict": {**named, "projection_head.layers.0.weight": torch.ones(2, 2)}}


def plain(net: Tensors, other: Tensors) -> Any:
    return {**net, "fc.weight": torch.ones(7, 512)}


LAYOUTS: dict[str, tuple[Callable[[Tensors, Tensors], Any], int]] = {
    "MoCo": (moco, 123),
    "MoCo v3": (moco_v3, 122),
    "SwAV": (swav, 1),
    "SimSiam": (simsiam, 2),
    "DINO": (dino, 1),
    "VISSL": (vissl, 0),
    "solo-learn": (solo, 121),
    "lightly": (lightly, 1),
    "timm or torchvision": (plain, 1),
}


@pytest.mark.parametrize("program", LAYOUTS)
def test_layout(tmp_path: Path, program: str) -> None:
    make, ignored = LAYOUTS[program]
    source = resnet(0)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(make(body(source), body(resnet(SECOND))), path)
    target = own()
    found = match(read_tensors(path), target, path)
    assert found.program == program
    assert len(found.ignored) == ignored
    report = found.report(path)
    assert f"laid out as {program}: all 120 tensors" in report and f"{ignored} others" in report
    load_into(target, found)
    source.fc = nn.Identity()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(target.eval()(images), source.eval()(images), atol=1e-5)


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "_orig_mod.", "module._orig_mod.", "a.b.c.", "model.backbone."]
)
def test_any_one_prefix_is_stripped(tmp_path: Path, prefix: str) -> None:
    source, path = resnet(0), tmp_path / "w.pth"
    torch.save({"state_dict": {**under(prefix, body(source)), "head.bias": torch.ones(3)}}, path)
    target = own()
    found = match(read_tensors(path), target, path)
    load_into(target, found)
    assert f"tensors under the prefix {prefix}: all 120" in found.report(path)
    assert found.ignored == ("head.bias",)
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_a_network_that_is_there_twice_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    both = {**under("net.online.", body(resnet(0))), **under("net.target.", body(resnet(1)))}
    torch.save(both, path)
    with pytest.raises(RequestError, match=r"2 times, under net\.online\., net\.target\.: save"):
        match(read_tensors(path), own(), path)


def test_where_nothing_fits_names_are_shown(tmp_path: Path) -> None:
    tensors = {f"layer{number}.w": torch.ones(1) for number in range(7)}
    with pytest.raises(RequestError) as caught:
        match({"state_dict": tensors}, own(), tmp_path / "w.pth")
    names = "layer0.w, layer1.w, layer2.w, layer3.w, layer4.w and 2 others"
    assert f"It holds {names}; wanted are conv1.weight, bn1.weight," in str(caught.value)


def test_old_solo_learn(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save(solo_before(body(resnet(0)), {}), path)
    assert match(read_tensors(path), own(), path).program == "solo-learn"


def test_counters_may_be_missing(tmp_path: Path) -> None:
    tensors = {k: v for k, v in body(resnet(0)).items() if "num_batches" not in k}
    save_file(tensors, tmp_path / "a.safetensors")
    target = own()
    found = match(read_tensors(tmp_path / "a.safetensors"), target, tmp_path / "a.safetensors")
    load_into(target, found)
    assert torch.equal(target.layer4[1].conv2.weight, tensors["layer4.1.conv2.weight"])


def test_a_vision_transformer_of_dino(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("test_vit", num_classes=0)
    path = tmp_path / "dino.pth"
    torch.save(
        {
            "teacher": under("module.backbone.", source.state_dict())
            | {"module.head.last_layer.weight_g": torch.ones(3)}
        },
        path,
    )
    target = timm.create_model("test_vit", num_classes=0)
    found = match(read_tensors(path), target, path)
    load_into(target, found)
    assert found.program == "DINO" and found.ignored == ("module.head.last_layer.weight_g",)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_another_network_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    path = tmp_path / "moco.pth"
    torch.save(moco(body(torchvision.models.resnet34()), {}), path)
    with pytest.raises(RequestError, match=r"laid out as MoCo, but does not fit .* tensors match"):
        match(read_tensors(path), timm.create_model("resnet50", num_classes=0), path)
    shapes = body(resnet(0))
    shapes["conv1.weight"] = torch.ones(64, 1, 7, 7)
    torch.save(shapes, path)
    with pytest.raises(
        RequestError, match=r"conv1.weight, \(64, 3, 7, 7\) here, is \(64, 1, 7, 7\)"
    ):
        match(read_tensors(path), own(), path)
    with pytest.raises(RequestError, match="no tensor of this backbone"):
        match({"a": torch.ones(1)}, own(), path)


def test_a_pickle_that_needs_more_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "args.pth"
    torch.save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(RequestError) as caught:
        read_tensors(path)
    assert str(caught.value) == (
        f"{path} holds more than data (an object of argparse.Namespace), and coview executes "
        "nothing from a file. Save only its state_dict with torch.save, or as safetensors."
    )


class Trap:
    """Executed by a pickle that is loaded without care."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("sprung"),))


def test_a_trap_does_not_spring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(RequestError, match="holds more than data"):
        read_tensors(tmp_path / "trap.pth")
    assert not Path("sprung").exists()


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There are no weights at"):
        read_tensors(tmp_path / "none")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(RequestError, match="text.pth"):
        read_tensors(tmp_path / "text.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(RequestError, match="holds a list, not tensors by name"):
        read_tensors(tmp_path / "list.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(CoviewError, match="not a complete safetensors file"):
        read_tensors(tmp_path / "cut.safetensors")
