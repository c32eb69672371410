"""What commands share that do many runs: how many at once, and for how long."""

from __future__ import annotations

import os
import re

import click

from coview.errors import RequestError

UNITS = {"s": 1, "m": 60, "h": 3600}

processes_option = click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Runs at the same time.  [default: one a core, one on a GPU]",
)


def most_processes(device: str) -> int:
    """Return how many runs a device does best at the same time."""
    from coview.training.device import pick_device

    return (os.cpu_count() or 1) if pick_device(device).type == "cpu" else 1


def seconds(option: str, text: str) -> float:
    """Read a time as people write it: ``90s``, ``10m``, ``2h``.

    Raises:
        RequestError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found:
        raise RequestError(
            f"{option} must be a number with s, m or h, like 90s, 10m or 2h, not {text!r}."
        )
    return float(found[1]) * UNITS[found[2]]
