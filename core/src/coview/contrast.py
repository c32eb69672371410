"""Cross-entropy of every positive pair of a step among its negatives, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coview.candidates import Source
from coview.chunked import cross_entropy_in_chunks
from coview.comparison import unit
from coview.records import Encoded, Negatives, Pairs, Targets


def softmax_loss(
    encoded: Encoded,
    targets: Targets,
    negatives: Sequence[Negatives],
    *,
    cosine: bool,
    temperature: float | Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Return -log softmax of the positive among all candidates, the mean over each pair's rows.

    It is what :func:`coview.comparison.candidates` and
    :func:`coview.comparison.cross_entropy` give, without their (N, K) tensors:
    similarities, identities and exponentials exist a chunk at a time and the
    gradient is computed with the value. Views that are compared with the same
    negatives are compared in one matrix product, and a query's negatives once
    for all its positives.

    Gradient reaches queries, keys and negative vectors that have any, and a
    temperature that requires it; a second derivative is refused. Numbers are
    float32 or better, whatever the precision of the records and of autocast.

    Args:
        encoded: queries and pairs.
        targets: keys.
        negatives: one part for each source.
        cosine: compare by cosine instead of dot product.
        temperature: what similarities are divided by.
        reduction: over pairs, ``mean`` or ``sum``.
    """
    first = next(iter(encoded.queries.values()))
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    with torch.autocast(first.device.type, enabled=False):
        ready = _Ready(cosine, temperature, dtype)
        parts = [
            _together(encoded, targets, pairs, ready, ready.sources(negatives, pairs[0][1]))
            for pairs in _alike(encoded.pairs, negatives)
        ]
        total = torch.stack(parts).sum()
        return total / len(encoded.pairs) if reduction == "mean" else total


class _Ready:
    """Rows as they are compared; a tensor that is given twice is made ready once."""

    def __init__(self, cosine: bool, temperature: float | Tensor, dtype: torch.dtype) -> None:
        self.cosine = cosine
        self.temperature = temperature
        self.dtype = dtype
        self._made: dict[int, Tensor] = {}

    def rows(self, tensor: Tensor) -> Tensor:
        """Return rows in full precision, of unit length for a cosine."""
        if id(tensor) not in self._made:
            precise = tensor.to(self.dtype)
            self._made[id(tensor)] = unit(precise) if self.cosine else precise
        return self._made[id(tensor)]

    def queries(self, tensor: Tensor) -> Tensor:
        """Return rows divided by the temperature: logits need no division of their own."""
        return self.rows(tensor) / self.temperature

    def sources(self, negatives: Sequence[Negatives], key: int) -> list[Source]:
        """Return the parts of a key slot; only vectors with a gradient are normalised here."""
        sources = []
        for part in negatives:
            vectors, divide = part.vectors[key], self.cosine and not part.normalized
            if vectors.requires_grad:
                vectors = self.rows(vectors) if divide else vectors.to(self.dtype)
                divide = False
            sources.append(Source(vectors, part.identities[key], divide))
        return sources


def _together(
    encoded: Encoded, targets: Targets, pairs: Pairs, ready: _Ready, sources: Sequence[Source]
) -> Tensor:
    """Return the sum over pairs whose queries all have the same negatives."""
    keys: dict[int, list[int]] = {}
    for query, key in pairs:
        keys.setdefault(query, []).append(key)
    most = max(map(len, keys.values()))
    queries, positives, weights = [], [], []
    for query, theirs in keys.items():
        rows = ready.queries(encoded.queries[query])
        logits = [(rows * ready.rows(targets.keys[key])).sum(dim=-1) for key in theirs]
        # A query with fewer positives than the others: the rest counts for nothing.
        missing = [torch.zeros_like(logits[0])] * (most - len(theirs))
        positives.append(torch.stack([*logits, *missing], dim=1))
        weight = rows.new_zeros(most)
        weight[: len(theirs)] = 1 / max(len(rows), 1)
        weights.append(weight.expand(len(rows), most))
        queries.append(rows)
    names = torch.cat([encoded.identities[query] for query in keys])
    rows = torch.cat(queries)
    return cross_entropy_in_chunks(rows, torch.cat(positives), torch.cat(weights), names, sources)


def _alike(pairs: Pairs, negatives: Sequence[Negatives]) -> list[Pairs]:
    """Return the pairs in groups that are compared with the very same negatives."""
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for query, key in pairs:
        mark: list[int] = []
        for part in negatives:
            source = Source(part.vectors[key], part.identities[key])
            mark += [id(source.vectors), id(source.identities), query if source.by_row else -1]
        groups.setdefault(tuple(mark), []).append((query, key))
    return [tuple(group) for group in groups.values()]
