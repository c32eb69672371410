"""Codes and the support queue under two real processes equal one process's."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.multiprocessing as mp

import coview
from coview import Layout, Plan, Step, Targets

LAYOUT = Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    batch = torch.rand(8, 5, generator=make, dtype=torch.float64) * 2 - 1
    return batch, torch.rand(6, 5, generator=make, dtype=torch.float64) * 2 - 1


def filled(rank: int, world: int) -> torch.Tensor:
    """Two steps' keys of a queue for each view; this process holds its share of the rows."""
    plan = Plan(batch_size=4, world_size=world, dim=2, layout=LAYOUT)
    torch.manual_seed(0)
    queue = coview.component("negatives", "queue", plan=plan, size=6, per_view=True)
    make = torch.Generator().manual_seed(3)
    for number in range(2):
        keys = {v: torch.randn(4, 2, generator=make).chunk(world)[rank] for v in (0, 1)}
        own = torch.arange(4).chunk(world)[rank]
        queue.update_target(Targets(keys, dict.fromkeys(keys, own)), Step(number=number))
    rows: torch.Tensor = queue.rows
    return rows


def _work(rank: int, where: str) -> None:
    import torch.distributed as dist

    from coview_swav.sinkhorn import sinkhorn

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=2)
    batch, support = scores()
    own = batch.chunk(2)[rank]
    found = {
        "codes": sinkhorn(own),
        "beside": sinkhorn(own, support, 0.3, 2),
        "queue": filled(rank, 2),
    }
    torch.save(found, f"{where}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_one_process_s_codes(tmp_path: Path) -> None:
    from coview_swav.sinkhorn import sinkhorn

    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    batch, support = scores()
    for name, whole in (("codes", sinkhorn(batch)), ("beside", sinkhorn(batch, support, 0.3, 2))):
        together = torch.cat([part[name] for part in parts])
        assert torch.allclose(together, whole, atol=1e-12)
    alone = torch.cat([sinkhorn(part) for part in batch.chunk(2)])
    assert (alone - sinkhorn(batch)).abs().max() > 0.01
    assert all(torch.equal(part["queue"], filled(0, 1)) for part in parts)
