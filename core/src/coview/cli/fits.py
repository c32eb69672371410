"""``--fits 24GB``: whether a run would fit a GPU that is not at hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from coview.training.run import Run

GIB = 2**30


def to_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the bytes of a GPU's memory as its maker writes it: ``24GB``, of 2^30 bytes each."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", value.strip(), re.IGNORECASE)
    if found is None or not float(found[1]):
        raise click.BadParameter(
            f"{value!r} is not the memory of a GPU: write 24GB for 24 gigabytes."
        )
    return round(float(found[1]) * GIB)


def planned(run: Run, memory: int, precision: str | None) -> dict[str, Any]:
    """Return what a step takes on a GPU: its precision, and rows of parts, bytes and whether.

    ``from_batch`` says that negatives come from the batch, so parts have fewer.

    Args:
        run: a run that is built on any device.
        memory: bytes of the GPU.
        precision: what was asked for; None or ``auto``: bf16, as on a GPU of today.
    """
    from attrs import asdict

    from coview.testing.rehearsal.room import rooms
    from coview.training.fitting import negatives_from_batch

    wanted = "bf16" if precision in (None, "auto") else precision
    found = rooms(run.resolved, run.plan, wanted, memory, run.batches.resident_bytes)
    return {
        "memory": memory,
        "precision": wanted,
        "rooms": [asdict(room) for room in found],
        "from_batch": negatives_from_batch(run.resolved),
    }


def answer(plan: dict[str, Any]) -> str:
    """Return ``fits 24 GB: no (31 GB); with --accumulate 2: yes (17 GB)``, and how it is known."""
    first, *rest = plan["rooms"]
    parts = [f"fits {_gigabytes(plan['memory'])}: {_answer(first)}"]
    if rest:
        few = ", but an image has the negatives of its part alone" if plan["from_batch"] else ""
        parts.append(f"with --accumulate {rest[-1]['accumulate']}: {_answer(rest[-1])}{few}")
    return (
        f"{'; '.join(parts)}. Planned for one GPU in {plan['precision']}, not compiled: the "
        "tensors of a step, and 1 GB for CUDA itself"
    )


def _answer(room: dict[str, Any]) -> str:
    return f"{'yes' if room['fits'] else 'no'} ({_gigabytes(room['bytes'])})"


def _gigabytes(number: int) -> str:
    size = number / GIB
    return f"{size:.0f} GB" if size >= 10 or size == round(size) else f"{size:.1f} GB"
