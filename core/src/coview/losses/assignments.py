"""Metrics of losses that assign images to outputs, named the same for all such losses.

A loss that turns rows into probabilities over K outputs (prototypes, or classes
that it makes up) calls :func:`log_assignments` in ``compute_loss``. Such a method
can fail in two ways that its loss does not show: one output takes every row, or
every row is spread evenly over all outputs. In both cases the assignment says
nothing about the image; ``assignment_information`` measures how much it says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from coview.records import Step

INFORMATION = "assignment_information"
"""Name of the metric that says how well assignments tell images apart."""


@torch.no_grad()
def log_assignments(
    step: Step,
    targets: Mapping[int, Tensor],
    cross_entropies: Iterable[tuple[int, Tensor]] = (),
) -> None:
    """Log how informative the assignments are, without waiting for the device.

    Logged as means over slots and this process's rows:

    - ``assignment_entropy``: entropy of a row, divided by ln K: 0 for one output,
      1 for all evenly;
    - ``assignment_mean_entropy``: entropy of the mean row, divided by ln K: 0 for
      one output for all rows, 1 for all outputs used evenly;
    - ``assignment_information``: the second minus the first in nats, divided by
      ln min(N, K). This is the mutual information of row and output as a share
      of the most that assigning N rows to K outputs can give; 0 in both ways to
      fail;
    - ``assignment_divergence``: KL(target, student) in nats, mean over pairs.

    Args:
        step: the step that logs them.
        targets: by key slot, probabilities (N, K) whose rows sum to one.
        cross_entropies: for each pair, the key slot and the mean over rows of the
            cross-entropy of its target and the student, 0-dim.
    """
    parts = {slot: probabilities.detach() for slot, probabilities in targets.items()}
    rows, outputs = next(iter(parts.values())).shape
    each = {slot: entropy(part).mean() for slot, part in parts.items()}
    row = torch.stack(list(each.values())).mean()
    together = torch.stack([entropy(part.mean(dim=0)) for part in parts.values()]).mean()
    step.log("assignment_entropy", row / math.log(outputs))
    step.log("assignment_mean_entropy", together / math.log(outputs))
    step.log(INFORMATION, (together - row) / math.log(max(2, min(rows, outputs))))
    divergences = [crossed.detach() - each[slot] for slot, crossed in cross_entropies]
    if divergences:
        step.log("assignment_divergence", torch.stack(divergences).mean())


def entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy in nats of distributions along the last dimension, (..., K) -> (...)."""
    each: Tensor = torch.special.xlogy(probabilities, probabilities)
    return -each.sum(dim=-1)
