"""The momentum encoder."""

from __future__ import annotations

from contextlib import nullcontext

import attrs
import torch
from torch import Tensor, nn

from coview.components import EncoderComponent, Guard, declared
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.encoder import Encoder
from coview.plan import Plan
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.schedules import Schedule
from coview.settings import between, one_of, setting


class Momentum(nn.Module):
    """Keys from a slowly moving copy of the encoder (He et al. 2020, equation 2).

    The copy starts equal to the online encoder, has no predictor, takes no
    gradient, and moves after the optimiser's step. It stays in training mode, so
    its batch norms use their own batch. With shuffled batch norm (section 3.3) keys
    and their queries have different neighbours in a batch-norm group; this only
    matters with groups (``encoder.norm_groups``, or several processes).
    """

    by_view = True
    uses_encode_keys = True

    @attrs.frozen
    class Settings:
        """The paper's values."""

        decay: float | Schedule = setting(
            0.999, "share of each weight that is kept at each step", between(0, 1)
        )
        shuffle: bool = setting(
            False, "shuffle images before the keys' batch normalisation, and restore them after it"
        )
        buffers: str = setting(
            "own",
            "batch norm's running statistics: own, or copy those of the online network each step",
            one_of("own", "copy"),
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.encoder is None:
            raise RequestError("A momentum target needs a plan with the encoder to copy.")
        self.settings = settings
        self.network = plan.encoder.without_predictor().requires_grad_(False)
        for parameter in self.network.parameters():
            parameter.grad = None

    def guards(self) -> list[Guard]:
        """Return the safeguard that keys come from a moving average."""
        return [Guard("a target that is a moving average", True)]

    @hookimpl
    @torch.no_grad()
    def encode_targets(self, views: Views, encoded: Encoded, batch: Batch, step: Step) -> Targets:
        """Return the copy's keys (N, d), without gradient: of the key views, if slots are views."""
        keys_of = declared(self.network, EncoderComponent, "encode_keys")
        shuffled = declared(self.network, EncoderComponent, "shuffled")
        with shuffled(views, views.keys, step) if self.settings.shuffle else nullcontext():
            made: Targets = keys_of(views, encoded, batch, step)
        return made

    @hookimpl
    def update_target(self, encoder: Encoder, step: Step) -> None:
        """Update the copy: weights <- decay x weights + (1 - decay) x online weights."""
        online = dict(encoder.named_parameters())
        mine = dict(self.network.named_parameters())
        toward(list(mine.values()), [online[name] for name in mine], step.read(self.settings.decay))
        if self.settings.buffers == "copy":
            theirs = dict(encoder.named_buffers())
            for name, buffer in self.network.named_buffers():
                buffer.copy_(theirs[name])

    def backbone(self) -> nn.Module:
        """Return the copy's trunk, for recipes that evaluate the target."""
        return self.network.backbone()


def toward(weights: list[Tensor], goal: list[Tensor], decay: float | Tensor) -> None:
    """Move weights toward the goal in place: w <- decay w + (1 - decay) goal."""
    if isinstance(decay, Tensor):
        # A decay on the device (from a schedule) cannot be lerp's scalar argument.
        way = torch._foreach_sub(goal, weights)
        torch._foreach_mul_(way, 1 - decay)
        torch._foreach_add_(weights, way)
    else:
        torch._foreach_lerp_(weights, goal, 1 - decay)
