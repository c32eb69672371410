"""Retrieval: whether the images nearest to a query belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_hit_rate

from coview.data.base import ImageData
from coview.errors import RequestError
from coview.evaluation.embeddings import Table

MATCHES = ("label", "name")
QUERIES = 256


@attrs.frozen
class RetrievalResult:
    """Recall and mean average precision, and the images they were measured on.

    Attributes:
        recall: by k, the share of queries with a match among the k nearest.
        mean_average_precision: over all of a query's matches, in the whole gallery.
        match: what makes an image a match: its label, or its file's name.
        queries: number of queries that have a match.
        without_match: number of queries without a match, which are left out.
        gallery: number of images searched.
    """

    recall: dict[int, float]
    mean_average_precision: float
    match: str
    queries: int
    without_match: int
    gallery: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, including the protocol."""
        values = attrs.asdict(self)
        recall = {f"recall_at_{k}": share for k, share in values.pop("recall").items()}
        return {"protocol": f"retrieval by {self.match}, cosine", **recall, **values}


def identities(table: Table, data: ImageData, match: str) -> list[str]:
    """Return each image's identity; images of equal identity belong together.

    Labels are compared by class name, since the numbers of two folders need not
    agree; files by name, without folder and ending.

    Raises:
        RequestError: the data have no labels, or no names.
    """
    column = {"label": "labels", "name": "names"}[match]
    if column == "labels" and data.multi_label:
        raise RequestError(
            f"The images of {data.name} have several classes each, so none is the class to match "
            "by: --match name."
        )
    if column not in table:
        raise RequestError(f"{data.name} has no {column} to match images by.")
    if match == "name":
        return [PurePath(str(name)).stem for name in table[column]]
    return [
        data.classes[label] if label < len(data.classes) else str(label)
        for label in table[column].tolist()
    ]


def retrieve(
    queries: Tensor,
    gallery: Tensor,
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    *,
    match: str,
    ks: Sequence[int] = (1, 5, 10),
    same: bool = False,
) -> RetrievalResult:
    """Rank the gallery by cosine for every query.

    Args:
        queries: (Q, D) float, any length.
        gallery: (N, D) float, any length.
        query_ids: Q identities; a gallery image of equal identity is a match.
        gallery_ids: N identities.
        match: where identities come from, recorded in the result.
        ks: values of k for recall@k; at most the whole gallery.
        same: queries and gallery are the same images; none is its own match.

    Raises:
        RequestError: no query has a match.
    """
    gallery = normalize(gallery, dim=1)
    known = np.unique(np.array([*gallery_ids, *query_ids]), return_inverse=True)[1]
    own_gallery = torch.from_numpy(known[: len(gallery_ids)])
    own_queries = torch.from_numpy(known[len(gallery_ids) :])
    hits: list[list[float]] = []
    precisions: list[float] = []
    for start in range(0, len(queries), QUERIES):
        cosines = (normalize(queries[start : start + QUERIES], dim=1) @ gallery.T).cpu()
        for row, scores in enumerate(cosines, start):
            relevant = own_gallery == own_queries[row]
            if same:
                others = torch.arange(len(scores)) != row
                scores, relevant = scores[others], relevant[others]
            if relevant.any():
                relevant = relevant[scores.argsort(descending=True)]
                # torchmetrics counts scores of 0 or less as not found, so ranks are above 0.
                ranks = torch.arange(len(relevant), 0, -1, dtype=torch.float32)
                precisions.append(float(retrieval_average_precision(ranks, relevant)))
                tops = (min(k, len(ranks)) for k in ks)
                hits.append([float(retrieval_hit_rate(ranks, relevant, top_k=k)) for k in tops])
    if not hits:
        raise RequestError(f"No query has a match in the gallery, by {match}.")
    shares = np.mean(hits, axis=0).tolist()
    return RetrievalResult(
        recall=dict(zip(ks, shares, strict=True)),
        mean_average_precision=float(np.mean(precisions)),
        match=match,
        queries=len(hits),
        without_match=len(queries) - len(hits),
        gallery=len(gallery),
    )
