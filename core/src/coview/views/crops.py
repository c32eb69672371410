"""Views that are random crops: the base of most views components."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from coview.distributed import rank, world_size
from coview.hookspecs import hookimpl
from coview.plan import Layout, Plan
from coview.records import Batch, Pairs, Step, Views
from coview.views.augmentation import Augmentation, Normalize
from coview.views.backends.fused.plan import Fused
from coview.views.chain import Chain, unit_interval

__all__ = ["CropViews", "Rendering", "positives"]


def positives(queries: Sequence[int], keys: Sequence[int]) -> Pairs:
    """Return every pair of different views; a single view is paired with itself."""
    pairs = tuple((q, k) for q in queries for k in keys if q != k)
    return pairs or tuple((q, k) for q in queries for k in keys)


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
        return Fused.joined([part for part in parts if part is not None])

    def __call__(self, images: Tensor, step: Step) -> tuple[Tensor, ...]:
        """Return one view per chain, of images (B, C, H, W) uint8, or float in [0, 1].

        Args:
            images: this process's images.
            step: the step, whose generator and seeds determine everything random.
        """
        place = rank(), world_size()
        seeds = [step.seed_for(f"{step.component}/{view}") for view in range(len(self.chains))]
        made: dict[int, Tensor] = {}
        for views, run in self.together:
            own = run(images, step.generator, seeds[views[0]], *place)
            made.update(zip(views, own, strict=True))
        for view, chain in enumerate(self.chains):
            if view not in made:
                made[view] = chain(images, seeds[view], *place)
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
                augmentation.chain(size, plan.channels, self.normalize)
                for augmentation, size in zip(augmentations, sizes, strict=True)
            ]
        )
        if plan.channels != 3 and any(a.grey_p or any(a.jitter[2:]) for a in augmentations):
            plan.notice(
                f"images have {plan.channels} channel(s), so saturation, hue and grey-scale are "
                "left out"
            )

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel with which views are standardised."""
        return self.normalize.mean, self.normalize.std

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return one crop per chain, each (B, C, size, size) float."""
        crops = self.rendering(batch.images, step)
        return Views(crops, self.layout.queries, self.layout.keys, self.layout.pairs)

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the centre of images (B, C, H, W), normalised, as the only view."""
        size = max(self.layout.sizes)
        crop = self.normalize(center_crop(unit_interval(images), list(size)))
        return Views((crop,), (0,), (0,), ((0, 0),))
