"""Weighted kNN against scikit-learn and the sheets' worked votes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from coview.data.base import ImageData, Split
from coview.errors import CoviewError, RequestError
from coview.evaluation.baselines import calibrated
from coview.evaluation.features import features
from coview.evaluation.knn import accuracy, evaluate_knn, evaluate_votes, fitting, vote
from coview.weights.exported import ExportedBackbone


def on_circle(cosines: list[float]) -> Tensor:
    return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines])


@pytest.mark.parametrize(("temperature", "winner"), [(0.07, 0), (0.1, 1)])
def test_worked_vote(temperature: float, winner: int) -> None:
    train, labels = on_circle([0.9, 0.85, 0.84]), torch.tensor([0, 1, 1])
    scores = vote(train, labels, torch.tensor([[2.0, 0.0]]), 2, k=3, temperature=temperature)
    assert scores.argmax().item() == winner
    weights = [math.exp(c / temperature) for c in (0.9, 0.85, 0.84)]
    expected = weights[0] / (weights[1] + weights[2])
    assert (scores[0, 0] / scores[0, 1]).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("k", [1, 20, 200])
def test_against_scikit_learn(k: int) -> None:
    x, y = load_digits(return_X_y=True)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(x[:1200], y[:1200])
    own = vote(
        torch.tensor(x[:1200]), torch.tensor(y[:1200]), torch.tensor(x[1200:]), 10, k=k, chunk=100
    )
    agreement = (own.argmax(1).numpy() == reference.predict(x[1200:])).mean()
    assert agreement == 1.0
    result = accuracy(
        torch.tensor(x[:1200]),
        torch.tensor(y[:1200]),
        torch.tensor(x[1200:]),
        torch.tensor(y[1200:]),
        10,
        k=k,
    )
    assert result.top1 == pytest.approx(reference.score(x[1200:], y[1200:]), abs=1e-6)
    assert result.top5 >= result.top1


def test_a_class_without_a_vote_is_not_among_the_first_five() -> None:
    random = torch.Generator().manual_seed(0)
    train, queries = (torch.randn(n, 8, generator=random) for n in (60, 40))
    labels, truth = (torch.randint(0, 6, (n,), generator=random) for n in (60, 40))
    for temperature in (0.07, None):
        one = accuracy(train, labels, queries, truth, 6, k=1, temperature=temperature)
        assert one.top1 == one.top5 < 0.5
        many = accuracy(train, labels, queries, truth, 6, k=60, temperature=temperature)
        assert many.top5 > 0.7


def test_k_is_at_most_the_training_set() -> None:
    rows, labels = on_circle([1.0, 0.0]), torch.tensor([0, 1])
    result = accuracy(rows, labels, rows, labels, 2, k=200)
    assert (result.k, result.top1, result.train_images) == (2, 1.0, 2)


def data(labels: bool = True, value: int = 0) -> ImageData:
    images = torch.full((4, 1, 2, 2), value, dtype=torch.uint8)
    images[2:] += 100
    split = Split(images, torch.tensor([0, 0, 1, 1]) if labels else None)
    return ImageData("some", split, split, split, ("a", "b"), 1, 2, (0.0,), (1.0,), "x")


class Net(nn.Module):
    num_features = 4

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(x).flatten(1), torch.ones(len(x), 1)], dim=1) * self.scale


def exported(net: nn.Module) -> ExportedBackbone:
    return ExportedBackbone(net, {"mean": [0.0], "std": [1.0], "size": 2})


def test_features_are_taken_in_evaluation_mode_and_leave_the_mode_alone() -> None:
    net = exported(Net()).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rows = features(net, data().train, batch_size=3)
    assert rows.shape == (4, 5)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CoviewError, match="4 of 4 images have features that are not finite"):
        features(exported(Net(float("nan"))), data().train)


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(RequestError, match="no labels"):
        evaluate_knn(exported(Net()), data(labels=False))


def test_the_whole_protocol() -> None:
    result = evaluate_knn(exported(Net()), data(), k=2)
    assert result.top1 == 1.0
    assert result.as_dict()["protocol"].startswith("weighted kNN")


@pytest.mark.parametrize(
    ("sizes", "k"),
    [
        ([80, 80, 80], 80),  # 300 photographs in 3 classes, a fifth of them held out
        ([300, 16, 300], 16),
        ([400, 400], 200),
        ([90, 2, 90], 5),  # one tiny class does not make all votes those of two images
        ([90, 0, 90], 90),  # a class that only the test images have
        ([500, 499], 200),
        ([900, 100], 200),  # as in the papers from here on
        ([10_000, 3], 200),
    ],
)
def test_few_images_have_as_many_votes_as_the_smallest_class(sizes: list[int], k: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    assert fitting(labels) == k
    assert fitting(nn.functional.one_hot(labels, len(sizes)).bool()) == k


def test_a_k_that_is_given_is_kept() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 4, 4), generator=random, dtype=torch.uint8)
    split = Split(images, torch.arange(60) % 4)
    few = ImageData("few", split, split, split, tuple("0123"), 1, 4, (0.5,), (0.5,), "f")

    def network(images: Tensor) -> Tensor:
        return images.flatten(1)

    assert evaluate_knn(network, few).k == 15
    assert evaluate_knn(network, few, k=40).k == 40
    found = evaluate_votes(network, few, [(None, 0.07), (200, None)])
    assert [one.k for one in found] == [15, 60]
    assert found[0].top1 == evaluate_knn(network, few, k=15).top1


def test_calibration_gives_the_statistics_of_the_images_to_a_copy() -> None:
    net = exported(Net())
    images = data(value=50).train.resident
    assert images is not None
    calm = calibrated(net, images.split(2))
    norm = calm.backbone.get_submodule("norm")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_mean.item() == pytest.approx((50 + 150) / 2 / 255)
    assert net.backbone.get_submodule("norm").running_mean.item() == 0.0
    assert not calm.training
