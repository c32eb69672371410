"""Is it better? An accuracy in words: against what was measured before, and against chance."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coview.data.base import ImageData
from coview.data.splits import class_sizes
from coview.evaluation.chance import margin
from coview.evaluation.knn import FEW, NEIGHBOURS, fitting
from coview.evaluation.results import facts_of
from coview.evaluation.sentences import recalled

BASELINES = {
    "raw_pixels_knn_top1": "raw pixels",
    "untrained_knn_top1": "untrained network",
}
"""The kNN accuracies that a run logs before it trains."""


def compared(share: float, other: float, label: str, images: int) -> str:
    """Say whether an accuracy is better than another by more than chance allows.

    Args:
        share, other: of ``images`` images.
        label: whose accuracy the other is, such as ``raw pixels``.
        images: number of test images.
    """
    points, chance = 100 * (share - other), 100 * margin(share, other, images)
    if abs(points) <= chance:
        return (
            f"About as good as {_the(label)}: a difference of {abs(points):.1f} points on {images} "
            f"images may be chance (up to {chance:.1f})."
        )
    word = "Better" if points > 0 else "Worse"
    return f"{word} than {_the(label)} by {abs(points):.1f} points (chance: up to {chance:.1f})."


def _the(label: str) -> str:
    return {"untrained network": "the untrained network"}.get(label, label)


def doubt_of_votes(labels: Tensor | None, k: int, run: Path | None) -> list[str]:
    """Return a sentence if k was cut to the smallest class, or more vote than that has images.

    Args:
        labels: (N,) int64, of the images that vote.
        k: how many vote.
        run: the run for the command that the sentence suggests; None: it suggests none.
    """
    sizes = torch.zeros(0) if labels is None else class_sizes(labels)
    smallest = int(sizes[sizes > 0].min()) if bool((sizes > 0).any()) else k
    if labels is not None and smallest == k == fitting(labels) < NEIGHBOURS:
        return [
            f"{k} neighbours vote, as many as the smallest class has training images. With "
            f"{FEW:,} training images or more, {NEIGHBOURS} do."
        ]
    if smallest >= k:
        return []
    other = f"with k = {smallest}."
    if run is not None:
        other = f"coview evaluate knn {shlex.quote(str(run))} -k {smallest}"
    return [
        f"The smallest class has {smallest} training images and {k} neighbours vote, so some "
        f"votes always come from other classes. Also measure: {other}"
    ]


def verdict(
    weights: Path, result: Mapping[str, Any], data: ImageData, own: bool = True
) -> list[str]:
    """Return sentences that say what an evaluation's result is worth.

    Args:
        weights: what was evaluated; if it is a run that measured raw pixels and its untrained
            network on the same data, these are compared with.
        result: the values that are printed with ``--json``.
        data: what it was evaluated on.
        own: whether these are the data of the run, which needs no option then.
    """
    share, images = _share(dict(result))
    if share is None or not images:
        return []
    before = list(_before(weights, result, data)) if "top1" in result else []
    sentences = [compared(share, other, label, images) for label, other in before]
    if not sentences:
        # Where all or none are right, the interval has no width; 3/n bounds the other side.
        chance = 100 * (margin(share, share, images) or min(1.0, 3 / images))
        sentences = [
            f"Between two results on {images} images, a difference of up to {chance:.1f} points "
            "may be chance."
        ]
    voters = result.get("k") if "top1" in result else None
    run = weights if own and weights.is_dir() else None
    return sentences + (doubt_of_votes(data.reference.labels, voters, run) if voters else [])


def _share(result: dict[str, Any]) -> tuple[float | None, int]:
    if "top1" in result:
        return result["top1"], result.get("test_images", 0)
    first = min(recalled(result), default=None)
    return (None, 0) if first is None else (result[f"recall_at_{first}"], result["queries"])


def _before(
    weights: Path, result: Mapping[str, Any], data: ImageData
) -> Iterator[tuple[str, float]]:
    """Yield what the run measured before training on these data: of what, kNN top-1."""
    if not (weights / "run.json").is_file():
        return
    logged = _logged(weights / "metrics.jsonl")
    same = facts_of(weights)["data"]["fingerprint"] == data.fingerprint
    knn = logged.get("knn")
    # The same images may have been split otherwise.
    if knn is None or not same or knn["test_images"] != result.get("test_images"):
        return
    alike = all(result.get(key) == knn[key] for key in ("protocol", "k", "temperature"))
    for key, label in BASELINES.items():
        if key in logged:
            full = f"kNN (k = {knn['k']}, all labels) of {_the(label)}"
            yield label if alike else full, logged[key]


def _logged(file: Path) -> dict[str, Any]:
    """Return the last logged value of every metric."""
    values: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            values |= json.loads(line)
        except json.JSONDecodeError:
            break  # the line that was being written when the run died
    return values
