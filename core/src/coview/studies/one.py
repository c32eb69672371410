"""One run of a study, in a process of its own: ``python -m coview.studies.one``.

It reads what to do from stdin (JSON, see :func:`coview.studies.running.order`). A run
that a kill left half done goes on from its checkpoint.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.errors import CoviewError
from coview.files import write_json
from coview.studies.jobs import RESULT, Asked, whole
from coview.studies.study import Variant, find_study

if TYPE_CHECKING:
    from coview.training.run import Run

OBSERVE: dict[str, Any] = {"on_collapse": "ignore", "progress": False, "save_every": "1m"}


def main() -> None:
    """Train, measure, and write the result."""
    told = json.load(sys.stdin)
    name, folder = told["study"], Path(told["folder"])
    changes = Variant(**told["changes"])
    asked = Asked(name=name, seeds=(), changes=changes, quick=told["quick"])
    study = find_study(name)
    started = time.perf_counter()
    given = whole(study, told["variant"], asked).given()
    run = _trained(folder, given, told)
    seconds = time.perf_counter() - started
    values = {key: quantity.read(run) for key, quantity in study.measure.items()}
    found = {"values": values, "steps": run.step, "seconds": round(seconds, 1)}
    write_json(folder / RESULT, found)


def _trained(folder: Path, given: dict[str, Any], told: dict[str, Any]) -> Run:
    from coview.api import train
    from coview.training.checkpoints import FOLDER

    method = given.pop("method")
    # A run that is over has nothing to go on with: it is repeated, to the digit.
    begun = any((folder / FOLDER).glob("*.pt"))
    if begun and not (folder / "backbone.safetensors").exists():
        # What cannot be resumed (a damaged checkpoint) is begun anew.
        with suppress(CoviewError):
            return train(resume=folder, progress=False)
    shutil.rmtree(folder, ignore_errors=True)
    more = {name: told[name] for name in ("seed", "max_steps", "device")}
    return train(method, out=folder, report=False, **given, **more, **OBSERVE)


if __name__ == "__main__":
    try:
        main()
    except CoviewError as error:
        sys.exit(str(error))
