"""The self-distillation of hidden patches."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from coview.distributed import mean_over_processes
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Plan
from coview.records import Encoded, Step, Targets, Views
from coview.schedules import Schedule
from coview.settings import between, gt, setting
from coview_ibot.mask import MASK


class TokenDistillation(nn.Module):
    """Cross-entropy of teacher and student at hidden patches (Zhou et al. 2022, equation 2).

    The teacher sees the patches that are hidden from the student. Its logits are centred and
    sharpened as in DINO, with a centre of their own, the running mean over all patches. An
    image's loss is the mean over its hidden patches, 0 without any; the loss is the mean over
    images and views. Slots of other kinds than tokens are left to other losses.

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
            0.07, "divisor of the teacher's logits", gt(0)
        )
        centre_momentum: float = setting(
            0.9, "share of the centre that is kept at each step", between(0, 1)
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self._slots = [slot for slot, kind in plan.slots.items() if kind == "token"]
        if not self._slots:
            raise RequestError(
                "loss 'token-distillation' needs an encoder that compares tokens: --use "
                "encoder=masked-tokens."
            )
        self.settings = settings
        self.register_buffer("centre", torch.zeros(plan.dim))

    @hookimpl
    def compute_loss(self, views: Views, encoded: Encoded, targets: Targets, step: Step) -> Tensor:
        """Return the loss; the keys are constants, and gradient reaches the queries."""
        student = step.read(self.settings.student_temperature)
        teacher = step.read(self.settings.teacher_temperature)
        terms = []
        for query, key in encoded.pairs:
            if key in self._slots:
                hidden = views.about[MASK][query - len(views.crops)].flatten(1)
                given = self._given(targets.keys[key], teacher)
                logits = encoded.queries[query] / student
                each = logits.logsumexp(dim=-1) - (given * logits).sum(dim=-1)
                lost = (each.view_as(hidden) * hidden).sum(dim=1) / hidden.sum(dim=1).clamp_min(1)
                terms.append(lost.mean())
        return torch.stack(terms).mean()

    @hookimpl
    def update_target(self, targets: Targets) -> None:
        """Move the centre towards the mean of the teacher's raw logits of all processes."""
        rows = torch.cat([targets.keys[slot] for slot in self._slots])
        mean = mean_over_processes(rows.mean(dim=0)).to(self.centre.dtype)
        self.centre.lerp_(mean, 1 - self.settings.centre_momentum)

    @torch.no_grad()
    def _given(self, rows: Tensor, temperature: float | Tensor) -> Tensor:
        """Return the teacher's probabilities (N, K)."""
        return ((rows - self.centre.to(rows.dtype)) / temperature).softmax(dim=-1)
