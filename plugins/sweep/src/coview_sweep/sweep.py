"""A sweep: trials are asked of Optuna, done as processes, and told to it."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from coview.errors import CoviewError, RequestError
from coview.locks import Hold
from coview_sweep.spec import Spec, bounds, read
from coview_sweep.trial import Process

SPEC = "sweep.toml"
STORAGE = "study.db"
NAME = "sweep"
PAUSE = 0.3
"""Seconds between two looks at the processes."""
Tell = Callable[[str], None]


class Stopped(KeyboardInterrupt):
    """The sweep was asked to end."""


def opened(folder: Path, spec: Spec | None) -> tuple[Spec, optuna.Study]:
    """Begin a sweep in a folder, or open the one that is there.

    Args:
        folder: the sweep's folder.
        spec: the sweep to begin; None: the one that the folder has.

    Raises:
        RequestError: the folder has no sweep, or another one.
    """
    file = folder / SPEC
    known = Spec.of(read(file), str(file)) if file.is_file() else None
    if spec is None and known is None:
        raise RequestError(f"There is no sweep in {folder}.")
    if known is not None and spec is not None and attrs.evolve(spec, trials=known.trials) != known:
        raise RequestError(
            f"{folder} has another sweep. To go on with that: coview sweep {folder}. For a new "
            "one, choose another --out."
        )
    chosen = spec or known
    assert chosen is not None
    folder.mkdir(parents=True, exist_ok=True)
    chosen.save(file)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=NAME,
        storage=f"sqlite:///{folder / STORAGE}",
        direction="minimize" if chosen.minimize else "maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4)
        if chosen.pruner == "median"
        else optuna.pruners.NopPruner(),
    )
    study.sampler = _sampler(chosen, len(study.trials))
    if chosen.sampler == "grid":
        # Optuna's own sampler of grids works in its loop alone, and stops that.
        for point in _points(chosen):
            study.enqueue_trial(point, skip_if_exists=True)
    return chosen, study


def _sampler(spec: Spec, done: int) -> optuna.samplers.BaseSampler:
    # A sampler that begins again with the same seed would draw the same trials again.
    seed = spec.seed + done
    if spec.sampler != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _points(spec: Spec) -> list[dict[str, Any]]:
    """Return the points of the grid that are tried; of a part of it, ones from everywhere."""
    columns = [list(map(_plain, values)) for values in spec.grid.values()]
    points = [dict(zip(spec.grid, values, strict=True)) for values in itertools.product(*columns)]
    if spec.trials < len(points):
        random.Random(spec.seed).shuffle(points)
    return points[: spec.trials]


def distributions(spec: Spec) -> dict[str, BaseDistribution]:
    """Return what each setting is drawn from."""
    found: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(list(map(_plain, values)))
        for name, values in spec.grid.items()
    }
    for name, text in spec.range.items():
        low, high, log = bounds(text)
        if isinstance(low, int) and isinstance(high, int):
            found[name] = IntDistribution(low, high, log=log)
        else:
            found[name] = FloatDistribution(low, high, log=log)
    return found


def _plain(value: Any) -> Any:
    """Return a value as Optuna keeps it: lists as text."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def run(folder: Path, spec: Spec, study: optuna.Study, workers: int, tell: Tell) -> None:
    """Do what is left of a sweep.

    Args:
        folder: the sweep's folder.
        spec, study: see :func:`opened`.
        workers: number of trials at a time, a process each.
        tell: called with a sentence on each trial.

    Raises:
        CoviewError: no trial can be trained.
    """
    busy = f"Another process is at work on the sweep in {folder}."
    with Hold(folder / f".{SPEC}.lock", busy), _ended_by_signals():
        _Sweep(folder, spec, study, workers, tell).run()


@attrs.define(eq=False)
class _Sweep:
    folder: Path
    spec: Spec
    study: optuna.Study
    workers: int
    tell: Tell
    at_work: list[tuple[Trial, Process]] = attrs.field(factory=list)

    def run(self) -> None:
        left = self._left_over()
        try:
            while True:
                while len(self.at_work) < self.workers and (trial := self._next(left)) is not None:
                    self.at_work.append((trial, self._begun(trial)))
                if not self.at_work:
                    return
                self.at_work = [each for each in self.at_work if not self._looked_at(*each)]
                time.sleep(PAUSE)
        except Stopped:
            for _, process in self.at_work:
                process.end()
            raise

    def _left_over(self) -> list[Trial]:
        """Return the trials that an earlier process of this sweep did not finish."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [Trial(self.study, frozen._trial_id) for frozen in running]

    def _next(self, left: list[Trial]) -> Trial | None:
        if left:
            trial = left.pop(0)
            self.tell(f"trial {trial.number} goes on: {said(trial.params)}")
            return trial
        known = self.study.get_trials(deepcopy=False)
        if sum(trial.state != TrialState.WAITING for trial in known) >= self.spec.trials:
            return None
        trial = self.study.ask(distributions(self.spec))
        self.tell(f"trial {trial.number} of {self.spec.trials}: {said(trial.params)}")
        return trial

    def _begun(self, trial: Trial) -> Process:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        words = self.spec.words(trial.params)
        process = Process.begin(place(self.folder, trial.number), words, threads)
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        process.seen = max(reported, default=0)
        return process

    def _looked_at(self, trial: Trial, process: Process) -> bool:
        """Report what a trial has logged; return whether it is over."""
        over = process.over  # before its metrics are read, so that none is missed
        readings = process.readings(self.spec.metric)
        fresh = [(step, value) for step, value in readings if step > process.seen]
        for step, value in fresh:
            trial.report(value, step)
            process.seen = step
        if over:
            self._told(trial, process, readings)
            return True
        if fresh and trial.should_prune():
            process.end()
            self.study.tell(trial, state=TrialState.PRUNED)
            step, value = readings[-1]
            self.tell(f"trial {trial.number} ends early: {self.spec.metric} {value:.4f} at {step}")
            return True
        return False

    def _told(self, trial: Trial, process: Process, readings: list[tuple[int, float]]) -> None:
        if process.finished and readings:
            value = readings[-1][1]
            self.study.tell(trial, value)
            self.tell(f"trial {trial.number}: {self.spec.metric} {value:.4f}")
            return
        why = process.why()
        if process.finished:
            why = f"the run did not log {self.spec.metric} (--metric)"
        trial.set_user_attr("why", why)
        self.study.tell(trial, state=TrialState.FAIL)
        self.tell(f"trial {trial.number} failed: {why}")
        done = self.study.get_trials(deepcopy=False)
        if all(each.state == TrialState.FAIL for each in done if each.state.is_finished()):
            first = sum(each.state == TrialState.FAIL for each in done)
            if first >= min(3, self.spec.trials):
                for _, other in self.at_work:
                    other.end()
                raise CoviewError(f"The first {first} trials failed, so the sweep ends: {why}")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and the signals of launchers end the sweep in good order."""

    def stop(*_: Any) -> None:
        raise Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def place(folder: Path, number: int) -> Path:
    """Return the directory of a trial's run."""
    return folder.absolute() / f"trial-{number:04}"


def said(params: dict[str, Any]) -> str:
    """Return settings on one line."""
    return ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in params.items()
    )


def ranked(spec: Spec, study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials: finished ones from the best on, then the others."""
    known = study.get_trials(deepcopy=False)
    trials = [trial for trial in known if trial.state != TrialState.WAITING]
    worst = sys.float_info.max
    sign = 1 if spec.minimize else -1
    return sorted(
        trials,
        key=lambda t: (
            sign * t.value if t.state == TrialState.COMPLETE and t.value is not None else worst,
            t.number,
        ),
    )
