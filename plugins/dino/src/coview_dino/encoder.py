"""A backbone with DINO's head and DINO's treatment of gradients."""

from __future__ import annotations

import attrs

from coview.nn.encoder import EncoderSettings, norm_views
from coview.nn.prototype_encoder import PrototypeEncoder
from coview.settings import ge, gt, one_of, setting


class DINOEncoder(PrototypeEncoder):
    """An encoder whose queries are the head's K logits (Caron et al. 2021, section 3.1).

    There is no predictor, so a momentum target is a copy of the whole encoder,
    including the last layer. Before the optimiser's step, every gradient tensor is
    clipped by its own norm, and the last layer is not trained in the first epoch.
    Views of one resolution pass through the trunk together, and the head sees all.
    """

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's values."""

        dim: int = setting(65536, "number of outputs K", gt(1))
        hidden: int = setting(2048, "width between layers", gt(0))
        bottleneck: int = setting(256, "width before the last layer", gt(0))
        layers: int = setting(3, "linear layers before the last one", ge(1))
        norm: str = setting("none", "normalisation between layers", one_of("none", "batch"))
        norm_last_layer: bool = setting(
            True, "keep the last layer's rows at length 1 instead of learning it (not for ViT-S)"
        )
        freeze_last_epochs: float = setting(
            1.0, "number of first epochs in which the last layer is not trained", ge(0)
        )
        clip: float = setting(3.0, "largest gradient norm of one tensor; 0: no clipping", ge(0))
        norm_views: str = norm_views("joint")
