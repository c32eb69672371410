"""A backbone and a non-linear projection head."""

from __future__ import annotations

import attrs
from torch import nn

from coview.nn.encoder import Encoder, EncoderSettings, norm_views
from coview.nn.heads import NORMS, OUTPUT_NORMS, mlp
from coview.plan import Plan
from coview.settings import ge, gt, one_of, setting


class ProjectionEncoder(Encoder):
    """A backbone, then an MLP that is discarded after training (Chen et al. 2020, section 2.1).

    The defaults are the first released code's: two layers without biases, their
    weights from a normal distribution of standard deviation 0.01, batch norm after
    both (after the last one without a shift), and batch norm over both views
    together. (The paper's text has no batch norm in the head.)
    """

    @attrs.frozen
    class Settings(EncoderSettings):
        """The released code's values."""

        dim: int = setting(128, "width of the projection", gt(0))
        hidden: int | None = setting(
            None, "width between layers; none: the backbone's width", gt(0)
        )
        layers: int = setting(
            2, "number of linear layers; 0: no head, so that features are compared", ge(0)
        )
        norm: str = setting("batch", "normalisation between layers", one_of(*NORMS))
        output_norm: str = setting(
            "batch-no-shift", "normalisation of the projection", one_of(*OUTPUT_NORMS)
        )
        bias: bool = setting(False, "give linear layers a bias")
        init_std: float | None = setting(
            0.01, "standard deviation of the layers' initial weights; none: torch's default", gt(0)
        )
        norm_views: str = norm_views("joint")

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        if settings.layers == 0:
            # The ablation of section 4.2: the features are the projection.
            self.projector, self.dim = nn.Identity(), self.features
            return
        self.projector = mlp(
            self.features,
            settings.hidden or self.features,
            settings.dim,
            settings.layers,
            hidden_norm=settings.norm,
            output_norm=settings.output_norm,
            hidden_bias=settings.bias,
            output_bias=settings.bias,
        )
        if settings.init_std is not None:
            for layer in self.projector.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=settings.init_std)
