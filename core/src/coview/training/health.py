"""Detect and report non-finite values.

Nothing here waits for the device while all is well: losses are checked when metrics
are read anyway, and weights when a checkpoint is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from coview.distributed import is_first, largest
from coview.errors import CoviewError
from coview.files import write_json

if TYPE_CHECKING:
    from coview.training.run import Run

REPORT = "nonfinite.json"
NEVER = 2**40
"""Later than any step."""


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients as one vector, 0-dim, on the device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def magnitudes(tensors: Sequence[Tensor]) -> Tensor:
    """Return the largest magnitude of each tensor, (n,); NaN for one that holds a NaN."""
    if not tensors:
        return torch.zeros(0)
    norms = torch._foreach_norm([t.detach() for t in tensors], float("inf"))
    return torch.stack([norm.float() for norm in norms])


def not_finite(module: nn.Module) -> list[str]:
    """Return the names of parameters and buffers that are not finite, waiting for the device.

    A buffer may hold infinities on purpose (a mask), so in buffers only NaN counts.
    """
    parameters = [(n, p) for n, p in module.named_parameters() if _counts(p)]
    buffers = [(n, b) for n, b in module.named_buffers() if _counts(b)]
    bad = (~magnitudes([p for _, p in parameters]).isfinite()).tolist()
    bad += magnitudes([b for _, b in buffers]).isnan().tolist()
    return [name for (name, _), wrong in zip(parameters + buffers, bad, strict=True) if wrong]


def _counts(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def refuse_diverged(run: Run) -> None:
    """Refuse to save diverged weights.

    Raises:
        CoviewError: some weights are not finite; the message names the first.
    """
    names = not_finite(run.method.components)
    if names:
        raise CoviewError(
            f"Training diverged: after step {run.step}, {names[0]} is not finite (tensors "
            f"affected: {len(names)}). No checkpoint was saved. {advice(run)}"
        )


def diverged(run: Run, losses: Sequence[Tensor], mean: float) -> CoviewError:
    """Return the error for a loss that is not finite, and write which batch gave it first.

    Args:
        run: the run, after the last of these steps.
        losses: losses of the last steps, on this process.
        mean: the mean loss in the metrics.
    """
    bad = (~torch.stack(list(losses)).isfinite()).tolist()
    own = run.step - len(bad) + bad.index(True) + 1 if True in bad else NEVER
    step = min(-largest(-own), run.step)
    if is_first():
        write_report(run, step, loss=str(mean))
    return CoviewError(
        f"Training diverged: the loss of step {step} is not finite. The images of its batch are "
        f"listed in {run.path / REPORT}. {advice(run)}"
    )


def write_report(run: Run, step: int, **facts: Any) -> None:
    """Write ``nonfinite.json``: the step (from 1), its batch, and further facts."""
    epoch, position = divmod(step - 1, run.plan.steps_per_epoch)
    indices = run.batches.indices(epoch, position).tolist()
    names = run.data.train.names
    report = {"step": step, "epoch": epoch, "indices": indices, **facts}
    if names is not None:
        report["names"] = [names[index] for index in indices]
    write_json(run.path / REPORT, report)


def advice(run: Run, observed: bool = False) -> str:
    """Say where the last good checkpoint is and what to do.

    Args:
        run: the run that diverged.
        observed: the first value that was not finite is already known.
    """
    path = run.path / "checkpoints" / "last.pt"
    again = "train again with --observe anomaly"
    where = "No checkpoint had been saved yet."
    if run.saved_at is not None:
        where = f"The last good checkpoint is {path} (step {run.saved_at})."
        again = f"coview train --resume {run.path} --observe anomaly"
    if observed:
        return f"{where} Try a lower learning rate."
    return f"{where} Try a lower learning rate. To find the first non-finite value: {again}."
