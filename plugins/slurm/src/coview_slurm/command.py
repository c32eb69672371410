"""``coview launch``: runs as jobs of a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from coview.commands.options import json_option, print_json
from coview.errors import CoviewError, RequestError

EXAMPLES = """\b
Examples:
  coview launch slurm --gpus 8 --time 24h -- train simclr --data photos --epochs 800
  coview launch slurm --nodes 2 --gpus 8 --seeds 0,1,2 --dry-run -- train byol --data photos
  coview launch slurm --sbatch partition=long --sbatch account=vision -- train dino --data photos
"""


@click.group("launch")
def command() -> None:
    """Train on a cluster: jobs that are requeued when they are preempted or run out of time."""


@command.command("slurm", epilog=EXAMPLES)
@click.argument("train", metavar="-- train METHOD ...", nargs=-1, type=click.UNPROCESSED)
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1), help="Nodes.")
@click.option("--gpus", default=1, show_default=True, type=click.IntRange(0), help="GPUs a node.")
@click.option(
    "--processes", type=click.IntRange(1), help="Processes a node.  [default: one for each GPU]"
)
@click.option(
    "--cpus", default=4, show_default=True, type=click.IntRange(1), help="CPUs a process."
)
@click.option("--time", default="24h", show_default=True, help="Limit of a job: 90m, 24h, 2d.")
@click.option(
    "--warning",
    default=300,
    show_default=True,
    type=click.IntRange(30),
    help="Seconds before the limit at which the run saves a checkpoint and is requeued.",
)
@click.option("--seeds", help="A run for each seed, as an array of jobs: 0,1,2.")
@click.option(
    "--parallel", default=256, type=click.IntRange(1), help="Most jobs of an array at a time."
)
@click.option("--sbatch", multiple=True, metavar="NAME=VALUE", help="An option of sbatch.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's directory, which all nodes see."
)
@click.option(
    "--cluster",
    type=click.Choice(["slurm", "local"]),
    default="slurm",
    show_default=True,
    help="local: as processes on this machine, to try it.",
)
@click.option("--wait", is_flag=True, help="Wait until the jobs have ended.")
@click.option("--dry-run", is_flag=True, help="Show the script; submit nothing.")
@json_option
def slurm(
    train: tuple[str, ...],
    processes: int | None,
    time: str,
    seeds: str | None,
    sbatch: tuple[str, ...],
    out: Path | None,
    wait: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Submit a run, or one for each seed, to Slurm.

    A job that is preempted, or near its time limit, saves a checkpoint and is queued again;
    the run goes on from there, to the same end as without.
    """
    from coview_slurm.launch import Asked, default_out, minutes, script, submit, words_of_train

    words = words_of_train(train)
    asked = Asked(
        words=words,
        seeds=_seeds(seeds),
        out=out or default_out(words[0]),
        processes=processes or max(1, given["gpus"]),
        minutes=minutes(time),
        more=dict(_pair(text) for text in sbatch),
        **given,
    )
    if dry_run:
        click.echo(script(asked))
        for training in asked.trainings():
            click.echo(f"# runs: {shlex.join(['coview', *training.command()[3:]])}", err=True)
        click.echo("Nothing was submitted: leave out --dry-run to submit it.", err=True)
        return
    jobs = submit(asked)
    runs = [str(training.out) for training in asked.trainings()]
    if as_json:
        print_json({"jobs": [job.job_id for job in jobs], "runs": runs, "logs": str(asked.logs)})
    else:
        for job, run in zip(jobs, runs, strict=True):
            click.echo(f"job {job.job_id}: {run}")
        click.echo(f"what they print: {asked.logs}", err=True)
    if wait:
        _waited(jobs)


def _waited(jobs: list[Any]) -> None:
    failed = []
    for job in jobs:
        job.wait()
        if (error := job.exception()) is not None:
            failed.append(f"{job.job_id} ({_reason(str(error))})")
    if failed:
        raise CoviewError(f"Jobs that failed: {', '.join(failed)}.")


def _reason(text: str) -> str:
    """Return the line of submitit's report that names the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line]
    return (errors or lines)[-1].rpartition("Error: ")[2].rstrip(".")


def _seeds(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise RequestError(f"--seeds are different whole numbers, as 0,1,2, not {text!r}.")
    return tuple(map(int, parts))


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.lstrip("-").partition("=")
    if not name:
        raise RequestError(f"--sbatch takes NAME=VALUE, not {text!r}.")
    return name, value if equals else True
