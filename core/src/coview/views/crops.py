"""Views that are random crops: the base of most views components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from coview.distributed import rank, world_size
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Layout, Plan
from coview.records import Batch, Pairs, Step, Views
from coview.views import noted
from coview.views.augmentation import Augmentation, Normalize
from coview.views.backends.fused.plan import Fused
from coview.views.backends.fused.whole import Whole
from coview.views.chain import Chain, unit_interval

SQUARE = "add --set data.fit=square"
__all__ = ["CropViews", "Rendering", "positives"]


def positives(queries: Sequence[int], keys: Sequence[int]) -> Pairs:
    """Return every pair of different views; a single view is paired with itself."""
    pairs = tuple((q, k) for q in queries for k in keys if q != k)
    return pairs or tuple((q, k) for q in queries for k in keys)


def least_side(augmentations: Sequence[Any], image_size: int) -> float | None:
    """Return how large images must be for their smallest crop to be no enlargement.

    None: one of them does not cut its crop from images of any size.
    """
    sides = [one.least_side(image_size) for one in augmentations]
    known = [side for side in sides if side is not None]
    return max(known) if known and len(known) == len(sides) else None


class Rendering:
    """One chain per view; those that differ only in what they draw run as one.

    Args:
        chains: the chain of each view.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        self.chains = tuple(chains)
        alike: dict[object, list[int]] = {}
        for view, chain in enumerate(self.chains):
            if chain.whole is not None:
                alike.setdefault(chain.whole.structure, []).append(view)
        self.together = [(views, self._joined(views)) for views in alike.values()]

    def _joined(self, views: Sequence[int]) -> Fused:
        parts = [self.chains[view].whole for view in views]
        known = [part for part in parts if part is not None]
        return type(known[0]).joined(known)

    def __call__(
        self, images: Tensor, step: Step, extents: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return one view per chain.

        Args:
            images: this process's images, (B, C, H, W) uint8, or float in [0, 1].
            step: the step, whose generator and seeds determine everything random.
            extents: of images at their own sizes, see :class:`coview.records.Batch`. The
                chains must be fused ones with a crop.
        """
        place = rank(), world_size()
        seeds = [step.seed_for(f"{step.component}/{view}") for view in range(len(self.chains))]
        made: dict[int, Tensor] = {}
        for views, run in self.together:
            source = images if extents is None else Whole(images, extents)
            if extents is not None and run.crop is None:
                raise RequestError(f"View {views[0] + 1} cuts no crop: {SQUARE}.")
            own = run(source, step.generator, seeds[views[0]], *place)
            noted.belong(views)
            made.update(zip(views, own, strict=True))
        for view, chain in enumerate(self.chains):
            if view not in made:
                if extents is not None:
                    raise RequestError(f"View {view + 1} takes images of one size: {SQUARE}.")
                made[view] = chain(images, seeds[view], *place)
                noted.belong([view])
        return tuple(made[view] for view in range(len(self.chains)))


class CropViews(nn.Module):
    """Random crops of one image, each made by its own chain.

    Args:
        augmentations: one per view; views may differ in size and strength.
        plan: its channels, image size, mean, std and number of steps are used.
        symmetric: whether every view is both query and key; else the first view
            is the query and the others are keys.
    """

    def __init__(
        self, augmentations: Sequence[Augmentation], plan: Plan, symmetric: bool = True
    ) -> None:
        super().__init__()
        sizes = [augmentation.view_size(plan.image_size) for augmentation in augmentations]
        everyone = tuple(range(len(sizes)))
        queries = everyone if symmetric or len(sizes) == 1 else everyone[:1]
        keys = everyone if symmetric or len(sizes) == 1 else everyone[1:]
        self.layout = Layout(
            sizes=tuple((size, size) for size in sizes),
            channels=(plan.channels,) * len(sizes),
            queries=queries,
            keys=keys,
            pairs=positives(queries, keys),
        )
        first = augmentations[0]
        self.normalize = Normalize(plan.mean, plan.std, first.normalize)
        self.rendering = Rendering(
            [
                augmentation.fitting(plan.fit).chain(size, plan.channels, self.normalize)
                for augmentation, size in zip(augmentations, sizes, strict=True)
            ]
        )
        if plan.channels != 3 and any(a.grey_p or any(a.jitter[2:]) for a in augmentations):
            plan.notice(
                f"images have {plan.channels} channel(s), so saturation, hue and grey-scale are "
                "left out"
            )

    @classmethod
    def least_side(cls, settings: Any, image_size: int) -> float | None:
        """Return the side that the smallest crop needs; see :class:`coview.ViewsComponent`.

        A class whose settings are not those of all its views, or that makes them in its own
        way, overrides this.
        """
        own = cls.generate_views is not CropViews.generate_views
        known = isinstance(settings, Augmentation) and not own
        return least_side([settings], image_size) if known else None

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel with which views are standardised."""
        return self.normalize.mean, self.normalize.std

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return one crop per chain, each (B, C, size, size) float."""
        crops = self.rendering(batch.images, step, batch.extents)
        return Views(crops, self.layout.queries, self.layout.keys, self.layout.pairs)

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the centre of images (B, C, H, W), normalised, as the only view."""
        size = max(self.layout.sizes)
        crop = self.normalize(center_crop(unit_interval(images), list(size)))
        return Views((crop,), (0,), (0,), ((0, 0),))
