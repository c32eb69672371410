"""A bank in shares is a bank: the same rows read, moved and saved, by any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

import coview
from coview import Batch, Encoded, Plan, Step, Views
from coview_instdisc import shares
from coview_instdisc.shares import Share, fresh

IMAGES, DIM, BATCH = 7, 4, 6
ONE = Views((), (0,), (0,), ((0, 0),))


def bank(**settings: Any) -> Any:
    torch.manual_seed(0)
    plan = Plan(dataset_size=IMAGES, dim=DIM, batch_size=BATCH)
    return coview.component("targets", "memory-bank", plan=plan, draws=5, **settings).double()


def train(made: Any, rank: int, processes: int) -> dict[str, Any]:
    """Read and move three times; return what was read, and everything that is saved."""
    own = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
    read = []
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        indices = torch.randperm(IMAGES, generator=generator)[:BATCH][own]
        features = torch.randn(BATCH, DIM, generator=generator, dtype=torch.float64)[own]
        batch = Batch(torch.zeros(len(indices), 1, 1, 1), indices)
        targets = made.encode_targets(ONE, batch)
        drawn = made.draw_negatives(targets, batch, Step(number=number))
        read.append((targets.keys[0].clone(), drawn.vectors[0].clone()))
        made.update_target(Encoded({}, {0: features}, {}, (), {}), batch)
    return {"read": read, "saved": made.state_dict()["rows"], "kept": made.rows}


def work(rank: int, processes: int, where: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{where}/meet", rank=rank, world_size=processes
    )
    made = bank(shard="always")
    # DistributedDataParallel would make everyone's share the first process's.
    assert made.own_buffers == ("rows",)
    result = train(made, rank, processes)
    # What a single process saved is loaded into shares.
    made.load_state_dict({"rows": torch.load(f"{where}/single.pt")})
    result["loaded"] = made.state_dict()["rows"]
    torch.save(result, f"{where}/{rank}.pt")
    with pytest.raises(coview.RequestError, match="cannot use every row as a negative"):
        plan = Plan(dataset_size=IMAGES, dim=DIM)
        coview.component("targets", "memory-bank", plan=plan, draws=0, shard="always")
    assert bank().share is None  # 224 bytes are no reason to share
    assert bank(shard_above=1e-4).share is not None
    assert bank(shard="never", shard_above=0.0).share is None
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_are_the_whole_bank_to_the_bit(processes: int, tmp_path: Path) -> None:
    single = train(bank(), 0, 1)
    torch.save(single["saved"], tmp_path / "single.pt")
    mp.spawn(work, args=(processes, str(tmp_path)), nprocs=processes)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(processes)]
    for number, (keys, drawn) in enumerate(single["read"]):
        assert torch.equal(torch.cat([part["read"][number][0] for part in parts]), keys)
        assert torch.equal(torch.cat([part["read"][number][1] for part in parts]), drawn)
    assert torch.equal(parts[0]["saved"], single["saved"])
    assert torch.equal(parts[0]["loaded"], single["saved"])
    others = torch.cat([part["saved"] for part in parts[1:]])
    assert torch.equal(others, single["saved"][-len(others) :])
    block = -(-IMAGES // processes)
    assert all(part["kept"].shape == (block + 1, DIM) for part in parts)


def test_a_single_process_has_nothing_to_share() -> None:
    assert bank(shard="always").share is None
    assert torch.equal(bank(shard="always").rows, bank().rows)


@given(st.integers(1, 40), st.integers(1, 7), st.sampled_from([None, 1, 2]))
def test_every_row_has_one_owner(rows: int, processes: int, banks: int | None) -> None:
    shape = (rows, 2) if banks is None else (banks, rows, 2)
    whole = torch.randn(shape)
    everyone = [Share(rows, rank, processes) for rank in range(processes)]
    parts = [share.part_of(whole) for share in everyone]
    assert len({part.shape for part in parts}) == 1
    ranges = [share.range(share.rank) for share in everyone]
    owned = [part[..., : b - a, :] for part, (a, b) in zip(parts, ranges, strict=True)]
    assert torch.equal(torch.cat(owned, dim=-2), whole)
    assert all(float(part[..., -1, :].abs().sum()) == 0 for part in parts)


@pytest.mark.parametrize("rows", [16, 17, 31, 40])
@pytest.mark.parametrize("banks", [None, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_starts_with_the_same_rows(
    rows: int, banks: int | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are drawn block by block, each process its own."""
    monkeypatch.setattr(shares, "BLOCK", 16)

    def start(share: Share | None) -> torch.Tensor:
        torch.manual_seed(4)
        return fresh(banks, rows, 3, share)

    whole = start(None)
    assert whole.abs().max() <= 1 and len(whole.flatten().unique()) == whole.numel()
    for rank in range(processes):
        share = Share(rows, rank, processes)
        assert torch.equal(start(share), share.part_of(whole))


def test_a_bank_is_divided_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = coview.Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1),))
    # A bank of a mebibyte: 1024 rows of 256 numbers of 4 bytes.
    plan = Plan(dataset_size=1024, dim=256, layout=layout)

    def share(**chosen: Any) -> Share | None:
        made: Any = coview.component("targets", "memory-bank", plan=plan, **chosen)
        divided: Share | None = made.share
        return divided

    assert share(shard="always") is None
    monkeypatch.setattr("coview_instdisc.bank.world_size", lambda: 2)
    assert share(shard_above=1.0) is None and share(shard_above=0.0, shard="never") is None
    divided = share(shard_above=0.99)
    assert divided is not None and divided.rows == 1024
    assert share(shard_above=1.5, per_view=True) is not None
    assert share(shard_above=2.0, per_view=True) is None
    assert share(shard="always", draws=1) is not None
    with pytest.raises(coview.RequestError, match="bank of 1 MiB .* cannot use every row"):
        share(shard_above=0.99, draws=0)
