"""Detach the records of a step, and join those of its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import torch

from coview.records import Batch, Encoded, Targets, Views

R = TypeVar("R", Batch, Views, Encoded, Targets)


def detached(record: R) -> R:
    """Return the record with every tensor detached from the graph."""
    cut: R = _map(record, lambda tensors: tensors[0].detach(), [record])
    return cut


def joined(records: Sequence[R]) -> R:
    """Join the records of several micro-batches by rows."""
    whole: R = records[0] if len(records) == 1 else _map(records[0], torch.cat, records)
    return whole


def share(batch: Batch, number: int, parts: int) -> Batch:
    """Return one of ``parts`` equal parts of a batch, its fields included."""
    if parts == 1:
        return batch
    own = slice(*(n * len(batch.indices) // parts for n in (number, number + 1)))
    fields = {name: values[own] for name, values in batch.fields.items()}
    if batch.extents is None:
        return Batch(batch.images[own], batch.indices[own], fields)
    return Batch(batch.images, batch.indices[own], fields, batch.extents[own])


def _map(first: Any, function: Callable[[list[Any]], Any], records: Sequence[Any]) -> Any:
    """Apply ``function`` to the tensors at the same place in each record."""
    if isinstance(first, torch.Tensor):
        return function(list(records))
    if isinstance(first, Mapping):
        return {k: _map(v, function, [r[k] for r in records]) for k, v in first.items()}
    if isinstance(first, list):  # rows that are no tensor: captions
        return [row for rows in records for row in rows]
    if isinstance(first, tuple):
        return tuple(_map(v, function, [r[i] for r in records]) for i, v in enumerate(first))
    if attrs.has(type(first)):
        names = [field.name for field in attrs.fields(type(first))]
        return type(first)(
            **{
                n: _map(getattr(first, n), function, [getattr(r, n) for r in records])
                for n in names
            }
        )
    return first
