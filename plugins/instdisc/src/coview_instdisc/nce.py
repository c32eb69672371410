"""Noise-contrastive estimation with a constant normaliser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from coview.distributed import mean_over_processes
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.losses.similarity import candidates, reduced
from coview.plan import Plan
from coview.records import Encoded, Negatives, Step, Targets
from coview.schedules import Schedule
from coview.settings import gt, one_of, setting


class NCE(nn.Module):
    """Tell the positive from m noise samples (Wu et al. 2018, equations 4 to 8).

    With similarity s, n training images and noise density 1/n, the posterior
    that a candidate is data is h = sigmoid(s / temperature - log Z - log(m / n)),
    and the loss is -log h(positive) - sum over the noise of log(1 - h), averaged
    over queries. Written with softplus it needs no epsilon (the released code
    adds 1e-7 to a denominator).

    Z is n times the mean of exp(s / temperature) over the first batch, positives
    included, and then kept: one Z for each positive pair of views.

    The paper's proximal regularisation is left out, as in the released code.

    Attributes:
        normalizer: (pairs,) the constants Z; 0 before the first batch.
    """

    needs = {"negatives": "it tells each positive from noise samples"}
    same_space = True
    normalizer: Tensor

    @attrs.frozen
    class Settings:
        """The paper's values."""

        temperature: float | Schedule = setting(0.07, "divisor of the similarities", gt(0))
        reduction: str = setting("sum", "reduction over pairs of views", one_of("sum", "mean"))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.dataset_size < 1:
            raise RequestError(
                "NCE needs a plan with dataset_size n, because its noise density is 1 / n."
            )
        self.settings = settings
        self.images = plan.dataset_size
        pairs = len(plan.layout.pairs) if plan.layout else 1
        self.register_buffer("normalizer", torch.zeros(pairs, dtype=torch.float64))

    @hookimpl
    def compute_loss(
        self, encoded: Encoded, targets: Targets, negatives: Sequence[Negatives], step: Step
    ) -> Tensor:
        """Return the mean over queries; gradient reaches the queries, but not Z."""
        temperature = step.read(self.settings.temperature)
        pairs = candidates(encoded, targets, negatives, cosine=True)
        terms = [
            self._pair(number, positive / temperature, torch.cat(others, dim=-1) / temperature)
            for number, (positive, others) in enumerate(pairs)
        ]
        return reduced(terms, self.settings.reduction)

    def _pair(self, number: int, positive: Tensor, noise: Tensor) -> Tensor:
        log_z = self._log_normalizer(number, positive, noise)
        shift = log_z + math.log(noise.shape[-1] / self.images)
        # softplus(-inf) is 0, so a masked candidate adds nothing.
        return (softplus(shift - positive) + softplus(noise - shift).sum(dim=-1)).mean()

    @torch.no_grad()
    def _log_normalizer(self, number: int, positive: Tensor, noise: Tensor) -> Tensor:
        """Return log Z, estimated on the first call and constant afterwards."""
        total = positive.double().exp().sum() + _sum_of_exponentials(noise)
        count = positive.numel() + noise.numel()
        estimate = mean_over_processes(total / count) * self.images
        known = self.normalizer[number]
        # torch.where instead of a branch, to avoid a synchronisation with the device.
        self.normalizer[number] = torch.where(known > 0, known, estimate)
        return self.normalizer[number].log().to(positive.dtype)


def _sum_of_exponentials(logits: Tensor) -> Tensor:
    """Return the sum of exp over (N, K): over rows in float64, within rows in the logits' type."""
    lowest = torch.finfo(logits.dtype).min  # keeps the largest finite, even if all are -inf
    largest = logits.amax(dim=-1, keepdim=True).clamp_min(lowest)
    rows = (logits - largest).exp_().sum(dim=-1, keepdim=True)
    return (rows.double() * largest.double().exp()).sum()
