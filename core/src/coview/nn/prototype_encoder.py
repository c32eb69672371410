"""An encoder whose queries are logits over prototypes, with the treatment of its gradients."""

from __future__ import annotations

from typing import Any

import torch

from coview.hookspecs import hookimpl
from coview.nn.encoder import Encoder
from coview.nn.heads import PrototypeHead
from coview.nn.positions import as_released
from coview.plan import Plan
from coview.records import Step


class PrototypeEncoder(Encoder):
    """A backbone with a :class:`coview.nn.heads.PrototypeHead` (Caron et al. 2021, section 3.1).

    Before the optimiser's step, every gradient tensor is clipped by its own norm, and the
    head's last layer is not trained in the first epochs. A vision transformer's positions are
    interpolated as in the code released with that paper (:mod:`coview.nn.positions`).
    """

    projector: PrototypeHead

    def __init__(self, settings: Any, plan: Plan) -> None:
        """Build the head.

        Args:
            settings: of the encoder; beside those of :class:`coview.nn.encoder.EncoderSettings`
                they have ``dim``, ``hidden``, ``bottleneck``, ``layers``, ``norm``,
                ``norm_last_layer``, ``freeze_last_epochs`` and ``clip``.
            plan: the run's plan.
        """
        super().__init__(settings, plan, settings.dim)
        as_released(self.trunk)
        self.projector = PrototypeHead(
            self.features,
            settings.hidden,
            settings.bottleneck,
            settings.dim,
            settings.layers,
            batch_norm=settings.norm == "batch",
            fixed_length=settings.norm_last_layer,
        )
        self.freeze_last_epochs = settings.freeze_last_epochs
        self.clip = settings.clip

    @hookimpl
    def gradients_ready(self, step: Step) -> None:
        """Clip each gradient tensor, then remove the last layer's gradient while it is frozen.

        It is removed, not set to zero, as an optimiser would still decay the weights.
        """
        if self.clip:
            clip_each(self, self.clip)
        if step.number < self.freeze_last_epochs * step.steps_per_epoch:
            for parameter in self.projector.last.parameters():
                parameter.grad = None


def clip_each(module: torch.nn.Module, longest: float) -> None:
    """Clip each parameter's gradient to a norm of at most ``longest``, in place."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not gradients:
        return
    lengths = torch.stack(list(torch._foreach_norm(gradients)))
    factors = (longest / (lengths + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
