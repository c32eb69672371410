"""Hand runs to submitit, which writes the script and submits it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import submitit
from submitit.slurm.slurm import _make_sbatch_string

from coview.errors import CoviewError, RequestError
from coview_slurm.job import Train

UNITS = {"m": 1, "h": 60, "d": 24 * 60}


@attrs.frozen(kw_only=True)
class Asked:
    """Jobs that are asked for.

    Attributes:
        words: what follows ``coview train``.
        seeds: a run for each, as an array of jobs; empty: one run.
        out: the run's directory; with seeds, of those below it.
        cluster: ``slurm``, or ``local`` for processes on this machine.
        nodes, processes, gpus, cpus: of each job; processes and GPUs of each node, CPUs of
            each process.
        minutes: time limit of a job; a run that needs longer is requeued.
        warning: seconds before the limit at which the run saves and is requeued.
        parallel: most jobs of an array at a time.
        more: further options of sbatch, by name.
    """

    words: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    out: Path
    cluster: str = "slurm"
    nodes: int = 1
    processes: int = 1
    gpus: int = 1
    cpus: int = 4
    minutes: int = 24 * 60
    warning: int = 300
    parallel: int = 256
    more: Mapping[str, Any] = attrs.field(factory=dict)

    def trainings(self) -> list[Train]:
        """Return what each job trains."""
        out = self.out.absolute()
        if not self.seeds:
            return [Train(self.words, out)]
        return [
            Train((*self.words, "--seed", str(seed)), out / f"seed-{seed}") for seed in self.seeds
        ]

    @property
    def logs(self) -> Path:
        """The folder of scripts and of what jobs print."""
        return self.out.absolute().with_name(f"{self.out.name}-jobs")


def executor(asked: Asked) -> Any:
    """Return submitit's executor with everything that is asked for."""
    slurm = asked.cluster == "slurm"
    known = {"slurm_max_num_timeout": 1000} if slurm else {}
    made = submitit.AutoExecutor(folder=asked.logs, cluster=asked.cluster, **known)
    if slurm:
        made.update_parameters(**{f"slurm_{n}": v for n, v in _parameters(asked).items()})
        return made
    made.update_parameters(
        nodes=1, tasks_per_node=asked.processes, gpus_per_node=asked.gpus, timeout_min=asked.minutes
    )
    return made


def script(asked: Asked) -> str:
    """Return the script that would be submitted."""
    place = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(asked.logs)])
    several: dict[str, Any] = {"map_count": len(asked.seeds)} if len(asked.seeds) > 1 else {}
    text: str = _make_sbatch_string(
        command=place, folder=asked.logs, **_parameters(asked), **several
    )
    return text


def _parameters(asked: Asked) -> dict[str, Any]:
    return {
        "job_name": f"coview-{asked.words[0]}",
        "nodes": asked.nodes,
        "ntasks_per_node": asked.processes,
        **({"gpus_per_node": asked.gpus} if asked.gpus else {}),
        "cpus_per_task": asked.cpus,
        "time": asked.minutes,
        "array_parallelism": asked.parallel,
        "signal_delay_s": asked.warning,
        "additional_parameters": {"requeue": True, "open-mode": "append", **asked.more},
    }


def submit(asked: Asked) -> list[Any]:
    """Submit the jobs; return submitit's handles.

    Raises:
        CoviewError: there is no such cluster here, or it refuses.
    """
    try:
        made = executor(asked)
        trainings = asked.trainings()
        if len(trainings) == 1:
            return [made.submit(trainings[0])]
        with made.batch():
            return [made.submit(training) for training in trainings]
    except RuntimeError as error:
        raise CoviewError(
            f"Nothing can be submitted here ({error}). To see the script: --dry-run"
        ) from error
    except submitit.core.utils.FailedJobError as error:
        raise CoviewError(f"Slurm refuses the job: {error}") from error


def minutes(text: str) -> int:
    """Read ``90m``, ``24h`` or ``2d``.

    Raises:
        RequestError: it is no time.
    """
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if found is None or int(found[1]) == 0:
        raise RequestError(f"--time is a number with m, h or d, as 24h, not {text!r}.")
    return int(found[1]) * UNITS[found[2]]


def words_of_train(words: Sequence[str]) -> tuple[str, ...]:
    """Return what follows ``coview train``.

    Raises:
        RequestError: it is something else, or says where the run goes.
    """
    if len(words) < 2 or words[0] != "train":
        raise RequestError(
            "After -- comes what to run, as in: launch slurm --gpus 8 -- train simclr"
        )
    for option in ("--out", "--resume"):
        if any(word == option or word.startswith(f"{option}=") for word in words):
            raise RequestError(
                f"Leave {option} out after --: launch has --out, and a job whose directory has a "
                "checkpoint goes on from there."
            )
    return tuple(words[1:])


def default_out(method: str) -> Path:
    """Return a directory for a run that has none."""
    return Path("runs") / f"{Path(method).stem}-{datetime.now():%Y%m%d-%H%M%S}"
