"""Two real processes under gloo: gathered rows and gradients, small things, and silence."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

SILENCE = 3.0
"""Seconds after which a process that does not answer is missed."""


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


def _make_the_default_group_refuse_host_memory() -> None:
    """NCCL's does. Whatever the host's processes tell each other must go by other groups."""
    import torch.distributed as dist

    real = dist.init_process_group

    def start(backend: str, **options: Any) -> None:
        real({"gloo": "cuda:gloo"}[backend], **options)

    dist.init_process_group = start


def _agreed(rank: int) -> list[list[int]]:
    from coview.training.interrupts import Agreement

    agreement = Agreement()
    told = [agreement.reached(rank, 5 - rank), agreement.reached(0, 0)]
    agreement.close()
    return told


def _meet(rank: int, where: str, port: int) -> None:
    import torch.distributed as dist

    from coview import distributed as ours

    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in variables.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ.pop("TORCHELASTIC_RESTART_COUNT", None)
    _make_the_default_group_refuse_host_memory()
    ours.join("cpu", SILENCE)
    if rank == 1:
        time.sleep(1)
    before = time.monotonic()
    ours.wait()
    seen: dict[str, Any] = {
        "waited": time.monotonic() - before,
        "numbers": (ours.rank(), ours.local_rank(), ours.is_first(), ours.active()),
        "largest": ours.largest(10 - rank),
        "first": ours.from_first(f"path {rank}"),
        "everyone": ours.everyones({"rank": rank}),
        "agreed": _agreed(rank),
        "own mistake": ours.is_loss_of_another(RuntimeError("shapes do not fit")),
        "no mistake of ours": ours.is_loss_of_another(ValueError("Connection closed")),
    }
    if rank == 0:
        # The other one does not come: this is told apart from waiting that takes long.
        try:
            ours.meet()
        except RuntimeError as error:
            seen["loss"] = ours.is_loss_of_another(error)
    else:
        time.sleep(SILENCE + 2)
    ours._leave()
    seen["stayed"] = dist.is_initialized()
    ours.settle()
    ours._leave()
    seen["left"] = not dist.is_initialized()
    torch.save(seen, f"{where}/{rank}.pt")


def test_two_processes_exchange_small_things_and_miss_the_one_that_is_silent(
    tmp_path: Path,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_meet, args=(str(tmp_path), port), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert first["numbers"] == (0, 0, True, True) and second["numbers"] == (1, 1, False, True)
    assert first["waited"] > 0.5 > second["waited"]
    for seen in (first, second):
        assert (seen["largest"], seen["first"]) == (10, "path 0")
        assert seen["everyone"] == [{"rank": 0}, {"rank": 1}]
        assert seen["agreed"] == [[0, 0], [1, 5]]
        assert not seen["own mistake"] and not seen["no mistake of ours"]
        assert seen["stayed"] and seen["left"]
    assert first["loss"] is True


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    from coview import distributed as ours

    for world in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if world:
            monkeypatch.setenv("WORLD_SIZE", world)
        ours.join("cpu", SILENCE)
        assert not dist.is_initialized()
    value = torch.tensor(3.0)
    assert (ours.largest(3), ours.from_first("a"), ours.everyones("a")) == (3, "a", ["a"])
    assert ours.mean_over_processes(value) is value and ours.is_first()
    assert not ours.is_loss_of_another(RuntimeError("Connection closed"))
    ours.wait()
    ours.meet()


@pytest.mark.parametrize(
    ("device", "backend", "seconds"),
    [("auto", "nccl", 12), ("cuda", "nccl", 12), ("cpu", "gloo", 10)],
)
def test_with_gpus_the_groups_of_the_host_give_up_before_nccl_does(
    device: str, backend: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL would end the process without a message."""
    import torch.distributed as dist

    from coview import distributed as ours

    made: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(ours, "_control", None)
    monkeypatch.setattr(ours, "_patient", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    monkeypatch.setattr(ours.atexit, "register", made.append)
    for start in ("init_process_group", "new_group"):
        monkeypatch.setattr(
            dist,
            start,
            lambda kind="", *, timeout, backend="": made.append((kind, backend, timeout)),
        )
    ours.join(device, 10)
    assert made == [
        *([3] if backend == "nccl" else []),
        (backend, "", timedelta(seconds=seconds)),
        ("", "gloo", timedelta(seconds=10)),
        ("", "gloo", ours.PATIENCE),
        ours._leave,
    ]


def test_processes_that_were_started_anew_meet_where_nobody_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch.distributed as dist

    from coview import distributed as ours

    agents = dist.TCPStore("127.0.0.1", 0, is_master=True)
    variables = {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": agents.port}
    variables["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    places = []
    for restart in (0, 1, 2):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restart))
        places.append(ours._meeting_place())
    first, second, third = places
    assert first == {}
    assert (second["rank"], second["world_size"]) == (1, 2)
    second["store"].set("address", "of the dead")
    assert second["store"].check(["address"])
    assert not third["store"].check(["address"]) and not agents.check(["address"])
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert ours._meeting_place() == {}
