"""Groups of batch normalisation that are several processes equal groups within one process."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

import coview
from coview import Layout, Plan, Views
from coview.errors import RequestError
from coview.plan import BackboneSpec

LAYOUT = Layout(((8, 8),) * 2, (3, 3), (0, 1), (0, 1), ((0, 1), (1, 0)))
IMAGES, GROUPS = 16, 2


def an_encoder(world: int, groups: int = GROUPS) -> Any:
    from coview.nn.backbones import BackboneSettings, find_backbone

    spec = BackboneSpec(
        "resnet10-quarter", find_backbone("resnet10-quarter")[0], BackboneSettings()
    )
    plan = Plan(
        batch_size=IMAGES, world_size=world, channels=3, image_size=8, layout=LAYOUT, backbone=spec
    )
    torch.manual_seed(0)
    made = coview.component(
        "encoders", "prototypes", plan=plan, dim=4, hidden=8, prototypes=5, norm_groups=groups
    )
    return made.double().train()


def crops() -> dict[int, torch.Tensor]:
    make = torch.Generator().manual_seed(1)
    shape = (IMAGES, 3, 8, 8)
    return {view: torch.rand(shape, generator=make, dtype=torch.float64) for view in (0, 1)}


def step(encoder: Any, crops: dict[int, torch.Tensor], world: int) -> dict[str, Any]:
    """Return projections, the gradient of their weighted sum, and running statistics."""
    views = Views(tuple(crops.values()), LAYOUT.queries, LAYOUT.keys, LAYOUT.pairs)
    _, rows = encoder.project(views, (0, 1))
    total = sum((x * torch.arange(1.0, 5.0, dtype=x.dtype)).square().sum() for x in rows.values())
    total.backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in encoder.projector.parameters()]
    statistics = [b for n, b in encoder.named_buffers() if n.endswith("running_var")]
    return {
        "rows": {v: x.detach() for v, x in rows.items()},
        "grads": gradients,
        "vars": statistics,
    }


def _work(rank: int, where: str, world: int) -> None:
    import torch.distributed as dist

    from coview.nn.sync_norm import localise, synchronise

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{where}/meet", rank=rank, world_size=world)
    encoder = an_encoder(world)
    synchronise(encoder)
    localise(copy.deepcopy(encoder))  # as a baseline is
    own = {view: x.chunk(world)[rank].contiguous() for view, x in crops().items()}
    torch.save(step(encoder, own, world), f"{where}/{rank}.pt")
    dist.destroy_process_group()


def test_four_processes_in_two_groups_equal_two_groups_in_one_process(tmp_path: Path) -> None:
    world = 4
    mp.spawn(_work, args=(str(tmp_path), world), nprocs=world)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    whole = step(an_encoder(1), crops(), 1)
    for view, rows in whole["rows"].items():
        torch.testing.assert_close(torch.cat([part["rows"][view] for part in parts]), rows)
    for number, gradient in enumerate(whole["grads"]):
        summed = sum(part["grads"][number] for part in parts)
        torch.testing.assert_close(summed, gradient)
    for one, other in ((0, 1), (2, 3)):
        for a, b in zip(parts[one]["vars"], parts[other]["vars"], strict=True):
            torch.testing.assert_close(a, b)
    together = step(an_encoder(1, groups=1), crops(), 1)
    assert not torch.allclose(together["rows"][0], whole["rows"][0])


@pytest.mark.parametrize(("groups", "world"), [(8, 1), (8, 2), (8, 8), (2, 8), (1, 3)])
def test_groups_that_fit_the_processes(groups: int, world: int) -> None:
    from coview.nn.encoder import _local_groups

    plan = Plan(batch_size=96, world_size=world)
    assert _local_groups(groups, plan) == max(1, groups // world)


def test_groups_that_do_not() -> None:
    from coview.nn.encoder import _local_groups

    with pytest.raises(RequestError, match="cannot be shared evenly by 3 processes"):
        _local_groups(8, Plan(batch_size=96, world_size=3))
