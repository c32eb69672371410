"""A backbone and one linear layer."""

from __future__ import annotations

import attrs
from torch import nn

from coview.nn.encoder import Encoder, EncoderSettings
from coview.plan import Plan
from coview.settings import gt, setting


class LinearEncoder(Encoder):
    """A backbone, then one linear layer with bias (Wu et al. 2018, section 3; MoCo v1's too).

    The paper's scaling to unit length is left to the losses and the bank.
    """

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's value."""

        dim: int = setting(128, "width of the embedding", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        self.projector = nn.Linear(self.features, settings.dim)
