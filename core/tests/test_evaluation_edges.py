"""Data that are not as one would wish, for every protocol: the right answer or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from coview.data.base import ImageData, Split
from coview.errors import CoviewError, RequestError
from coview.evaluation.classifier import evaluate_probe
from coview.evaluation.embeddings import embed
from coview.evaluation.finetune import finetune
from coview.evaluation.knn import evaluate_knn
from coview.evaluation.linear import evaluate_linear
from coview.evaluation.retrieval import identities, retrieve
from coview.evaluation.svm import evaluate_svm
from coview.optim.protocols import FineTuning, Protocol, SupportVectors
from coview.weights.exported import ExportedBackbone


class Colour(nn.Module):
    """Mean of each channel: crops and flips leave it alone. One parameter, to be trained."""

    num_features = 3

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * self.scale


def exported(scale: float = 1.0) -> ExportedBackbone:
    meta = {"mean": [0.0] * 3, "std": [1.0] * 3, "size": 16, "image_size": 16, "channels": 3}
    return ExportedBackbone(Colour(scale), {**meta, "method": "x", "backbone": "colour"}).eval()


def data(train: list[int], test: list[int] | None, **changes: Any) -> ImageData:
    """Red, green and blue images are the classes 0, 1 and 2."""

    def split(labels: list[int]) -> Split:
        images = torch.zeros(len(labels), 3, 16, 16, dtype=torch.uint8)
        for row, label in enumerate(labels):
            images[row, label] = 200 + row % 3
        return Split(images, torch.tensor(labels))

    reference, held = split(train), None if test is None else split(test)
    mean, std = (0.0,) * 3, (1.0,) * 3
    made = ImageData("few", reference, held, reference, ("a", "b", "c"), 3, 16, mean, std, "x")
    return attrs.evolve(made, **changes)


SGD = {"source": "test", "lr": 20.0, "epochs": 60, "batch_size": 8}


def nearest(network: ExportedBackbone, own: ImageData) -> dict[str, Any]:
    return evaluate_knn(network, own, k=1).as_dict()


def grid(network: ExportedBackbone, own: ImageData) -> dict[str, Any]:
    options: dict[str, Any] = {"learning_rates": [30.0], "weight_decays": [0.0]}
    return evaluate_linear(network, own, epochs=300, **options).as_dict()


def probe(network: ExportedBackbone, own: ImageData) -> dict[str, Any]:
    return evaluate_probe(network, own, Protocol(**SGD)).as_dict()


def machine(network: ExportedBackbone, own: ImageData) -> dict[str, Any]:
    return evaluate_svm(network, own, SupportVectors("test", 10.0)).as_dict()


def tuned(network: ExportedBackbone, own: ImageData) -> dict[str, Any]:
    settings = FineTuning(**{**SGD, "lr": 0.5, "head_lr": 20.0})
    return finetune(network, nn.Identity(), 3, own, settings, labels="100%").as_dict()


def searched(network: ExportedBackbone, own: ImageData) -> dict[str, Any]:
    gallery, queries = embed(network, own, "train"), embed(network, own, "test")
    return retrieve(
        torch.from_numpy(queries["embeddings"]),
        torch.from_numpy(gallery["embeddings"]),
        identities(queries, own, "label"),
        identities(gallery, own, "label"),
        match="label",
        ks=(1, 10**6),
    ).as_dict()


Measure = Callable[[ExportedBackbone, ImageData], dict[str, Any]]
TRAINED = (grid, probe, machine, tuned)
CLASSIFYING = (nearest, *TRAINED)


@pytest.mark.parametrize("measure", [*CLASSIFYING, searched])
def test_no_labels(measure: Measure) -> None:
    own = data([0, 1], [0, 1])
    bare = attrs.evolve(own.reference, labels=None)
    with pytest.raises(RequestError, match="few has no labels"):
        measure(exported(), attrs.evolve(own, train=bare, reference=bare))


@pytest.mark.parametrize("measure", CLASSIFYING)
def test_no_test_split(measure: Measure) -> None:
    with pytest.raises(RequestError, match="few has no"):
        measure(exported(), data([0, 1], None))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("measure", CLASSIFYING)
def test_a_label_of_the_test_split_only_is_always_wrong(measure: Measure, named: bool) -> None:
    own = data([0, 1] * 8, [0, 1, 2, 2], **({} if named else {"classes": ()}))
    result = measure(exported(), own)
    assert result["classes"] == 3
    assert result["top1"] == 0.5 and result["mean_per_class"] == pytest.approx(2 / 3)


def test_a_query_without_a_match_is_left_out_and_counted() -> None:
    result = searched(exported(), data([0, 1, 1], [0, 1, 2]))
    assert (result["queries"], result["without_match"], result["gallery"]) == (2, 1, 3)
    assert result["recall_at_1000000"] == 1.0, "a k beyond the gallery is the gallery"


@pytest.mark.parametrize("measure", CLASSIFYING)
def test_a_class_with_one_image_counts(measure: Measure) -> None:
    result = measure(exported(), data([0, 0, 0, 1, 1, 1, 2], [0, 1, 2]))
    assert (result["top1"], result["train_images"], result["classes"]) == (1.0, 7, 3)


def test_more_neighbours_than_images() -> None:
    result = evaluate_knn(exported(), data([0, 0, 1], [0, 1]), k=500, temperature=None)
    assert (result.k, result.top1) == (3, 0.5), "class 0 has two of the three votes"


@pytest.mark.parametrize("measure", [*CLASSIFYING, searched])
def test_nan_features(measure: Measure) -> None:
    """The sentence says how many, or that the classifier could not be trained."""
    with pytest.raises(CoviewError, match=r"8 of 8|2 of 2|not finite after epoch 1"):
        measure(exported(float("nan")), data([0, 1] * 4, [0, 1]))


@pytest.mark.parametrize("measure", CLASSIFYING)
def test_every_accuracy_comes_with_the_mean_over_classes(measure: Measure) -> None:
    result = measure(exported(), data([0, 1] * 4, [0, 0, 0, 2]))
    # Only classes that got a vote count among a vote's first five.
    five = 0.75 if measure is nearest else 1.0
    assert (result["top1"], result["top5"], result["mean_per_class"]) == (0.75, five, 0.5)
    assert result["protocol"]
