"""How the method's authors measured its weights."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from coview.data.base import ImageData, Split
from coview.evaluation.finetune import finetune
from coview.nn.backbones import BackboneSettings, find_backbone
from coview.optim.supervised import classifier, optimizer_of, train
from coview.testing import has, resolved
from coview.weights.exported import ExportedBackbone


@pytest.mark.parametrize("method", ["simclr-v2", "simclr-v2-memory"])
def test_the_linear_probe_is_simclrs(method: str) -> None:
    found = resolved(method)
    has(found, probe="sgd", probe__epochs=90, probe__batch_size=4096, probe__nesterov=True)
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(4096) == pytest.approx(1.6)


@pytest.mark.parametrize(("labels", "epochs"), [("1%", 60), ("10%", 30), ("100%", 30)])
def test_the_second_stage(labels: str, epochs: int) -> None:
    found = resolved("simclr-v2")
    has(found, finetune="sgd", finetune__lars=True, finetune__weight_decay=0.0)
    has(found, finetune__init_std=0.0)
    settings = found.part("finetune").settings.for_labels(labels)
    assert settings.lr * settings.scale(1024) == pytest.approx(0.16)
    assert (settings.epochs, settings.batch_size, settings.warmup) == (epochs, 1024, 0.0)


@pytest.mark.parametrize("steps", [40])
def test_the_second_stage_on_fixed_features_is_the_official_optimiser_s(steps: int) -> None:
    """From the paper's formulas in float64: LARS for the head's layer, momentum for the rest.

    The layer's weights are adapted and its bias is not; the classifier, whose logits start at
    zero, is neither adapted nor decayed.
    """
    protocol = resolved("simclr-v2").part("finetune").settings.for_labels("10%")
    numbers = np.random.RandomState(0)
    rows, labels = numbers.randn(64, 6), numbers.randint(0, 3, 64)
    first, shift = numbers.randn(5, 6), numbers.randn(5)

    layer, last = nn.Linear(6, 5).double(), classifier(5, 3, protocol.init_std, seed=0).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(first))
        layer.bias.copy_(torch.from_numpy(shift))
    optimizer = optimizer_of(
        [
            {"params": [*layer.parameters()], "peak": protocol.lr},
            {"params": [*last.parameters()], "peak": protocol.lr, "adapted": False},
        ],
        protocol,
    )
    batches = (np.arange(64), np.arange(32), np.arange(32, 64))
    scale = protocol.scale(1024)

    def loss(batch: Any, step: int) -> Tensor:
        scores = last(layer(torch.from_numpy(rows[batch])).relu())
        return cross_entropy(scores, torch.from_numpy(labels[batch]))

    train(
        loss,
        optimizer,
        lambda epoch: [batches[(epoch + k) % 3] for k in range(2)],
        lambda done: protocol.rate(done) * scale,
        epochs=steps // 2,
        steps_per_epoch=2,
    )

    values = {"w": first, "b": shift, "v": np.zeros((3, 5)), "c": np.zeros(3)}
    speeds = {name: np.zeros_like(value) for name, value in values.items()}
    for step in range(steps):
        batch = batches[(step // 2 + step % 2) % 3]
        x, y = rows[batch], labels[batch]
        hidden = x @ values["w"].T + values["b"]
        active = np.maximum(hidden, 0)
        scores = active @ values["v"].T + values["c"]
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(y)), y] -= 1
        chances /= len(y)
        back = (chances @ values["v"]) * (hidden > 0)
        slopes = {
            "w": back.T @ x,
            "b": back.sum(0),
            "v": chances.T @ active,
            "c": chances.sum(0),
        }
        rate = 0.16 * (1 + math.cos(math.pi * step / steps)) / 2
        for name, slope in slopes.items():
            trust = 1.0
            lengths = np.linalg.norm(values["w"]), np.linalg.norm(slopes["w"])
            if name == "w" and min(lengths) > 0:
                trust = 0.001 * lengths[0] / lengths[1]
            speeds[name] = 0.9 * speeds[name] + rate * trust * slope
        values = {name: value - speeds[name] for name, value in values.items()}
    for found, name in (
        (layer.weight, "w"),
        (layer.bias, "b"),
        (last.weight, "v"),
        (last.bias, "c"),
    ):
        np.testing.assert_allclose(found.detach().numpy(), values[name], rtol=1e-6, atol=1e-9)
    assert np.abs(values["v"]).max() > 0.1


def test_fine_tuning_leaves_the_classifier_out_of_the_adaptation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def caught(groups: Any, protocol: Any) -> Any:
        seen.append([(group.get("adapted", True), len(group["params"])) for group in groups])
        return optimizer_of(groups, protocol)

    monkeypatch.setattr("coview.evaluation.finetune.optimizer_of", caught)
    torch.manual_seed(0)
    backbone = find_backbone("resnet10-quarter")[0](1, 16, BackboneSettings(stem="3x3"))
    about = {"mean": [0.5], "std": [0.25], "size": 16, "image_size": 16, "channels": 1}
    network = ExportedBackbone(backbone, {**about, "method": "simclr-v2"})
    images = torch.randint(256, (12, 1, 16, 16), dtype=torch.uint8)
    split = Split(images, torch.arange(12) % 3)
    data = ImageData("x", split, split, split, tuple("abc"), 1, 16, (0.5,), (0.25,), "x")
    protocol = attrs.evolve(resolved("simclr-v2").part("finetune").settings, epochs=1)
    finetune(network, nn.Linear(128, 8), 8, data, protocol, labels="100%")
    assert [adapted for adapted, _ in seen[0]] == [True, True, False]
    assert seen[0][-1] == (False, 2)
