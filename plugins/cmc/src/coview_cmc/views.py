"""Views that are groups of the channels of one crop."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.constants import constant, like
from coview.plan import Layout, Plan
from coview.records import Batch, Pairs, Step, Views
from coview.settings import between, one_of, setting
from coview.views import Augmentation, Normalize, Rendering, positives, unit_interval
from coview_cmc.spaces import SPACES, Space

GREY = "frequencies"
"""The space used instead of a colour space if images have no colours."""


class GroupViews(nn.Module):
    """One random crop whose channels are split into views (Tian et al. 2020, sections 3 and 4.1).

    A view is a sensor: luminance and chrominance of a photograph (the paper's
    Lab, or YCbCr), or any groups of an image's channels (depth beside colours, the
    bands of a satellite). All views of an image are of the same crop. Views are
    compared in pairs: each with each (full graph), or the first with every other
    (core view).

    Images of one channel have no chrominance. Their views are their low and their
    high spatial frequencies instead, which is not in the paper; the run says so.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """The paper's values; see :class:`coview.views.Augmentation`."""

        space: str = setting(
            "lab",
            "conversion of the channels: lab, ycbcr (both for RGB images), raw (unchanged) or "
            "frequencies (the image blurred, and the rest)",
            one_of(*SPACES),
        )
        groups: tuple[tuple[int, ...], ...] | None = setting(
            None,
            "channels of each view, numbered from 0 in views.space; none: L and ab, Y and CbCr, "
            "each raw channel by itself, or low and high frequencies",
        )
        pairing: str = setting(
            "full",
            "views to compare: full (each with each other) or core (the first with each other)",
            one_of("full", "core"),
        )
        crop_scale: tuple[float, float] = setting(
            (0.2, 1.0), "least and greatest share of the image's area in a crop"
        )
        grey_p: float = setting(0.0, "probability of grey-scale", between(0, 1))
        blur_p: float = setting(0.0, "probability of Gaussian blur", between(0, 1))
        order: tuple[str, ...] = setting(
            ("crop", "flip"), "order of the operations; those left out are not applied"
        )

    @staticmethod
    def least_side(settings: Settings, image_size: int) -> float | None:
        """Return the side that the smallest crop needs to be no enlargement."""
        return settings.least_side(image_size)

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        settings = _for_grey_images(settings, plan)
        self.space = SPACES[settings.space]
        channels = self.space.channels(plan.channels)
        self.groups = settings.groups or self.space.groups(plan.channels)
        _check(settings, self.space, self.groups, channels, plan)
        size = settings.view_size(plan.image_size)
        everyone = tuple(range(len(self.groups)))
        self.layout = Layout(
            sizes=((size, size),) * len(everyone),
            channels=tuple(len(group) for group in self.groups),
            queries=everyone,
            keys=everyone,
            pairs=pairs_of(everyone, settings.pairing),
        )
        self.channels = channels
        self.scale = self.space.scale(plan) if settings.normalize else ((0.0,), (1.0,))
        # Colour spaces are defined on [0, 1], so images are standardised after them.
        within = Normalize((0.0,) * plan.channels, (1.0,) * plan.channels, active=False)
        chain = settings.fitting(plan.fit).chain(size, plan.channels, within)
        self.rendering = Rendering([chain])

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return the groups of one crop, (B, channels of the group, size, size) float each."""
        (crop,) = self.rendering(batch.images, step, batch.extents)
        return self._split(crop.float())

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the same groups of the centre of images (B, C, H, W)."""
        return self._split(center_crop(unit_interval(images), list(self.layout.sizes[0])))

    def pictured(self, view: int, crop: Tensor) -> Tensor:
        """Return a view for people to look at, with each channel's range scaled to [0, 1]."""
        group = list(self.groups[view])
        shift, scale = (crop.new_tensor(v).expand(self.channels)[group] for v in self.scale)
        values = crop * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        low, high = (
            crop.new_tensor(v)[group].view(-1, 1, 1) for v in self.space.limits(self.channels)
        )
        return (values - low) / (high - low)

    def _split(self, images: Tensor) -> Views:
        values = self.space.convert(images)
        shift, scale = (like(v, values).view(-1, 1, 1) for v in self.scale)
        values = (values - shift) / scale
        crops = tuple(_channels(values, group) for group in self.groups)
        return Views(crops, self.layout.queries, self.layout.keys, self.layout.pairs)


def _channels(images: Tensor, group: Sequence[int]) -> Tensor:
    return images.index_select(1, constant(group, images.device, torch.int64))


def pairs_of(views: Sequence[int], pairing: str) -> Pairs:
    """Return the directed pairs of a full graph, or of a core view (the first one)."""
    pairs = positives(views, views)
    return pairs if pairing == "full" else tuple(pair for pair in pairs if views[0] in pair)


def _for_grey_images(settings: GroupViews.Settings, plan: Plan) -> GroupViews.Settings:
    if plan.channels != 1 or SPACES[settings.space].takes is None:
        return settings
    plan.notice(
        f"images have one channel, so there are no {settings.space} colours to split: the views "
        f"are low and high spatial frequencies instead (views.space = {GREY})"
    )
    return attrs.evolve(settings, space=GREY, groups=None)


def _check(
    settings: GroupViews.Settings,
    space: Space,
    groups: Sequence[Sequence[int]],
    channels: int,
    plan: Plan,
) -> None:
    if space.takes is not None and plan.channels != space.takes:
        raise RequestError(
            f"views.space = {settings.space} needs RGB images, but these have {plan.channels} "
            "channels: use views.space = raw, and list the channels of each view in views.groups."
        )
    if len(groups) < 2 or not all(groups):
        raise RequestError(
            f"views.groups must be two or more groups of channels, none of them empty, not "
            f"{[list(group) for group in groups]}."
        )
    outside = sorted({c for group in groups for c in group if not 0 <= c < channels})
    if outside:
        raise RequestError(
            f"views.groups names channel {', '.join(map(str, outside))}, but views.space = "
            f"{settings.space} has the channels 0 to {channels - 1}."
        )
    if settings.grey_p and "grey" in settings.order and space.takes is not None:
        raise RequestError(
            f"views.grey_p = {settings.grey_p} would remove the colours that views.space = "
            f"{settings.space} makes a view of: set views.grey_p = 0."
        )
