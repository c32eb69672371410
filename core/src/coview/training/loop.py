"""The training loop: steps, metrics, checkpoints."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext

import attrs
import torch
from torch import Tensor

from coview.errors import CoviewError, RequestError
from coview.records import Batch, Step
from coview.training import checkpoints
from coview.training.distributed import is_first, mean_over_processes, wait, world_size
from coview.training.interrupts import held_back
from coview.training.measure import finish, measure_baselines, measure_online
from coview.training.observers import states
from coview.training.optimizers import set_rate, set_weight_decay
from coview.training.run import Run, write_end


class Metrics:
    """Means of what steps log, kept on the device until they are read."""

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
        """Return the means since the last reading, over processes; this waits for the device."""
        local = torch.stack([torch.stack(v).float().mean() for v in self._values.values()])
        means = dict(zip(self._values, mean_over_processes(local).tolist(), strict=True))
        now = time.perf_counter()
        images = self._images * world_size()
        means["images_per_second"] = round(images / max(now - self._since, 1e-9), 1)
        self._values.clear()
        self._images, self._since = 0, now
        return means


@attrs.define
class Clock:
    """When the next checkpoint is due, in steps or minutes."""

    every: float
    minutes: bool
    last: float

    @classmethod
    def of(cls, text: str, step: int) -> Clock:
        """Read ``500`` or ``10m``.

        Raises:
            RequestError: it is neither.
        """
        minutes = text.endswith("m")
        try:
            every = float(text[:-1]) if minutes else int(text)
        except ValueError:
            every = 0
        if every <= 0:
            raise RequestError(f"--save-every takes steps (500) or minutes (10m), not {text!r}.")
        return cls(every, minutes, time.monotonic() / 60 if minutes else step)

    def due(self, step: int) -> bool:
        """Whether it is time; the next one is then counted from here."""
        now = time.monotonic() / 60 if self.minutes else step
        if now - self.last < self.every:
            return False
        self.last = now
        return True


def fit(run: Run) -> None:
    """Train until the run's last step; save, export and evaluate.

    Ctrl-C saves a checkpoint, unless a step was cut in the middle, and raises
    ``KeyboardInterrupt`` again.
    """
    run.method.train()
    hook = run.method.manager.hook
    try:
        if run.options.evaluate and run.step == 0:
            measure_baselines(run)
        hook.run_started(run=run)
        _epochs(run)
    except KeyboardInterrupt:
        if run.whole:
            save(run)
        raise
    save(run)
    finish(run)
    if is_first():
        write_end(run)
    hook.run_finished(run=run)


def _epochs(run: Run) -> None:
    clock = Clock.of(run.options.save_every, run.step)
    spe = run.plan.steps_per_epoch
    while run.step < run.last_step:
        epoch, done = divmod(run.step, spe)
        means: list[tuple[int, dict[str, float]]] = []
        metrics = Metrics()
        logged_at = run.step
        for batch in run.batches.epoch(epoch, done):
            with held_back():
                run.whole = False
                loss = _step(run, batch, metrics)
                run.whole = True
            at_end = run.step % spe == 0 or run.step == run.last_step
            due = clock.due(run.step)
            # What is saved is looked at first: a checkpoint holds no diverged weights.
            if at_end or due or run.step % run.options.log_every == 0:
                means.append((run.step - logged_at, _log(run, metrics)))
                logged_at = run.step
            run.method.manager.hook.step_finished(run=run, step=_position(run), loss=loss)
            if run.step == run.last_step:
                break
            if due:
                save(run)
        _end_of_epoch(run, epoch, means)


def _end_of_epoch(run: Run, epoch: int, means: list[tuple[int, dict[str, float]]]) -> None:
    steps = sum(count for count, _ in means)
    names = means[0][1] if means else {}
    joined = {name: sum(n * m[name] for n, m in means) / steps for name in names}
    run.method.manager.hook.epoch_finished(run=run, epoch=epoch, metrics=joined)
    whole = run.step % run.plan.steps_per_epoch == 0
    every = run.options.evaluate_every
    if whole and every and (epoch + 1) % every == 0:
        measure_online(run)
    tenth = max(1, run.resolved.training.epochs // 10)
    if whole and (epoch + 1) % tenth == 0:
        save(run, f"epoch-{epoch + 1:04d}.pt")


def _step(run: Run, batch: Batch, metrics: Metrics) -> Tensor:
    """Do one optimiser step; return its loss, on the device."""
    method, optimizer = run.method, run.optimizer
    set_rate(optimizer, run.schedule.rate(run.peak, run.step))
    optimizer.zero_grad(set_to_none=True)
    parts = run.resolved.training.accumulate
    total = torch.zeros((), device=run.options.device)
    position = _position(run, metrics.add)
    set_weight_decay(optimizer, run.resolved.part("optimizer").settings, position)
    pieces = zip(batch.images.chunk(parts), batch.indices.chunk(parts), strict=True)
    for micro, (images, indices) in enumerate(pieces):
        step = attrs.evolve(position, micro=micro, generators={})
        # Gradients are averaged over processes once, with the last micro-batch.
        with nullcontext() if micro == parts - 1 else run.apart():
            loss = run.module(Batch(images, indices), step) / parts
            run.scaler.scale(loss).backward()
        total += loss.detach()
    run.scaler.unscale_(optimizer)
    method.gradients_ready(position)
    run.scaler.step(optimizer)
    run.scaler.update()
    method.update_target(position)
    run.step += 1
    metrics.add("loss", total)
    metrics.count(len(batch.indices))
    return total


def _position(run: Run, sink: Callable[[str, Tensor], None] | None = None) -> Step:
    step = Step(
        number=run.step,
        steps_per_epoch=run.plan.steps_per_epoch,
        total_steps=run.plan.total_steps,
        seed=run.options.seed,
        device=run.options.device,
    )
    return attrs.evolve(step, sink=sink) if sink else step


def _log(run: Run, metrics: Metrics) -> dict[str, float]:
    means = metrics.read()
    rate = run.schedule.rate(run.peak, run.step - 1)
    run.log(**means, lr=rate)
    if not math.isfinite(means["loss"]):
        raise CoviewError(
            f"The loss is {means['loss']} within the last steps up to {run.step}: training "
            f"diverged. The last good checkpoint is in {run.path / 'checkpoints'}; try a lower "
            "learning rate."
        )
    return {**means, "lr": rate}


def save(run: Run, name: str = "last.pt") -> None:
    """Write a checkpoint and tell the observers."""
    path = run.path / "checkpoints" / name
    if is_first():
        checkpoints.save(
            path,
            run.method,
            run.optimizer,
            run.scaler,
            run.step,
            run.identity,
            states(run.observers),
        )
    wait()
    run.method.manager.hook.checkpoint_saved(run=run, path=path)
