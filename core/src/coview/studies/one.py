"""One run of a study, in a process of its own: ``python -m coview.studies.one``.

Stdin has its :class:`~coview.studies.jobs.Order`, pickled. A run that a kill left half done
goes on from its checkpoint.
"""

from __future__ import annotations

import pickle
import shutil
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from coview.errors import CoviewError
from coview.files import write_json
from coview.studies.jobs import RESULT, Order

if TYPE_CHECKING:
    from coview.training.run import Run

OBSERVE: dict[str, Any] = {"on_collapse": "ignore", "progress": False, "save_every": "1m"}


def main() -> None:
    """Train, measure, and write the result."""
    told: Order = pickle.load(sys.stdin.buffer)
    started = time.perf_counter()
    run = _trained(told)
    seconds = time.perf_counter() - started
    values = {key: quantity.read(run) for key, quantity in told.measure.items()}
    found = {"values": values, "steps": run.step, "seconds": round(seconds, 1)}
    write_json(told.folder / RESULT, found)


def _trained(told: Order) -> Run:
    if told.by is not None:
        from coview.studies import peers

        return peers.train(told)
    from coview.api import train
    from coview.training.checkpoints import FOLDER

    folder = told.folder
    # A run that is over has nothing to go on with: it is repeated, to the digit.
    begun = any((folder / FOLDER).glob("*.pt"))
    if begun and not (folder / "backbone.safetensors").exists():
        # What cannot be resumed (a damaged checkpoint) is begun anew.
        with suppress(CoviewError):
            return train(resume=folder, progress=False)
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"seed": told.seed, "device": told.device, "report": False, **OBSERVE}
    return train(out=folder, **told.arguments, **settings)


if __name__ == "__main__":
    try:
        main()
    except CoviewError as error:
        sys.exit(str(error))
