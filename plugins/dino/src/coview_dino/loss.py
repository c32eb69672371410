"""The self-distillation loss."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from coview.components import Guard
from coview.distributed import mean_over_processes
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.assignments import log_assignments
from coview.losses.similarity import reduced, soft_cross_entropies
from coview.plan import Plan
from coview.records import Encoded, Step, Targets
from coview.schedules import Schedule
from coview.settings import between, gt, one_of, setting


class SelfDistillation(nn.Module):
    """Cross-entropy of the teacher's and the student's softmax (Caron et al. 2021, section 3.1).

    The teacher's logits are centred (their running mean is subtracted, which
    keeps one output from dominating) and sharpened (divided by a low
    temperature, which keeps them from becoming uniform). After each use the centre
    moves towards the mean of the raw logits of all processes. Slots of another kind than
    images (tokens, say) are left to other losses.

    Attributes:
        centre: (K,), zero at the start.
    """

    ignores = ("negatives",)
    same_space = True
    constant_keys = True
    centre: Tensor

    @attrs.frozen
    class Settings:
        """The paper's values."""

        student_temperature: float | Schedule = setting(
            0.1, "divisor of the student's logits", gt(0)
        )
        teacher_temperature: float | Schedule = setting(
            0.04, "divisor of the teacher's logits", gt(0)
        )
        centre_momentum: float = setting(
            0.9, "share of the centre that is kept at each step", between(0, 1)
        )
        centring: bool = setting(True, "subtract the centre from the teacher's logits")
        reduction: str = setting("mean", "reduction over pairs of views", one_of("mean", "sum"))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.dim < 1:
            raise RequestError("Self-distillation needs a plan with dim (the number of outputs).")
        self.settings = settings
        self._others = {slot for slot, kind in plan.slots.items() if kind != "image"}
        self.register_buffer("centre", torch.zeros(plan.dim))

    def guards(self) -> list[Guard]:
        """Return the safeguards: centring (keeps one output from dominating) and sharpening."""
        warmest, coolest = self.settings.teacher_temperature, self.settings.student_temperature
        if isinstance(warmest, Schedule):
            warmest = max(warmest.start, warmest.end)
        if isinstance(coolest, Schedule):
            coolest = min(coolest.start, coolest.end)
        how = "--set loss.teacher_temperature=0.04"
        return [
            Guard("centring", self.settings.centring, "--set loss.centring=true"),
            Guard("sharpening (a teacher cooler than the student)", warmest < coolest, how),
        ]

    @hookimpl
    def compute_loss(self, encoded: Encoded, targets: Targets, step: Step) -> Tensor:
        """Return the loss; the keys are constants, and gradient reaches the queries."""
        student = step.read(self.settings.student_temperature)
        teacher = step.read(self.settings.teacher_temperature)
        pairs = tuple(pair for pair in encoded.pairs if pair[1] not in self._others)
        given = {slot: self._given(rows, teacher) for slot, rows in self._keys(targets).items()}
        terms = soft_cross_entropies(encoded.queries, given, pairs, student)
        keys = (key for _, key in pairs)
        log_assignments(step, given, zip(keys, terms, strict=True))
        return reduced(terms, self.settings.reduction)

    @hookimpl
    def update_target(self, targets: Targets) -> None:
        """Move the centre towards the mean of the teacher's raw logits of all processes."""
        rows = torch.cat(list(self._keys(targets).values()))
        mean = mean_over_processes(rows.mean(dim=0)).to(self.centre.dtype)
        keep = self.settings.centre_momentum
        self.centre.mul_(keep).add_(mean, alpha=1 - keep)

    def _keys(self, targets: Targets) -> dict[int, Tensor]:
        """Return the keys of whole images."""
        return {s: rows for s, rows in targets.keys.items() if s not in self._others}

    @torch.no_grad()
    def _given(self, rows: Tensor, temperature: float | Tensor) -> Tensor:
        """Return the teacher's probabilities (N, K)."""
        centred = rows - self.centre.to(rows.dtype) if self.settings.centring else rows
        return (centred / temperature).softmax(dim=-1)
