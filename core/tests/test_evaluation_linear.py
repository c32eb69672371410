"""Linear evaluation against scikit-learn, the published probes, and a network that moves."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from coview.data.base import DataSettings, ImageData, Split
from coview.data.sources.digits import Digits
from coview.data.sources.idx import Idx
from coview.errors import CoviewError, RequestError
from coview.evaluation.classifier import (
    by_labels,
    classifier,
    evaluate_probe,
    optimizer_of,
    train_classifier,
)
from coview.evaluation.features import features, state_hash
from coview.evaluation.linear import Setting, best_head, evaluate_linear, train_heads
from coview.evaluation.metrics import accuracies
from coview.optim.protocols import Protocol
from coview.weights.exported import ExportedBackbone


class RandomFeatures(nn.Module):
    """Fixed random directions and a ReLU: an encoder that was never trained."""

    num_features = 64

    def __init__(self, pixels: int = 1024, channels: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(pixels, 64, generator=generator) / math.sqrt(pixels)
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        return ((images.flatten(1) - 0.3) @ self.weights).relu()


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return Digits().load(DataSettings())


def standardised(data: ImageData) -> tuple[np.ndarray, np.ndarray]:
    """Return training and test features in float64, by the training set's statistics."""
    network = RandomFeatures(data.channels * data.size**2)
    train = network(data.train.images.float() / 255).double().numpy()
    test = network(data.test.images.float() / 255).double().numpy()
    mean, deviation = train.mean(0), train.std(0)
    return (train - mean) / deviation, (test - mean) / deviation


@pytest.mark.parametrize("weight_decay", [1e-2, 1e-3])
def test_agrees_with_converged_logistic_regression(digits: ImageData, weight_decay: float) -> None:
    train, test = standardised(digits)
    # scikit-learn minimises C x sum of losses + |w|^2 / 2.
    reference = LogisticRegression(C=1 / (weight_decay * len(train)), max_iter=5000, tol=1e-8)
    reference.fit(train, digits.train.labels.numpy())
    right = (reference.predict(test) == digits.test.labels.numpy()).sum()
    result = evaluate_linear(
        RandomFeatures(), digits, learning_rates=[0.1], weight_decays=[weight_decay], epochs=100
    )
    assert abs(result.top1 * len(test) - right) <= 3
    assert right > 0.85 * len(test), "the comparison must not be about guesses"
    assert (result.validation_images, result.validation_top1, result.grid) == (0, None, ())


FASHION = Path(os.environ.get("COVIEW_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="Fashion-MNIST is not there")
@pytest.mark.parametrize("weight_decay", [1e-2, 1e-4])
def test_agrees_with_logistic_regression_on_fashion_mnist(weight_decay: float) -> None:
    data = Idx(str(FASHION)).load(DataSettings())
    train, test = standardised(data)
    reference = LogisticRegression(C=1 / (weight_decay * len(train)), max_iter=3000, tol=1e-6)
    reference.fit(train, data.train.labels.numpy())
    expected = reference.score(test, data.test.labels.numpy())
    result = evaluate_linear(
        RandomFeatures(784), data, learning_rates=[0.1], weight_decays=[weight_decay], epochs=30
    )
    assert result.top1 == pytest.approx(expected, abs=0.01) and expected > 0.7


def slow_head(
    rows: np.ndarray, labels: np.ndarray, setting: Setting, epochs: int, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nesterov's SGD on softmax regression, an image, a class and a weight at a time."""
    count, width = rows.shape
    classes = labels.max() + 1
    weights, velocity = np.zeros((width + 1, classes)), np.zeros((width + 1, classes))
    generator = torch.Generator().manual_seed(seed)
    steps, step = count // size, 0
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, steps * size, size):
            slope = np.zeros_like(weights)
            for row in order[start : start + size]:
                extended = np.append(rows[row], 1.0)
                powers = np.exp(extended @ weights)
                for label in range(classes):
                    wrong = powers[label] / powers.sum() - (labels[row] == label)
                    slope[:, label] += wrong * extended / size
            slope[:-1] += setting.weight_decay * weights[:-1]
            rate = setting.lr * size / 256 * (1 + math.cos(math.pi * step / (epochs * steps))) / 2
            velocity = 0.9 * velocity + slope
            weights = weights - rate * (slope + 0.9 * velocity)
            step += 1
    return weights[:-1], weights[-1]


def test_every_head_of_a_grid_is_what_it_would_be_alone() -> None:
    random = np.random.RandomState(0)
    rows, labels = random.randn(23, 4), np.arange(23) % 3
    settings = [Setting(1.0, 0.0), Setting(30.0, 0.1), Setting(5.0, 0.01)]
    heads = train_heads(
        torch.from_numpy(rows),
        torch.from_numpy(labels),
        3,
        settings,
        epochs=3,
        batch_size=5,
        seed=7,
    )
    for number, setting in enumerate(settings):
        weights, biases = slow_head(rows, labels, setting, 3, 5, 7)
        np.testing.assert_allclose(heads.weights[number].numpy(), weights, atol=1e-12)
        np.testing.assert_allclose(heads.biases[number].numpy(), biases, atol=1e-12)


def test_a_head_that_diverged_cannot_be_chosen() -> None:
    rows = torch.tensor([[1.0], [-1.0]])
    labels = torch.tensor([0, 1])
    heads = train_heads(rows, labels, 2, [Setting(0.1, 0.0), Setting(1.0, 0.0)], epochs=5)
    broken = attrs.evolve(heads, weights=heads.weights.clone())
    broken.weights[1] = float("nan")
    chosen, shares, _ = best_head(broken, rows, labels)
    assert (chosen, shares) == (0, [1.0, 0.0])
    assert best_head(heads, rows, labels)[0] == 1, "of equal accuracies the smaller loss"


def test_the_choice_never_sees_the_test_split(digits: ImageData) -> None:
    options: dict[str, Any] = {"learning_rates": [1e-6, 0.1], "weight_decays": [0.0], "epochs": 3}
    own = evaluate_linear(RandomFeatures(), digits, **options)
    assert (own.lr, own.weight_decay, own.validation_images) == (0.1, 0.0, 144)
    assert len(own.grid) == 2 and own.train_images == len(digits.train)
    assert own.as_dict()["protocol"] == "linear, offline, frozen features"
    shuffled = attrs.evolve(
        digits, test=attrs.evolve(digits.test, labels=digits.test.labels.roll(1))
    )
    other = evaluate_linear(RandomFeatures(), shuffled, **options)
    assert other.grid == own.grid and other.top1 < 0.3 < own.top1


class Moving(RandomFeatures):
    """Counts its calls in a buffer, as a batch norm in training mode would."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


def test_a_backbone_that_moves_is_refused(digits: ImageData) -> None:
    with pytest.raises(CoviewError, match="statistics changed"):
        features(Moving(), digits.test)
    with pytest.raises(CoviewError, match="statistics changed"):
        evaluate_linear(Moving(), digits, epochs=1)
    with pytest.raises(CoviewError, match="statistics changed"):
        evaluate_probe(exported(Moving()), digits, Protocol("test", 0.1, 1, 512))


def test_the_hash_sees_every_parameter_and_buffer() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(torch.bfloat16)
    before = state_hash(network)
    assert state_hash(network) == before
    for tensor in network.state_dict().values():
        kept = tensor.clone()
        tensor.copy_(tensor + 1)
        assert state_hash(network) != before
        tensor.copy_(kept)
    assert state_hash(network) == before


def exported(network: nn.Module) -> ExportedBackbone:
    meta = {"mean": [0.0], "std": [1.0], "size": 32, "image_size": 32, "channels": 1}
    return ExportedBackbone(network, {**meta, "method": "simclr", "backbone": "random"})


def test_a_published_probe_learns_and_leaves_the_backbone(digits: ImageData) -> None:
    network = exported(RandomFeatures()).train()
    protocol = Protocol("test", 3.0, 4, batch_size=128, drops=(0.5,))
    result = evaluate_probe(network, digits, protocol, seed=1)
    assert result.top1 > 0.3 and result.schedule == "x 0.1 after 50 %"
    assert network.training, "it is left in the mode it was in"
    assert evaluate_probe(network, digits, protocol, seed=1) == result
    assert evaluate_probe(network, digits, protocol, seed=2).top1 != result.top1


@pytest.mark.parametrize(
    "published",
    [
        {"lr": 30.0, "drops": (0.6, 0.8)},
        {"lr": 0.2, "nesterov": True},
        {"lr": 0.1, "lars": True},
        {"lr": 0.1, "lars": True, "lr_rule": "sqrt", "warmup": 0.2},
    ],
)
def test_learning_rates_of_a_probe_follow_its_schedule(published: dict[str, Any]) -> None:
    protocol = Protocol("test", epochs=10, batch_size=4, **published)
    images = torch.zeros(8, 1, 2, 2, dtype=torch.uint8)
    head = classifier(4, 2, 0.01, seed=0)
    optimizer = optimizer_of([{"params": list(head.parameters()), "peak": protocol.lr}], protocol)
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    steps = train_classifier(
        by_labels(lambda rows: head(rows.flatten(1)), torch.arange(8) % 2),
        optimizer,
        Split(images, torch.arange(8) % 2),
        protocol,
        lambda rows, seed: rows,
        seed=0,
        device="cpu",
    )
    peak = protocol.lr * (2 if "lr_rule" in published else 4 / 256)
    if "drops" in published:
        expected = [peak * 0.1 ** ((step // 2 >= 6) + (step // 2 >= 8)) for step in range(20)]
    elif "warmup" in published:
        expected = [peak * step / 4 for step in range(4)]
        expected += [peak * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    else:
        expected = [peak * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert steps == 20
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_probe_is_sgd_written_out(nesterov: bool) -> None:
    """Momentum, decay and a falling rate, an image, a class and a weight at a time."""
    protocol = Protocol(
        "test", 40.0, 3, batch_size=4, weight_decay=0.01, nesterov=nesterov, drops=(0.5,)
    )
    images = torch.randint(0, 256, (8, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 3
    split, head = Split(images.to(torch.uint8), labels), classifier(4, 3, 0.5, seed=1)
    start = (head.weight.detach().double().numpy(), head.bias.detach().double().numpy())
    taken: list[list[int]] = []

    def forward(rows: Tensor) -> Tensor:
        return head(rows.flatten(1))

    plain = by_labels(forward, labels)

    def loss(rows: Tensor, indices: Tensor) -> Tensor:
        taken.append(indices.tolist())
        return plain(rows, indices)

    optimizer = optimizer_of([{"params": list(head.parameters()), "peak": protocol.lr}], protocol)
    train_classifier(
        loss, optimizer, split, protocol, lambda rows, seed: rows, seed=0, device="cpu"
    )
    weights = np.concatenate([start[0].T, start[1][None]])  # the bias is a fifth weight, decayed
    velocity, rows = None, images.flatten(1).double().numpy() / 255
    assert len(taken) == 6
    for step, batch in enumerate(taken):
        slope = 0.01 * weights
        for row in batch:
            extended = np.append(rows[row], 1.0)
            powers = np.exp(extended @ weights)
            for label in range(3):
                wrong = powers[label] / powers.sum() - (int(labels[row]) == label)
                slope[:, label] = slope[:, label] + wrong * extended / 4
        velocity = slope if velocity is None else 0.9 * velocity + slope
        move = slope + 0.9 * velocity if nesterov else velocity
        rate = 40.0 * 4 / 256 * (0.1 if step >= 3 else 1.0)
        weights = weights - rate * move
    np.testing.assert_allclose(head.weight.detach().numpy(), weights[:-1].T, atol=1e-5)
    np.testing.assert_allclose(head.bias.detach().numpy(), weights[-1], atol=1e-5)


def test_a_probe_that_diverges_says_so(digits: ImageData) -> None:
    class Huge(RandomFeatures):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * 1e20

    with pytest.raises(CoviewError, match="not finite after epoch 1: a smaller --lr"):
        evaluate_probe(exported(Huge()), digits, Protocol("test", 1e20, 1, 256))


def tiny(train: list[int], test: list[int] | None, names: tuple[str, ...] = ()) -> ImageData:
    """Images of which a pixel tells the class."""

    def split(labels: list[int]) -> Split:
        images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
        for row, label in enumerate(labels):
            images[row, 0, label // 4, label % 4] = 200 + row % 3
        return Split(images, torch.tensor(labels))

    reference = split(train)
    held = None if test is None else split(test)
    return ImageData("tiny", reference, held, reference, names, 1, 4, (0.0,), (1.0,), "x")


class Pixels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_a_label_of_the_test_split_only_is_always_wrong() -> None:
    data = tiny([0, 1] * 20, [0, 1, 2, 2], ("a", "b", "c"))
    result = evaluate_linear(Pixels(), data, epochs=40)
    assert (result.top1, result.classes) == (0.5, 3)
    assert result.mean_per_class == pytest.approx(2 / 3)
    # Without names the number of classes is what the labels say.
    assert evaluate_linear(Pixels(), attrs.evolve(data, classes=()), epochs=40).classes == 3


def test_a_class_with_one_image_is_trained_on() -> None:
    data = tiny([0, 1] * 10 + [2], [0, 1, 2], ("a", "b", "c"))
    result = evaluate_linear(Pixels(), data, learning_rates=[1.0], epochs=200)
    assert result.top1 == 1.0


def test_too_few_images_to_choose_by() -> None:
    data = tiny([0, 1], [0, 1], ("a", "b"))
    with pytest.raises(RequestError, match="no class has two training images"):
        evaluate_linear(Pixels(), data)
    alone = evaluate_linear(Pixels(), data, learning_rates=[10.0], weight_decays=[0.0])
    assert alone.top1 == 1.0


def test_without_labels_or_test_split() -> None:
    with pytest.raises(RequestError, match="tiny has no labels"):
        evaluate_linear(Pixels(), tiny([0, 1], None))


def test_nan_features() -> None:
    class Broken(Pixels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) / images.flatten(1).sum(1, keepdim=True).mul(0)

    with pytest.raises(CoviewError, match="4 of 4 images have features that are not finite"):
        evaluate_linear(Broken(), tiny([0, 1, 0, 1], [0, 1]))


def test_mean_per_class_is_over_the_classes_that_are_there() -> None:
    scores = torch.eye(4)[[0, 0, 0, 3, 1]]
    found = accuracies(scores, torch.tensor([0, 0, 0, 1, 1]))
    assert found["top1"] == pytest.approx(4 / 5)
    assert found["mean_per_class"] == pytest.approx((1 + 1 / 2) / 2)


def test_layer_wise_rates_leave_biases_alone() -> None:
    head = classifier(4, 2, 0.1, seed=0)
    protocol = Protocol("test", 1.0, 1, weight_decay=0.5, lars=True)
    groups = optimizer_of([{"params": list(head.parameters()), "peak": 1.0}], protocol).param_groups
    found = [
        ([id(p) for p in group["params"]], group["adapted"], group["weight_decay"])
        for group in groups
    ]
    assert found == [([id(head.weight)], True, 0.5), ([id(head.bias)], False, 0.0)]
