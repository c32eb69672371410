"""Contrastive losses and codes beside lightly's and solo-learn's: time and memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import coview
from benchmarks import engine, peers, runner

Row = dict[str, runner.Once]
DIM, QUERIES = 128, 256


def main(asked: runner.Asked) -> None:
    torch.manual_seed(0)
    given = (engine.device(), asked.solo_learn, asked.rounds)
    runner.rows(asked, {"compiled": False}, lambda title: {"rows": {title: row(title, *given)}})


def row(title: str, device: str, wheel: str, rounds: int) -> dict[str, Any]:
    entrants = ROWS[title](device, wheel)
    memory = {name: runner.peak_mib(once) for name, once in entrants.items()}
    return {**runner.turns(entrants, rounds), "peak_mib": memory}


def nt_xent(images: int, device: str) -> tuple[list[Tensor], runner.Once]:
    """Return two views' rows, and SimCLR's loss of them, forward and backward."""
    rows = [torch.randn(images, DIM, device=device, requires_grad=True) for _ in range(2)]
    views, names = dict(enumerate(rows)), dict.fromkeys((0, 1), torch.arange(images, device=device))
    loss: Any = coview.component("losses", "info-nce", temperature=0.5)
    source: Any = coview.component("negatives", "in-batch")
    encoded = coview.Encoded(views, views, names, ((0, 1), (1, 0)), {})
    targets, step = coview.Targets(views, names), coview.Step(device=device)

    def once() -> Tensor:
        negatives = source.draw_negatives(targets)
        return backward(loss.compute_loss(encoded, targets, (negatives,), step))

    return rows, once


def with_queue(size: int, device: str) -> tuple[Tensor, Tensor, Any, Row]:
    """Return MoCo's queries, keys and queue; its loss, and taking the keys in."""
    plan = coview.Plan(dataset_size=10 * size, batch_size=QUERIES, dim=DIM)
    query = torch.randn(QUERIES, DIM, device=device, requires_grad=True)
    key, own = torch.randn(QUERIES, DIM, device=device), torch.arange(QUERIES, device=device)
    loss: Any = coview.component("losses", "info-nce", temperature=0.2)
    queue: Any = coview.component("negatives", "queue", plan=plan, size=size).to(device)
    encoded = coview.Encoded({0: query}, {0: query}, {0: own}, ((0, 1),), {})
    targets, step = coview.Targets({1: key}, {1: own}), coview.Step(device=device)

    def compare() -> Tensor:
        negatives = queue.draw_negatives(targets, step)
        return backward(loss.compute_loss(encoded, targets, (negatives,), step))

    enqueue = torch.no_grad()(lambda: queue.update_target(targets, step))
    return query, key, queue, {"loss": compare, "enqueue": enqueue}


def simclr(device: str, wheel: str) -> Row:
    from lightly.loss import NTXentLoss

    (a, b), ours = nt_xent(4096, device)
    theirs = NTXentLoss(0.5)
    entrants = {"coview": ours, "lightly": lambda: backward(theirs(a, b))}
    if wheel:
        solo = peers.solo_learn(wheel)
        entrants["solo-learn"] = lambda: backward(solo(a, b, 0.5))
    return agreeing(entrants, (a, b))


def moco(device: str, wheel: str) -> Row:
    from lightly.loss import NTXentLoss

    query, key, queue, own = with_queue(engine.QUEUE, device)
    theirs = NTXentLoss(0.2, memory_bank_size=(engine.QUEUE, DIM)).to(device)
    theirs(query, key)  # fills the bank at random
    theirs.memory_bank.bank = queue.rows.clone()
    ours = lambda: (own["loss"](), own["enqueue"]())[0]  # noqa: E731
    return agreeing({"coview": ours, "lightly": lambda: backward(theirs(query, key))}, (query,))


def sinkhorn(device: str, wheel: str) -> Row:
    """SwAV's codes: 4096 rows, 3000 prototypes, three iterations."""
    from lightly.loss.swav_loss import sinkhorn as theirs

    scores = (0.1 * torch.randn(4096, 3000, device=device)).clamp(-1, 1)
    difference = (engine.sinkhorn(scores) - theirs(scores)).abs().max().item()
    if difference > 2e-6:
        raise SystemExit(f"These codes differ by {difference}, so their times mean nothing.")
    return {"coview": lambda: engine.sinkhorn(scores), "lightly": lambda: theirs(scores)}


ROWS = {"nt-xent 4096x2": simclr, "moco 256 x 65536": moco, "sinkhorn 4096 x 3000": sinkhorn}
OPTIONS = {"rounds": 15, "threads": 2, "rows": ROWS, "steady": True, "solo_learn": ""}


def backward(value: Tensor) -> Tensor:
    """Run backward; return the value detached, not read."""
    value.backward()
    return value.detach()


def agreeing(entrants: Row, trained: Sequence[Tensor]) -> Row:
    """Return entrants that compute the same loss and, relative to its size, gradient; else stop."""
    found: dict[str, tuple[float, Tensor]] = {}
    for name, run in entrants.items():
        for tensor in trained:
            tensor.grad = None
        found[name] = float(run()), torch.cat([tensor.grad.flatten() for tensor in trained])
        (value, gradient), (loss, first) = found[name], found["coview"]
        wrong = abs(value - loss), float((gradient - first).norm() / first.norm())
        if wrong[0] > 1e-5 or wrong[1] > 1e-3:
            raise SystemExit(f"{name}'s loss and gradient differ by {wrong}: times mean nothing.")
    return entrants
