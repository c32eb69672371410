"""How the method's authors measured its weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from coview.optim.supervised import classifier, optimizer_of, train
from coview.testing import has, resolved


def test_the_linear_probe() -> None:
    found = resolved("simsiam")
    has(
        found,
        probe="sgd",
        probe__epochs=90,
        probe__batch_size=4096,
        probe__weight_decay=0.0,
        probe__larc=True,
        probe__lars=False,
        probe__drops=(),
    )
    settings = found.part("probe").settings
    assert settings.lr * settings.scale(4096) == pytest.approx(1.6)


def test_its_probe_on_fixed_features_takes_the_steps_of_larc() -> None:
    """From apex's formulas in float64; the bias, which starts at zero, is adapted as well."""
    protocol = resolved("simsiam").part("probe").settings
    numbers, steps = np.random.RandomState(0), 60
    rows, labels = numbers.randn(48, 6), numbers.randint(0, 3, 48)
    layer = classifier(6, 3, protocol.init_std, seed=1).double()
    values = [layer.weight.detach().numpy().copy(), np.zeros(3)]
    optimizer = optimizer_of([{"params": [*layer.parameters()], "peak": protocol.lr}], protocol)
    scale = protocol.scale(4096)

    def loss(batch: Any, step: int) -> Tensor:
        return cross_entropy(layer(torch.from_numpy(rows)), torch.from_numpy(labels))

    train(
        loss,
        optimizer,
        lambda epoch: [None],
        lambda done: protocol.rate(done) * scale,
        epochs=steps,
        steps_per_epoch=1,
    )
    speeds = [np.zeros_like(value) for value in values]
    for step in range(steps):
        scores = rows @ values[0].T + values[1]
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(48), labels] -= 1
        rate = 1.6 * (1 + math.cos(math.pi * step / steps)) / 2
        for k, slope in enumerate((chances.T @ rows / 48, chances.mean(0))):
            length = np.linalg.norm(values[k])
            trust = 0.001 * length / (np.linalg.norm(slope) + 1e-8) if length > 0 else 1.0
            speeds[k] = 0.9 * speeds[k] + trust * slope
            values[k] = values[k] - rate * speeds[k]
    np.testing.assert_allclose(layer.weight.detach().numpy(), values[0], rtol=1e-6)
    np.testing.assert_allclose(layer.bias.detach().numpy(), values[1], rtol=1e-6)
