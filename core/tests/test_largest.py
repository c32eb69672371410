"""The search by groups, against a full sort; products of pairs, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coview.evaluation import neighbours as module
from coview.evaluation import neighbours as pairs
from coview.evaluation.neighbours import largest
from coview.evaluation.rows import InFile, InMemory, Rows

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@settings(deadline=None, max_examples=80)
@given(
    width=st.integers(1, 700),
    count=st.integers(1, 40),
    shift=st.sampled_from([-100.0, -2.0, 0.0, 100.0]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_the_largest_are_those_of_a_sort(
    width: int, count: int, shift: float, dtype: torch.dtype, seed: int
) -> None:
    """Of either sign, with the ties that few bits bring, and numbers that are in no group."""
    make = torch.Generator().manual_seed(seed)
    values = (torch.randn(3, width, generator=make) + shift).to(dtype)
    values[0] = shift  # nothing but ties
    found, places = largest(values, count, in_order=True)
    for row, some, where in zip(values.tolist(), found.tolist(), places.tolist(), strict=True):
        assert some == sorted(row, reverse=True)[:count]
        assert [row[place] for place in where] == some
        assert len(set(where)) == min(count, width)


def test_order_is_only_by_request_and_changes_nothing_else() -> None:
    values = torch.rand(20, 5000, generator=torch.Generator().manual_seed(0))
    ordered, _ = largest(values, 50, in_order=True)
    found, places = largest(values, 50)
    assert torch.equal(found.sort(dim=1, descending=True).values, ordered)
    assert torch.equal(values.gather(1, places), found)


def test_only_a_fraction_of_what_is_searched_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    compared = module._compared

    def counted(values: Tensor, count: int, in_order: bool) -> tuple[Tensor, Tensor]:
        widths.append(values.shape[1])
        return compared(values, count, in_order)

    monkeypatch.setattr(module, "_compared", counted)
    largest(torch.rand(2, 50_000), 216)
    assert sum(widths) < 50_000 / 10
    widths.clear()
    largest(-torch.rand(2, 50_000), 216)  # once more, as numbers
    assert sum(widths) < 2 * 50_000 / 10


@pytest.mark.parametrize("kind", ["in place", "not contiguous", "other precision", "file"])
def test_products_of_pairs_are_those_of_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make = torch.Generator().manual_seed(0)
    table = torch.randn(50, 8, generator=make).to(torch.bfloat16).float()
    queries = torch.randn(7, 8, generator=make)
    rows: Rows = {
        "in place": InMemory(table),
        "not contiguous": InMemory(table.T.contiguous().T),
        "other precision": InMemory(table.double()),
        "file": InFile.write(tmp_path / "rows", table.split(13)),
    }[kind]
    monkeypatch.setattr(pairs, "VALUES", (3 * 11 * 8, 1))  # three queries at a time
    places = torch.stack([torch.randperm(50, generator=make)[:11] for _ in range(7)])
    got = pairs.products(rows, queries, places)
    assert got.dtype == torch.float32
    for query, own, values in zip(queries.tolist(), places.tolist(), got.tolist(), strict=True):
        for place, value in zip(own, values, strict=True):
            expected = sum(a * b for a, b in zip(query, table[place].tolist(), strict=True))
            assert value == pytest.approx(expected, abs=1e-5)


def test_rows_in_memory_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_copied", None)
    pairs.products(InMemory(torch.randn(9, 4)), torch.randn(2, 4), torch.tensor([[1, 8], [0, 3]]))
