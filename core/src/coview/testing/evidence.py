"""The smallest numbers that show a difference: two tensors, and the first row that differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

COLUMNS = 4
"""Numbers of a row that are shown."""


def different(
    first: Any, second: Any, place: str = "", rtol: float = 0.0, atol: float = 0.0
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the place and both values of each difference in two nested states.

    Args:
        first, second: tensors, numbers, texts, or mappings and sequences of them.
        place: where they are, for the places inside.
        rtol, atol: tolerances, as of :func:`torch.allclose`; with both 0, equal to the last bit.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if not _near(first, second, rtol, atol):
            yield place, first, second
    elif isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(k for k in second if k not in first)]:
            here = f"{place}.{key}" if place else str(key)
            if key in first and key in second:
                yield from different(first[key], second[key], here, rtol, atol)
            else:
                yield here, first.get(key), second.get(key)
    elif isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            yield place, f"{len(first)} values", f"{len(second)} values"
            return
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from different(one, other, f"{place}[{number}]", rtol, atol)
    elif type(first) is not type(second) or first != second:
        yield place, first, second


def _near(first: Tensor, second: Tensor, rtol: float, atol: float) -> bool:
    if first.shape != second.shape or not (rtol or atol):
        return torch.equal(first, second)
    return torch.allclose(first, second, rtol=rtol, atol=atol, equal_nan=True)


def shown(first: Any, second: Any, rtol: float = 0.0, atol: float = 0.0) -> str:
    """Return two values in one line; of tensors, their shapes and the first row that differs."""
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return f"{_said(first)} and {_said(second)}"
    if first.shape != second.shape:
        return f"shapes {tuple(first.shape)} and {tuple(second.shape)}"
    if not first.ndim:
        return f"{_said(first)} and {_said(second)}"
    one, other = _rows(first), _rows(second)
    wrong = ~torch.isclose(one, other, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return "equal values of other types"
    row = int(wrong.any(dim=1).nonzero()[0])
    column = int(wrong[row].nonzero()[0])
    start = max(0, min(column, one.shape[1] - COLUMNS))
    part = slice(start, start + COLUMNS)
    count = int(wrong.any(dim=1).sum())
    where = f"row {row}" if first.ndim > 1 else "values"
    columns = f", columns {start}-{min(part.stop, one.shape[1]) - 1}" if one.shape[1] > 1 else ""
    rest = f"; {count} of {len(one)} rows differ" if first.ndim > 1 else ""
    return f"{where}{columns}: {_numbers(one[row, part])} and {_numbers(other[row, part])}{rest}"


def told(
    found: tuple[str, Any, Any] | None,
    first: str,
    second: str,
    rtol: float = 0.0,
    atol: float = 0.0,
) -> str:
    """Return a difference in one line: where it is, and both values by what they are called."""
    if found is None:
        return ""
    place, one, other = found
    return f"{place}, {first} and {second}: {shown(one, other, rtol, atol)}"


def _rows(tensor: Tensor) -> Tensor:
    """Return a tensor as rows of float64, (R, C)."""
    flat = tensor.detach().cpu().double()
    return flat.reshape(1, -1) if flat.ndim == 1 else flat.reshape(len(flat), -1)


def _numbers(row: Tensor) -> str:
    return f"[{', '.join(f'{value:.9g}' for value in row.tolist())}]"


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.item()!r}" if not value.ndim else f"a tensor {tuple(value.shape)}"
    return "nothing" if value is None else repr(value) if not isinstance(value, str) else value


def first_not_finite(values: Tensor) -> str:
    """Return the first row of a tensor that is not finite, in one line."""
    if not values.ndim:
        return _said(values.detach())
    rows = _rows(values)
    wrong = ~rows.isfinite()
    row = int(wrong.any(dim=1).nonzero()[0])
    column = int(wrong[row].nonzero()[0])
    start = max(0, min(column, rows.shape[1] - COLUMNS))
    shown = _numbers(rows[row, start : start + COLUMNS])
    where = f"row {row}, columns from {start}" if values.ndim > 1 else f"values from {start}"
    return f"{where}: {shown}; {int(wrong.sum())} of {wrong.numel()} numbers are not finite"
