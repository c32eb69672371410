"""A backbone, a projection head and prototypes."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from coview.hookspecs import hookimpl
from coview.losses.similarity import unit
from coview.nn.encoder import Encoder, EncoderSettings, norm_views
from coview.nn.heads import NORMS, mlp
from coview.plan import Plan
from coview.records import Step
from coview.settings import ge, gt, one_of, setting


class Prototypes(nn.Module):
    """Cosine similarities with K learned prototypes, (N, d) -> (N, K).

    Attributes:
        weight: (K, d), rows of unit length; gradient does not pass through
            their normalisation (released code).
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, count, bias=False).weight
        self.renormalize()

    def forward(self, rows: Tensor) -> Tensor:
        """Return the scores of rows of any length (norm)."""
        return linear(unit(rows), self.weight)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Rescale every prototype to unit length, in place."""
        self.weight.copy_(unit(self.weight))


class PrototypeEncoder(Encoder):
    """An encoder of embeddings z, whose queries are their scores (Caron et al. 2020, section 3.1).

    The prototypes take the place of other methods' predictor: a momentum target has
    none, and a loss scores its inputs (targets, a queue) by the current prototypes
    through ``predict``. They are scaled to unit length when built and after every
    step (as in the paper; the released code does it before the next step, which is
    the same), and are not trained in the first steps.
    """

    queries_are = "scores"
    predictor: Prototypes

    @attrs.frozen
    class Settings(EncoderSettings):
        """The released code's values."""

        dim: int = setting(128, "width of the embedding", gt(0))
        hidden: int | None = setting(
            2048, "width between layers; none: the backbone's width", gt(0)
        )
        layers: int = setting(2, "linear layers of the head", gt(0))
        norm: str = setting("batch", "normalisation between layers", one_of(*NORMS))
        prototypes: int = setting(3000, "number of prototypes", gt(1))
        freeze_steps: int = setting(
            313, "number of first steps in which prototypes are not trained", ge(0)
        )
        freeze_epochs: float = setting(
            0.0, "number of first epochs in which prototypes are not trained", ge(0)
        )
        norm_views: str = norm_views("joint")

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        self.projector = mlp(
            self.features,
            settings.hidden or self.features,
            settings.dim,
            settings.layers,
            hidden_norm=settings.norm,
        )
        self.predictor = Prototypes(settings.dim, settings.prototypes)
        self.freeze_steps = settings.freeze_steps
        self.freeze_epochs = settings.freeze_epochs

    @hookimpl
    def gradients_ready(self, step: Step) -> None:
        """Remove the prototypes' gradient while they are frozen.

        It is removed, not set to zero, as an optimiser would still decay the weights.
        """
        frozen = max(self.freeze_steps, self.freeze_epochs * step.steps_per_epoch)
        if step.number < frozen:
            self.predictor.weight.grad = None

    @hookimpl
    def update_target(self) -> None:
        """Rescale the prototypes to unit length."""
        self.predictor.renormalize()
