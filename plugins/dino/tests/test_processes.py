"""The centre of two real processes is one process's."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.multiprocessing as mp

import coview
from coview import Plan, Targets


def centre(rank: int, world: int) -> torch.Tensor:
    loss = coview.component("losses", "self-distillation", plan=Plan(dim=3)).double()
    make = torch.Generator().manual_seed(0)
    for _ in range(3):
        rows = {
            view: torch.randn(4, 3, generator=make, dtype=torch.float64).chunk(world)[rank]
            for view in (0, 1)
        }
        loss.update_target(Targets(rows, dict.fromkeys(rows, torch.arange(4).chunk(world)[rank])))
    found: torch.Tensor = loss.centre
    return found


def _work(rank: int, where: str) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    torch.save(centre(rank, 2), f"{where}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_keep_one_centre(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    one = centre(0, 1)
    assert one.abs().sum() > 0
    for rank in (0, 1):
        assert torch.allclose(torch.load(tmp_path / f"{rank}.pt"), one, atol=1e-12)
