"""An encoder with a separate network for every view."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.encoder import ByView, Encoder, EncoderSettings
from coview.nn.heads import NORMS, OUTPUT_NORMS, mlp
from coview.plan import Layout, Plan
from coview.records import Batch, Encoded, Views
from coview.settings import gt, one_of, setting


class PerViewEncoder(nn.Module):
    """A separate backbone and head for each view (Tian et al. 2020, section 3.3).

    Views may differ in channels and size. The exported and evaluated network joins
    the features of all backbones: V views give V x D.

    Attributes:
        dim: width d of every view's projection.
        encoders: a backbone and a head for each view.
        trunk: all backbones as one, see :class:`JoinedBackbones`.
    """

    @attrs.frozen
    class Settings(EncoderSettings):
        """The paper's head: one linear layer."""

        dim: int = setting(128, "width of the embedding", gt(0))
        layers: int = setting(1, "linear layers of the head", gt(0))
        hidden: int | None = setting(
            None, "width between the head's layers; none: the backbone's width", gt(0)
        )
        norm: str = setting("none", "normalisation between the head's layers", one_of(*NORMS))
        output_norm: str = setting("none", "normalisation of the embedding", one_of(*OUTPUT_NORMS))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        if plan.layout is None:
            raise RequestError("An encoder needs a plan with a backbone and the views' layout.")
        self.dim = settings.dim
        self.views = plan.layout.queries
        self.encoders = nn.ModuleList(
            _OneView(settings, _plan_of(plan, plan.layout, view)) for view in self.views
        )

    @property
    def trunk(self) -> JoinedBackbones:
        """The backbones themselves, not copies."""
        return JoinedBackbones([self._of(view).trunk for view in self.views])

    def project(self, views: Views, which: Sequence[int]) -> tuple[ByView, ByView]:
        """Run each view through its own backbone and head.

        Returns:
            Features (B, D) and projections (B, d), by view, in full precision.
        """
        features: dict[int, Tensor] = {}
        projections: dict[int, Tensor] = {}
        for view in which:
            alone = Views((views.crops[view],), (0,), (0,), ())
            ours, theirs = self._of(view).project(alone, (0,))
            features[view], projections[view] = ours[0], theirs[0]
        return features, projections

    def predict(self, projections: ByView) -> ByView:
        """Return the projections: there is no predictor."""
        return projections

    def backbone(self) -> nn.Module:
        """Return the network to export and evaluate: one crop per view -> (B, V x D)."""
        return self.trunk

    def without_predictor(self) -> PerViewEncoder:
        """Return a copy, including weights."""
        return copy.deepcopy(self)

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Encode the query views; a slot is a view."""
        features, projections = self.project(views, views.queries)
        identities = dict.fromkeys(views.queries, batch.indices)
        return Encoded(projections, projections, identities, views.pairs, features)

    def _of(self, view: int) -> Encoder:
        encoder = self.encoders[self.views.index(view)]
        assert isinstance(encoder, Encoder)
        return encoder


class _OneView(Encoder):
    """Backbone and head of one view."""

    def __init__(self, settings: PerViewEncoder.Settings, plan: Plan) -> None:
        super().__init__(settings, plan, settings.dim)
        self.projector = mlp(
            self.features,
            settings.hidden or self.features,
            settings.dim,
            settings.layers,
            hidden_norm=settings.norm,
            output_norm=settings.output_norm,
        )


class JoinedBackbones(nn.Module):
    """Several backbones as one, their features side by side.

    Args:
        trunks: one for each view, (B, C_v, H, W) -> (B, D_v).
    """

    def __init__(self, trunks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)
        widths = [int(trunk.num_features) for trunk in trunks]  # type: ignore[arg-type]
        self.num_features = sum(widths)

    def compile(self, *arguments: Any, **named: Any) -> None:
        """Compile every backbone separately, as training calls them one by one."""
        for trunk in self.trunks:
            trunk.compile(*arguments, **named)

    def forward(self, *crops: Tensor) -> Tensor:
        """One crop for each view, (B, C_v, H, W), -> (B, sum of D_v)."""
        features = (trunk(crop) for trunk, crop in zip(self.trunks, crops, strict=True))
        return torch.cat(list(features), dim=1)


def _plan_of(plan: Plan, layout: Layout, view: int) -> Plan:
    """Return the plan with this view alone."""
    alone = Layout(
        sizes=(layout.sizes[view],),
        channels=(layout.channels[view],),
        queries=(0,),
        keys=(0,),
        pairs=((0, 0),),
    )
    return attrs.evolve(plan, layout=alone)
