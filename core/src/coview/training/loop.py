"""The training loop: steps, metrics, checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

import attrs
import torch
from torch import Tensor

from coview.data.bad_images import DataError
from coview.distributed import (
    active,
    is_first,
    is_loss_of_another,
    mean_over_processes,
    meet,
    rank,
    settle,
    wait,
    world_size,
)
from coview.errors import CoviewError
from coview.method.joining import share
from coview.optim.groups import set_rate, set_weight_decay
from coview.records import Batch, Step
from coview.telling import listening
from coview.terminal import lasting
from coview.training import checkpoints
from coview.training.directory import write_end, write_failure
from coview.training.health import diverged, gradient_norm, refuse_diverged
from coview.training.interrupts import Agreement, Clock, Interrupted, Interrupts
from coview.training.measure import finish, measure_baselines, measure_online
from coview.training.observers.base import OF_THE_TERMINAL, close, states
from coview.training.reports import report_at_end, report_so_far
from coview.training.run import Run


class Metrics:
    """Means of logged values, kept on the device until they are read."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._images = 0
        self._since = time.perf_counter()

    def add(self, name: str, value: Tensor) -> None:
        """Keep a 0-dim tensor."""
        self._values[name].append(value)

    def count(self, images: int) -> None:
        """Count images, for the rate."""
        self._images += images

    def read(self) -> dict[str, float]:
        """Return means since the last reading, over all processes; this waits for the device."""
        local = torch.stack([torch.stack(v).float().mean() for v in self._values.values()])
        means = dict(zip(self._values, mean_over_processes(local).tolist(), strict=True))
        now = time.perf_counter()
        images = self._images * world_size()
        means["images_per_second"] = round(images / max(now - self._since, 1e-9), 1)
        self._values.clear()
        self._images, self._since = 0, now
        return means


def fit(run: Run) -> None:
    """Train until the run's last step; save, export and evaluate. A finished run stays as it is.

    Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint, unless a step was cut off, and
    raise ``KeyboardInterrupt`` (:class:`~coview.training.interrupts.Interrupted`); a
    second signal ends the run without saving.

    Raises:
        CoviewError: training diverged, the disk is full, or another process of
            this run is gone or stuck.
    """
    try:
        with Interrupts(together=active()) as run.interrupts, lasting(), _told(run):
            if not run.finished:
                _fit(run)
            elif OF_THE_TERMINAL in run.observers:
                sys.stderr.write(f"{run.finished}\n")
        settle()
        if is_first() and not run.finished:
            report_at_end(run)
    except RuntimeError as error:
        # Said at once: a launcher that saw the other one end soon ends this one too.
        if is_loss_of_another(error):
            raise CoviewError(lost(run)) from error
        _remember(run, error)
        raise
    except Exception as error:
        _remember(run, error)
        raise
    finally:
        close(run.observers)
        run.hold.close()


def _told(run: Run) -> AbstractContextManager[None]:
    """Let the terminal, if there is one, be told how far an evaluation is."""
    watcher = run.observers.get(OF_THE_TERMINAL)
    return listening(watcher.observer.say) if watcher else nullcontext()


def _remember(run: Run, error: Exception) -> None:
    """Keep with the run that it failed; where even that fails, the first error counts."""
    if is_first():
        with suppress(CoviewError, OSError, ValueError):
            write_failure(run, error)


def _fit(run: Run) -> None:
    run.method.train()
    hook = run.method.manager.hook
    try:
        if run.saved_at is None:
            save(run)  # from now on the run can be resumed, and the disk is known to take it
        if run.settings.evaluate and run.step == 0 and run.data.labelled:
            hook.evaluation_started(run=run, what="kNN before training")
            measure_baselines(run)
        hook.run_started(run=run)
        _epochs(run)
    except KeyboardInterrupt as error:
        if run.whole and not getattr(error, "at_once", False):
            save(run)
        raise
    except DataError:
        # Other processes may still be reading images and would not join in saving.
        if run.whole and not active():
            save(run)
        raise
    save(run)
    if run.settings.evaluate and run.data.labelled:
        hook.evaluation_started(run=run, what="kNN after training")
    finish(run)
    if is_first():
        write_end(run)
    hook.run_finished(run=run)


def lost(run: Run) -> str:
    """Return the message that another process ended this run."""
    last = "No checkpoint had been saved."
    if run.saved_at is not None:
        last = f"To continue from step {run.saved_at}: coview train --resume {run.path}"
    return (
        f"Another process of this run ended, or did not answer for {run.settings.timeout:g} s "
        f"(--timeout). Process {rank()} stopped after step {run.step}. {last}"
    )


def _epochs(run: Run) -> None:
    clock = Clock.of(run.settings.save_every, run.step)
    agreement = Agreement()
    spe = run.plan.steps_per_epoch
    _end_of_epoch(run)
    while run.step < run.last_step:
        epoch, done = divmod(run.step, spe)
        means: list[tuple[int, dict[str, float]]] = []
        metrics = Metrics()
        losses: list[Tensor] = []
        for batch in run.batches.epoch(epoch, done):
            # A signal waits until the step is logged and told, so that nothing of it is lost.
            with run.interrupts.held_back():
                run.whole = False
                loss = one_step(run, batch, metrics)
                run.whole = True
                losses.append(loss)
                at_end = run.step % spe == 0 or run.step == run.last_step
                due = clock.due(run.step)
                # Clocks differ between processes; the first process's clock decides.
                minute = due and clock.minutes and is_first()
                stop, agreed = agreement.reached(run.interrupts.received, minute)
                due = bool(agreed) if clock.minutes else due
                # Check the loss before saving: no checkpoint may hold diverged weights.
                if at_end or due or run.step % run.settings.log_every == 0:
                    means.append((len(losses), _log(run, metrics, losses)))
                    losses = []
                hook = run.method.manager.hook
                hook.step_finished(run=run, step=_position(run), loss=loss)
                if at_end:
                    run.owed = {"entries": len(run.metrics), "means": _joined(means)}
            if stop:
                raise Interrupted(stop)
            if run.step == run.last_step:
                break
            if due:
                save(run)
        _end_of_epoch(run)
    agreement.close()


def _end_of_epoch(run: Run) -> None:
    """Do what follows an epoch's last step; do nothing if it was done.

    A checkpoint that was saved before has what is owed, so a run that ended here does it when
    it is resumed.
    """
    if run.owed is None:
        return
    hook, epoch = run.method.manager.hook, (run.step - 1) // run.plan.steps_per_epoch
    hook.epoch_finished(run=run, epoch=epoch, metrics=run.owed["means"])
    whole = run.step % run.plan.steps_per_epoch == 0
    every = run.settings.evaluate_every
    if whole and every and (epoch + 1) % every == 0:
        measure_online(run)
        report_so_far(run)
    tenth = max(1, run.resolved.training.epochs // 10)
    with run.interrupts.held_back():
        run.owed = None
        if whole and (epoch + 1) % tenth == 0:
            save(run, f"epoch-{epoch + 1:04d}.pt")


def _joined(means: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Return each metric's mean over the windows (steps, means) that have it."""
    names = dict.fromkeys(name for _, window in means for name in window)
    having = {name: [(n, m[name]) for n, m in means if name in m] for name in names}
    return {
        name: sum(n * mean for n, mean in windows) / sum(n for n, _ in windows)
        for name, windows in having.items()
    }


def one_step(run: Run, batch: Batch, metrics: Metrics) -> Tensor:
    """Do one optimiser step; return its loss, on the device."""
    with run.compiling():
        return _whole_step(run, batch, metrics)


def _whole_step(run: Run, batch: Batch, metrics: Metrics) -> Tensor:
    method, optimizer = run.method, run.optimizer
    set_rate(optimizer, run.schedule.rate(run.peak, run.step))
    optimizer.zero_grad(set_to_none=True)
    parts = run.resolved.training.accumulate
    losses: list[Tensor] = []
    position = _position(run, metrics.add)
    set_weight_decay(optimizer, run.resolved.part("optimizer").settings, position)
    for micro in range(parts):
        step = attrs.evolve(position, micro=micro, generators={})
        # Gradients are averaged over processes once, at the last micro-batch.
        with nullcontext() if micro == parts - 1 else run.apart():
            loss = run.module(share(batch, micro, parts), step)
            loss = loss if parts == 1 else loss / parts
            run.scaler.scale(loss).backward()
        losses.append(loss.detach())
    run.scaler.unscale_(optimizer)
    method.gradients_ready(position)
    norm = gradient_norm(method.parameters())
    run.scaler.step(optimizer)
    run.scaler.update()
    method.update_target(position)
    run.step += 1
    total = losses[0] if parts == 1 else torch.stack(losses).sum()
    metrics.add("loss", total)
    # The scaler skips a step whose gradient overflowed; its norm is logged as 0.
    scaled = run.scaler.is_enabled()
    metrics.add("grad_norm", norm.nan_to_num(0.0, 0.0, 0.0) if scaled else norm)
    metrics.count(len(batch.indices))
    return total


def _position(run: Run, sink: Callable[[str, Tensor], None] | None = None) -> Step:
    step = Step(
        number=run.step,
        steps_per_epoch=run.plan.steps_per_epoch,
        total_steps=run.plan.total_steps,
        seed=run.settings.seed,
        device=run.device,
    )
    return attrs.evolve(step, sink=sink) if sink else step


def _log(run: Run, metrics: Metrics, losses: list[Tensor]) -> dict[str, float]:
    means = metrics.read()
    means["lr"] = run.schedule.rate(run.peak, run.step - 1)
    if run.scaler.is_enabled():
        means["loss_scale"] = run.scaler.get_scale()
    run.log(**means)
    if not math.isfinite(means["loss"]):
        raise diverged(run, losses, means["loss"])
    return means


def save(run: Run, name: str = "last.pt") -> None:
    """Write a checkpoint and tell the observers.

    Raises:
        CoviewError: the weights are not finite, or the disk is full.
    """
    refuse_diverged(run)
    path = run.path / "checkpoints" / name
    meet()
    if is_first():
        checkpoints.save(
            path,
            run.method,
            run.optimizer,
            run.scaler,
            run.step,
            run.identity,
            states(run.observers),
            run.owed,
        )
    else:
        run.method.state_dict()  # a component may gather parts from all processes here
    wait()
    run.saved_at = run.step
    run.method.manager.hook.checkpoint_saved(run=run, path=path)
