"""Gathering over two real processes under gloo: rows, and one process's gradient."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.multiprocessing as mp


def _work(rank: int, where: str) -> None:
    import torch.distributed as dist

    from coview.distributed import gather, mean_over_processes, world_size

    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    rows = torch.arange(4.0).reshape(2, 2) + 10 * rank
    rows.requires_grad_()
    everyone = gather(rows)
    weight = torch.arange(8.0).reshape(4, 2) + rank
    # The loss of one process would be the mean over both processes' terms.
    (everyone * everyone * weight).sum().div(2).backward()
    torch.save(
        {
            "rows": everyone.detach(),
            "grad": rows.grad,
            "mean": mean_over_processes(torch.tensor(float(rank))),
            "world": world_size(),
        },
        f"{where}/{rank}.pt",
    )
    dist.destroy_process_group()


def test_two_processes_gather_rows_and_gradients(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    whole = torch.tensor([[0.0, 1], [2, 3], [10, 11], [12, 13]], requires_grad=True)
    for result in seen:
        assert torch.equal(result["rows"], whole.detach())
        assert (result["mean"].item(), result["world"]) == (0.5, 2)
    for rank in (0, 1):
        weight = torch.arange(8.0).reshape(4, 2) + rank
        (whole * whole * weight).sum().div(2).backward()
    assert torch.allclose(torch.cat([r["grad"] for r in seen]), whole.grad)


def test_one_process_is_the_identity() -> None:
    from coview.distributed import active, gather, rank, world_size

    rows = torch.ones(2, 3)
    assert gather(rows) is rows
    assert (active(), rank(), world_size()) == (False, 0, 1)
