"""Recall@k and average precision against hand-made loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coview.data.base import ImageData, Split
from coview.errors import RequestError
from coview.evaluation.retrieval import identities, retrieve


def by_hand(
    queries: np.ndarray, gallery: np.ndarray, own: list[str], theirs: list[str], k: int, same: bool
) -> tuple[float, float, int]:
    """Return recall@k, mean average precision and the number of queries, in loops."""
    hits, precisions = [], []
    for number, query in enumerate(queries):
        ranked = []
        for place, row in enumerate(gallery):
            if not (same and place == number):
                cosine = query @ row / (np.linalg.norm(query) * np.linalg.norm(row))
                ranked.append((cosine, theirs[place] == own[number]))
        ranked.sort(key=lambda pair: -pair[0])
        found, total = 0, 0.0
        for rank, (_, relevant) in enumerate(ranked, 1):
            if relevant:
                found += 1
                total += found / rank
        if found:
            precisions.append(total / found)
            hits.append(any(relevant for _, relevant in ranked[:k]))
    return float(np.mean(hits)), float(np.mean(precisions)), len(hits)


@pytest.mark.parametrize("same", [False, True])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 20))
def test_against_loops(same: bool, seed: int, k: int) -> None:
    random = np.random.RandomState(seed)
    queries = random.randn(12, 3)
    gallery = queries if same else random.randn(15, 3)
    own = [str(label) for label in random.randint(0, 4, 12)]
    theirs = own if same else [str(label) for label in random.randint(0, 3, 15)]
    recall, precision, counted = by_hand(queries, gallery, own, theirs, k, same)
    result = retrieve(
        torch.from_numpy(queries),
        torch.from_numpy(gallery),
        own,
        theirs,
        match="label",
        ks=(k, 1),
        same=same,
    )
    assert result.recall[k] == pytest.approx(recall)
    assert result.mean_average_precision == pytest.approx(precision, abs=1e-6)
    assert (result.queries, result.without_match) == (counted, 12 - counted)


def test_worked_average_precision() -> None:
    # Ranked: match, no, match, no: (1/1 + 2/3) / 2.
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor(
        [[1.0], [9], [5], [2]]
    )
    result = retrieve(
        torch.tensor([[3.0, 0.0]]), gallery, ["x"], ["x", "y", "x", "y"], match="name", ks=(1, 9)
    )
    assert result.mean_average_precision == pytest.approx(5 / 6)
    assert result.recall == {1: 1.0, 9: 1.0}
    said = result.as_dict()
    assert said["protocol"] == "retrieval by name, cosine" and said["recall_at_9"] == 1.0


def test_no_query_has_a_match() -> None:
    rows = torch.ones(2, 2)
    with pytest.raises(RequestError, match="No query has a match in the gallery, by label"):
        retrieve(rows, rows, ["a", "b"], ["c", "d"], match="label")


def data(classes: tuple[str, ...]) -> ImageData:
    split = Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    return ImageData("some", split, None, split, classes, 1, 2, (0.0,), (1.0,), "x")


def test_labels_are_compared_by_name() -> None:
    table = {"labels": np.array([1, 0]), "names": np.array(["dog/001.png", "cat/002.jpg"])}
    assert identities(table, data(("cat", "dog")), "label") == ["dog", "cat"]
    assert identities(table, data(("dog", "emu")), "label") == ["emu", "dog"]
    assert identities(table, data(()), "label") == ["1", "0"]
    assert identities(table, data(()), "name") == ["001", "002"]
    with pytest.raises(RequestError, match="some has no names to match images by"):
        identities({"labels": table["labels"]}, data(()), "name")
