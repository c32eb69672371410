"""What a loss that makes assignments keeps as metrics, by names that are the same for all.

A loss that turns rows into probabilities over K outputs (prototypes, classes it
makes up) calls :func:`log_assignments` in ``compute_loss``. It can fail in two
ways that the loss itself does not show: one output takes every row, or every
row is spread evenly over all outputs. Either way the assignment says nothing of
the image, which is one number, ``assignment_information``.
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
"""The metric of whether assignments tell images apart."""


@torch.no_grad()
def log_assignments(
    step: Step,
    targets: Mapping[int, Tensor],
    cross_entropies: Iterable[tuple[int, Tensor]] = (),
) -> None:
    """Keep what tells whether assignments are any; nothing waits for the device.

    Logged, as means over slots and this process's rows:

    - ``assignment_entropy``: of a row, over ln K: 0 one output, 1 all evenly;
    - ``assignment_mean_entropy``: of the mean row, over ln K: 0 one output for
      all rows, 1 all outputs used evenly;
    - ``assignment_information``: the second less the first in nats, over
      ln min(N, K): of what assigning N rows to K outputs can say about which row
      it is, the share that it does say (their mutual information); 0 in both
      ways to fail;
    - ``assignment_divergence``: KL(target, student) in nats, over pairs.

    Args:
        step: where they are kept.
        targets: by key slot, probabilities (N, K) whose rows sum to one.
        cross_entropies: for each pair the key slot, and the mean over rows of
            the cross-entropy of its target and the student, 0-dim.
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
