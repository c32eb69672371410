"""A backbone, a projector and a predictor."""

from __future__ import annotations

import attrs
from torch import nn

from coview.components import Guard, ParameterGroup
from coview.nn.encoder import Encoder, EncoderSettings
from coview.nn.heads import NORMS, OUTPUT_NORMS, mlp
from coview.plan import Plan
from coview.settings import gt, one_of, setting


class PredictorEncoder(Encoder):
    """A backbone with a projector and a predictor of one form (Grill et al. 2020, section 3.3).

    Each is an MLP: linear with bias, batch norm, ReLU, linear without bias (released
    code), and no batch norm on the output. Each view is batch-normalised alone. Only
    the online network predicts: a target that copies the encoder has no predictor.
    """

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's values."""

        dim: int = setting(256, "width of projection and prediction", gt(0))
        hidden: int | None = setting(
            4096, "width between the projector's layers; none: the backbone's width", gt(0)
        )
        layers: int = setting(2, "linear layers of the projector", gt(0))
        hidden_bias: bool = setting(True, "give the layers before the last a bias")
        norm: str = setting("batch", "normalisation between layers", one_of(*NORMS))
        output_norm: str = setting("none", "normalisation of the projection", one_of(*OUTPUT_NORMS))
        output_bias: bool = setting(False, "give the projector's last layer a bias")
        predictor: bool = setting(True, "use a predictor")
        predictor_trained: bool = setting(
            True, "train the predictor; false: it stays as it was drawn (SimSiam's table 1, b)"
        )
        predictor_hidden: int = setting(4096, "width between the predictor's layers", gt(0))
        predictor_output_bias: bool = setting(False, "give the predictor's last layer a bias")
        predictor_output_norm: str = setting(
            "none", "normalisation of the prediction", one_of(*OUTPUT_NORMS)
        )
        standardized: bool = setting(
            False, "standardise the weights of linear layers (use with norm = group)"
        )
        predictor_fixed_rate: bool = setting(
            False, "keep the predictor at the peak learning rate throughout (SimSiam)"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        self.predictor_fixed_rate = settings.predictor_fixed_rate
        self.projector = mlp(
            self.features,
            settings.hidden or self.features,
            settings.dim,
            settings.layers,
            hidden_norm=settings.norm,
            output_norm=settings.output_norm,
            hidden_bias=settings.hidden_bias,
            output_bias=settings.output_bias,
            standardized=settings.standardized,
        )
        if settings.predictor:
            self.predictor = mlp(
                settings.dim,
                settings.predictor_hidden,
                settings.dim,
                hidden_norm=settings.norm,
                hidden_bias=settings.hidden_bias,
                output_norm=settings.predictor_output_norm,
                output_bias=settings.predictor_output_bias,
                standardized=settings.standardized,
            ).requires_grad_(settings.predictor_trained)

    def guards(self) -> list[Guard]:
        """Return the safeguards: the predictor, and batch norm in the heads."""
        heads = [head for head in (self.projector, self.predictor) if head is not None]
        modules = [module for head in heads for module in head.modules()]
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)
        return [
            Guard("a predictor", self.predictor is not None, "--set encoder.predictor=true"),
            Guard("batch normalisation in the heads", normed, "--set encoder.norm=batch"),
        ]

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Return the predictor's own learning rate, if it has one."""
        if self.predictor is None or not self.predictor_fixed_rate:
            return {}
        return {"predictor.*": ParameterGroup(fixed_rate=True)}
