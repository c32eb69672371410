"""The base class of encoders: a trunk, a projector, and perhaps a predictor.

How views pass through batch normalisation changes results, so two settings
decide it here, and it never depends on accident.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from coview.distributed import gather, rank, world_size
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.backbones import is_convolutional
from coview.nn.drop_path import deal, share
from coview.plan import Layout, Plan
from coview.records import Batch, Encoded, Step, Targets, Views
from coview.settings import ge, one_of, setting

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
ByView = Mapping[int, Tensor]


def norm_views(default: str) -> Any:
    """Return the setting ``norm_views`` with another default, for papers that differ in it."""
    return setting(
        default,
        "batch-normalise each view alone (each), views of one resolution together "
        "(resolution), or all views together in the head and by resolution in the trunk (joint)",
        one_of("each", "resolution", "joint"),
    )


@attrs.frozen
class EncoderSettings:
    """Settings that every encoder has; derive yours from this class."""

    norm_views: str = norm_views("each")
    norm_groups: int = setting(
        1,
        "number of groups of the global batch that are batch-normalised separately, as on "
        "separate devices; 1: all rows of all processes together",
        ge(1),
    )


class Encoder(nn.Module):
    """Base class of encoders with ``trunk``, ``projector`` and, optionally, ``predictor``.

    A subclass calls ``super().__init__`` and then sets ``projector`` (and
    ``predictor``). The trunk is the run's backbone, and ``self.features`` is its
    width D.

    Attributes:
        dim: the width d of projections and keys.
        trunk: (B, C, H, W) -> (B, D).
        projector: (N, D) -> (N, d).
        predictor: (N, d) -> (N, d), or None.
        patch: pixels per side of the trunk's patches; None: it has none.
        by_view: whether each slot is a view. A target whose key slots are views is
            refused with an encoder whose slots are not.
    """

    by_view = True

    projector: nn.Module
    predictor: nn.Module | None

    def __init__(self, settings: EncoderSettings, plan: Plan, dim: int) -> None:
        super().__init__()
        if plan.backbone is None or plan.layout is None:
            raise RequestError("An encoder needs a plan with a backbone and the views' layout.")
        sizes = {plan.layout.channels[view] for view in plan.layout.queries}
        if len(sizes) > 1:
            raise RequestError(
                f"This encoder needs views with the same number of channels, but they have "
                f"{sorted(sizes)}."
            )
        self.dim = dim
        self.trunk = plan.backbone.build(
            plan.layout.channels[0], max(max(size) for size in plan.layout.sizes)
        )
        cut = getattr(getattr(self.trunk, "patch_embed", None), "patch_size", None)
        self.patch: int | None = int(cut[0]) if cut else None
        _refuse_broken_patches(self.patch, plan.layout)
        self.drop_paths = share(self.trunk)
        self.features = int(self.trunk.num_features)  # type: ignore[arg-type]
        self.predictor = None
        self._orders: Mapping[int, Tensor] = {}
        self.channels_last = is_convolutional(self.trunk)
        if self.channels_last:
            self.trunk.to(memory_format=torch.channels_last)
        self.norm_views = settings.norm_views
        self.global_norm_groups = settings.norm_groups
        self.norm_groups = _local_groups(settings.norm_groups, plan)

    def project(self, views: Views, which: Sequence[int]) -> tuple[ByView, ByView]:
        """Run the trunk and the projector.

        Args:
            views: the batch's views.
            which: numbers of the views to encode.

        Returns:
            Features (B, D) and projections (N, d), by view, in full precision.
        """
        crops = {view: self._laid_out(views.crops[view]) for view in which}
        features = self._run(self.trunk, crops, self._trunk_groups(crops))
        projections = self._run(self.projector, features, self._head_groups(crops))
        return _full(features), _full(projections)

    def maps(self, views: Views, which: Sequence[int]) -> ByView:
        """Run the trunk without its pooling, for encoders that compare places.

        Returns:
            Feature maps (B, D, h, w), by view, in full precision.

        Raises:
            RequestError: the backbone has no feature map.
        """
        crops = {view: self._laid_out(views.crops[view]) for view in which}
        return _full(self._run(self._map, crops, self._trunk_groups(crops)))

    def pooled(self, maps: ByView) -> tuple[ByView, ByView]:
        """Return the features (B, D) and projections (N, d) of what :meth:`maps` returned."""
        features = {view: self.trunk.forward_head(one) for view, one in maps.items()}  # type: ignore[operator]
        return features, _full(self._run(self.projector, features, self._head_groups(maps)))

    def predict(self, projections: ByView) -> ByView:
        """Run the predictor if there is one; (N, d) -> (N, d), by view."""
        if self.predictor is None:
            return projections
        groups = [[view] for view in projections]
        if self.norm_views != "each":
            groups = [list(projections)]
        return _full(self._run(self.predictor, projections, groups))

    def encode_keys(self, views: Views, encoded: Encoded, batch: Batch, step: Step) -> Targets:
        """Return the keys by slot, as a target's copy of this encoder makes them.

        Here they are the projections (B, d) of the key views. An encoder whose slots are
        others overrides this and declares them (``slots``).
        """
        _, keys = self.project(views, views.keys)
        return Targets(keys, dict.fromkeys(views.keys, batch.indices))

    def backbone(self) -> nn.Module:
        """Return the network to export and evaluate: (B, C, H, W) -> (B, D)."""
        return self.trunk

    def without_predictor(self) -> Encoder:
        """Return a copy, including weights, that projects but does not predict.

        It drops no residual branches either: stochastic depth is only for the network
        that is trained, not for the one that it is compared with.
        """
        predictor, self.predictor = self.predictor, None
        try:
            twin = copy.deepcopy(self)
        finally:
            self.predictor = predictor
        for module in twin.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0
        return twin

    @contextmanager
    def shuffled(self, views: Views, which: Sequence[int], step: Step) -> Iterator[None]:
        """Within the context, show each view to trunk and heads in an order of its own.

        Orders are of the rows of all processes, so that images that are batch-normalised
        together as queries are not as keys (He et al. 2020, section 3.3). Outputs are in the
        usual order. Not for a network that takes gradient.
        """
        draw = step.generator
        self._orders = {
            view: torch.randperm(
                len(views.crops[view]) * world_size(), generator=draw, device=draw.device
            )
            for view in which
        }
        try:
            yield
        finally:
            self._orders = {}

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        """Encode the query views; a slot is a view."""
        features, projections = self.project(views, views.queries)
        queries = self.predict(projections)
        identities = dict.fromkeys(views.queries, batch.indices)
        return Encoded(queries, projections, identities, views.pairs, features)

    def _map(self, images: Tensor) -> Tensor:
        forward = getattr(self.trunk, "forward_features", None)
        made = forward(images) if forward else None
        if made is None or made.ndim != 4 or made.shape[1] != self.features:
            raise RequestError(
                f"This encoder compares places, but the backbone {type(self.trunk).__name__} has "
                "no feature map (B, D, h, w): use a convolutional one (--backbone resnet18)."
            )
        return made  # type: ignore[no-any-return]

    def _laid_out(self, crop: Tensor) -> Tensor:
        return crop.contiguous(memory_format=torch.channels_last) if self.channels_last else crop

    def _trunk_groups(self, crops: ByView) -> list[list[int]]:
        # Without batch normalisation rows are independent, and fewer, larger calls are faster.
        if self.norm_views == "each" and _has_batch_norm(self):
            return [[view] for view in crops]
        by_size: dict[torch.Size, list[int]] = {}
        for view, crop in crops.items():
            by_size.setdefault(crop.shape[1:], []).append(view)
        return list(by_size.values())

    def _head_groups(self, crops: ByView) -> list[list[int]]:
        return [list(crops)] if self.norm_views == "joint" else self._trunk_groups(crops)

    def _run(
        self, module: Callable[[Tensor], Tensor], rows: ByView, groups: list[list[int]]
    ) -> ByView:
        """Apply ``module`` to every group of views, separately for each part of the batch."""
        orders = self._orders
        if orders:
            rows = {view: _dealt(x, orders[view]) for view, x in rows.items()}
        parts: dict[int, list[Tensor]] = {view: [] for view in rows}
        for group in groups:
            # Not chunk, which would split 25 rows into 8 groups with a last one of a single row.
            count = min(self.norm_groups, min(len(rows[view]) for view in group))
            chunks = [rows[view].tensor_split(count) for view in group]
            for pieces in zip(*chunks, strict=True):
                together = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
                if module in (self.trunk, self._map):
                    deal(self.drop_paths, len(pieces), len(pieces[0]))
                outputs = module(together).split([len(piece) for piece in pieces])
                for view, output in zip(group, outputs, strict=True):
                    parts[view].append(output)
        whole = {
            v: pieces[0] if len(pieces) == 1 else torch.cat(pieces) for v, pieces in parts.items()
        }
        return {v: _dealt(x, orders[v].argsort()) for v, x in whole.items()} if orders else whole


def _dealt(rows: Tensor, order: Tensor) -> Tensor:
    """Return this process's share of the rows of all processes, put in another order."""
    own = slice(rank() * len(rows), (rank() + 1) * len(rows))
    return gather(rows)[order[own]]


def _refuse_broken_patches(patch: int | None, layout: Layout) -> None:
    """Refuse view sizes that are not multiples of a transformer's patch size."""
    sizes = {layout.sizes[view] for view in (*layout.queries, *layout.keys)}
    broken = [size for size in sizes if patch and any(side % patch for side in size)]
    if broken:
        raise RequestError(
            f"The backbone cuts views into patches of {patch} pixels, but there are views of "
            f"{sorted(size[0] for size in broken)} pixels. Set views.size to a multiple of the "
            "patch size, or change backbone.patch."
        )


def _local_groups(groups: int, plan: Plan) -> int:
    """Return the groups of this process's rows, given those of the global batch."""
    if groups > 1 and groups % plan.world_size and plan.world_size % groups:
        raise RequestError(
            f"encoder.norm_groups = {groups} cannot be shared evenly by {plan.world_size} "
            "processes: use 1 (all rows together), or a multiple or divisor of their number."
        )
    local = max(1, groups // plan.world_size)
    if plan.local_batch_size // local < 2:
        raise RequestError(
            f"encoder.norm_groups = {groups} leaves {plan.local_batch_size // local} image(s) per "
            f"group of the {plan.local_batch_size} on a process, but batch normalisation needs "
            "at least 2: use fewer groups or a larger batch."
        )
    return local


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(m, _BATCH_NORMS) for m in module.modules())


def _full(by_view: ByView) -> ByView:
    """Convert half precision to float32, so that comparisons are in float32 or better."""
    half = (torch.bfloat16, torch.float16)
    return {view: x.float() if x.dtype in half else x for view, x in by_view.items()}
