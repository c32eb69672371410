"""Images of several classes: scores and mean average precision against plain NumPy in float64."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coview.data.bad_images import BadImageError
from coview.data.base import DataSettings, ImageData, Split
from coview.data.loader import Batches
from coview.data.sources.arrays import from_object
from coview.data.sources.pack import Packed
from coview.data.sources.packing import pack
from coview.data.splits import hold_out, labelled_subset, strata
from coview.errors import RequestError
from coview.evaluation.classifier import evaluate_probe
from coview.evaluation.knn import accuracy, evaluate_knn, labelled_splits, vote
from coview.evaluation.linear import Setting, best_head, evaluate_linear, train_heads
from coview.evaluation.metrics import average_precisions, measures
from coview.optim.protocols import Protocol
from coview.optim.supervised import cost
from coview.weights.exported import ExportedBackbone

Array = np.ndarray


def precision_by_hand(scores: Array, truth: Array) -> float:
    """Return the average precision of one class: at every place of the ranking, ties as one."""
    found, before = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        right = int(truth[chosen].sum())
        found += (right - before) / truth.sum() * right / chosen.sum()
        before = right
    return found


def drawn(count: int, classes: int, seed: int) -> tuple[Array, Array]:
    """Return rows (count, 6), and classes that hang together with them; the last has none."""
    random = np.random.RandomState(seed)
    rows = random.randn(count, 6)
    truth = rows @ random.randn(6, classes) + random.randn(count, classes) > 0.5
    truth[:, -1] = False
    return rows, truth


@pytest.mark.parametrize("scale", [1, 1e-4, 1e6])
def test_average_precision_with_ties_and_large_scores(scale: float) -> None:
    random = np.random.RandomState(0)
    scores = (random.randint(-20, 20, (50, 4)) * scale).astype(np.float32)
    truth = random.rand(50, 4) < [0.5, 0.1, 0.9, 0.0]
    found = average_precisions(torch.tensor(scores), torch.tensor(truth))
    expected = [precision_by_hand(scores[:, c], truth[:, c]) for c in range(3)]
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    assert found[3].isnan()
    both = measures(torch.tensor(scores), torch.tensor(truth))
    assert both == {
        "mean_average_precision": pytest.approx(np.mean(expected), rel=1e-6),
        "classes_measured": 3,
    }


def test_without_any_class_nothing_can_be_measured() -> None:
    with pytest.raises(RequestError, match="No test image has any of the classes"):
        measures(torch.rand(5, 3), torch.zeros(5, 3, dtype=torch.bool))


@pytest.mark.parametrize(("k", "temperature"), [(5, 0.07), (40, 0.5), (7, None)])
def test_a_class_is_scored_by_the_neighbours_that_have_it(k: int, temperature: float) -> None:
    rows, truth = drawn(60, 5, 1)
    queries, _ = drawn(30, 5, 2)
    unit = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in (rows, queries)]
    cosines = unit[1] @ unit[0].T
    expected = np.zeros((30, 5))
    for query, own in enumerate(cosines):
        near = np.argsort(-own)[:k]
        weights = (
            1 + own[near] / (4 * k) if temperature is None else np.exp(own[near] / temperature)
        )
        total = 1.0 if temperature is None else weights.sum()
        for place, weight in zip(near, weights, strict=True):
            expected[query] += truth[place] * weight / total
    expected = expected if temperature is None else expected.round(5)
    arguments = torch.tensor(rows), torch.tensor(truth), torch.tensor(queries), 5
    found = vote(*arguments, k=k, temperature=temperature, chunk=8)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    wanted = drawn(30, 5, 2)[1]
    result = accuracy(
        torch.tensor(rows), torch.tensor(truth), torch.tensor(queries), torch.tensor(wanted), 5,
        k=k, temperature=temperature,
    )  # fmt: skip
    by_hand = [precision_by_hand(expected[:, c], wanted[:, c]) for c in range(4)]
    assert result.mean_average_precision == pytest.approx(np.mean(by_hand), rel=1e-6)
    values = result.as_dict()
    assert (values["classes_measured"], values["classes"]) == (4, 5)
    assert "top1" not in values and np.isnan(result.top1)


def test_binary_cross_entropy_is_summed_over_classes() -> None:
    scores, truth = drawn(12, 6, 3)[0] * 3, drawn(12, 6, 4)[1]
    p = 1 / (1 + np.exp(-scores))
    by_hand = -np.where(truth, np.log(p), np.log(1 - p)).sum() / 12
    assert cost(torch.tensor(scores), torch.tensor(truth)).item() == pytest.approx(by_hand)


def test_heads_are_logistic_regressions() -> None:
    """All rows at once: gradient descent by hand, with momentum and decay, gives the same heads."""
    rows, truth = drawn(40, 3, 5)
    settings = [Setting(0.5, 0.01), Setting(2.0, 0.0)]
    found = train_heads(
        torch.tensor(rows), torch.tensor(truth), 3, settings, epochs=30, batch_size=40
    )
    for number, each in enumerate(settings):
        w, b = np.zeros((6, 3)), np.zeros(3)
        vw, vb = np.zeros((6, 3)), np.zeros(3)
        for step in range(30):
            rate = each.lr * 40 / 256 * 0.5 * (1 + np.cos(np.pi * step / 30))
            error = (1 / (1 + np.exp(-(rows @ w + b))) - truth) / 40
            gw, gb = rows.T @ error + each.weight_decay * w, error.sum(0)
            vw, vb = 0.9 * vw + gw, 0.9 * vb + gb
            w, b = w - rate * (gw + 0.9 * vw), b - rate * (gb + 0.9 * vb)
        np.testing.assert_allclose(found.weights[number], w, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.biases[number], b, rtol=1e-6, atol=1e-9)
    chosen, precisions, losses = best_head(found, torch.tensor(rows), torch.tensor(truth))
    scores = found.scores(torch.tensor(rows)).numpy()
    by_hand = [np.mean([precision_by_hand(s[:, c], truth[:, c]) for c in range(2)]) for s in scores]
    assert precisions == pytest.approx(by_hand) and len(losses) == 2
    assert chosen == int(np.argmax(by_hand))


def test_shares_are_by_the_rarest_class() -> None:
    hot = torch.zeros(100, 3, dtype=torch.bool)
    hot[:80, 0] = True
    hot[60:90, 1] = True
    hot[:5, 2] = True
    groups = strata(hot)
    assert groups.tolist() == [2] * 5 + [0] * 55 + [1] * 30 + [3] * 10
    _, held = hold_out(100, groups, 0.2)
    assert hot[held].sum(dim=0).tolist() == [pytest.approx(16, abs=5), 6, 1]
    few = labelled_subset(groups, "2-per-class", 0)
    assert hot[few].any(dim=0).all() and len(few) == 8


class Means(nn.Module):
    """The mean of each channel and quarter of an image."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def pictures(count: int = 120) -> ImageData:
    """Images whose channels say which of three classes they have; 5 of every 8 have several."""
    random = np.random.RandomState(0)
    hot = torch.arange(count)[:, None] >> torch.arange(3) & 1
    images = random.randint(0, 120, (count, 3, 8, 8)) + 120 * hot.numpy()[:, :, None, None]
    return from_object((torch.tensor(images, dtype=torch.uint8), hot), DataSettings())


def test_features_that_tell_the_classes_are_found_good() -> None:
    data = pictures()
    result = evaluate_knn(Means(), data, k=5)
    assert result.mean_average_precision > 0.95 and result.test_images == 24
    shuffled = attrs.evolve(
        data, test=attrs.evolve(data.test, multi_hot=data.test.multi_hot.roll(7, dims=0))
    )
    assert evaluate_knn(Means(), shuffled, k=5).mean_average_precision < 0.8


def network() -> ExportedBackbone:
    meta = {"mean": [0.0] * 3, "std": [1.0] * 3, "size": 8, "image_size": 8, "channels": 3}
    return ExportedBackbone(Means(), {**meta, "method": "simclr", "backbone": "means"})


def test_linear_classifiers_learn_several_classes() -> None:
    data = pictures()
    result = evaluate_linear(network(), data, epochs=20)
    assert result.mean_average_precision > 0.95
    values = result.as_dict()
    assert values["validation_mean_average_precision"] > 0.8 and "validation_top1" not in values
    best = max(each["validation_mean_average_precision"] for each in values["grid"])
    assert best == values["validation_mean_average_precision"]
    once = evaluate_linear(network(), data, epochs=20, learning_rates=[1.0], weight_decays=[0.0])
    assert once.as_dict()["validation_mean_average_precision"] is None
    probe = evaluate_probe(network(), data, Protocol("test", 1.0, 20, batch_size=32))
    assert probe.mean_average_precision > 0.9 and "top1" not in probe.as_dict()


def test_what_needs_one_class_says_so() -> None:
    with pytest.raises(RequestError, match="several classes each, and this needs one per image"):
        labelled_splits(pictures())


def test_a_pack_keeps_the_classes(tmp_path: Path) -> None:
    data = pictures()
    pack(data, tmp_path / "pack")
    found = Packed(str(tmp_path / "pack")).load(DataSettings())
    assert found.multi_label and found.classes == data.classes
    assert torch.equal(found.test.multi_hot, data.test.multi_hot)


class Some(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Images of which number 3 cannot be read."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, row: int) -> Tensor:
        if row == 3:
            raise BadImageError("broken")
        return torch.full((3, 4, 4), row, dtype=torch.uint8)


def test_an_image_with_the_same_classes_stands_in_for_a_bad_one() -> None:
    hot = torch.arange(16)[:, None] % 8 >> torch.arange(3) & 1 > 0  # 3 and 11 have the same
    batches = Batches(Split(Some(), multi_hot=hot), 16, 0, "cpu", same_class=True)
    (batch,) = batches.epoch(0)
    assert sorted(batch.images[:, 0, 0, 0].tolist()) == sorted([*range(3), 11, *range(4, 16)])
    assert torch.equal(hot[batch.indices], hot[batch.images[:, 0, 0, 0].long()])
