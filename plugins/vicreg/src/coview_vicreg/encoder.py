"""A backbone and a wide head."""

from __future__ import annotations

import attrs

from coview.components import ParameterGroup
from coview.nn.encoder import Encoder, EncoderSettings
from coview.nn.heads import mlp
from coview.plan import Plan
from coview.settings import gt, setting


class Expander(Encoder):
    """A backbone, then an MLP wider than its features (Bardes et al. 2022, section 4.2).

    Linear layers with batch norm and ReLU between them; the last one has neither, and no
    bias, which both losses ignore. Each view is batch-normalised alone.
    """

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's values."""

        dim: int = setting(8192, "width of the embedding", gt(0))
        hidden: int = setting(8192, "width between layers", gt(0))
        layers: int = setting(3, "number of linear layers", gt(0))
        hidden_bias: bool = setting(True, "give the layers before the last a bias")
        plain_rate: float = setting(
            1.0,
            "factor of the learning rate of biases and normalisation layers, in the backbone too",
            gt(0),
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        self.plain_rate = settings.plain_rate
        self.projector = mlp(
            self.features,
            settings.hidden,
            settings.dim,
            settings.layers,
            hidden_bias=settings.hidden_bias,
            output_bias=False,
        )

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Return the rate of biases and normalisation layers: tensors of one dimension."""
        if self.plain_rate == 1.0:
            return {}
        plain = [name for name, parameter in self.named_parameters() if parameter.ndim <= 1]
        return dict.fromkeys(plain, ParameterGroup(rate_scale=self.plain_rate))
