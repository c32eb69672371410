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
"""The space that takes a colour space's place where images have no colours."""


class GroupViews(nn.Module):
    """One random crop, its channels split into views (Tian et al. 2020, section 3 and 4.1).

    A view is a sensor: luminance and chrominance of a photograph (the paper's
    Lab, and YCbCr), or any groups of the channels that images have (depth beside
    colours, the bands of a satellite). All views of an image are of the same
    crop. Views are compared in pairs: each with each (full graph), or the first
    with every other (core view).

    Images of one channel have no chrominance. Instead of a colour space their
    views are then their low and their high spatial frequencies, which is not the
    paper's, and the run says so.
    """

    @attrs.frozen
    class Settings(Augmentation):
        """The paper's values; see :class:`coview.views.Augmentation`."""

        space: str = setting(
            "lab",
            "what channels are turned into: lab, ycbcr (RGB images), raw (left as they are) or "
            "frequencies (the image blurred, and the rest)",
            one_of(*SPACES),
        )
        groups: tuple[tuple[int, ...], ...] | None = setting(
            None,
            "channels of each view, counted from 0 in the space; none: L and ab, Y and CbCr, each "
            "raw channel by itself, low and high frequencies",
        )
        pairing: str = setting(
            "full",
            "which views are compared: full (each with each) or core (the first with each)",
            one_of("full", "core"),
        )
        crop_scale: tuple[float, float] = setting(
            (0.2, 1.0), "share of the image's area that a crop covers, from and to"
        )
        grey_p: float = setting(0.0, "probability of grey-scale", between(0, 1))
        blur_p: float = setting(0.0, "probability of Gaussian blur", between(0, 1))
        order: tuple[str, ...] = setting(
            ("crop", "flip"), "the order of the operations; one left out is not done"
        )

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
        # In [0, 1], which colour spaces are defined on, and standardised after those.
        within = Normalize((0.0,) * plan.channels, (1.0,) * plan.channels, active=False)
        chain = settings.chain(size, plan.channels, within)
        self.rendering = Rendering([chain])

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return the groups of one crop, (B, channels of the group, size, size) float each."""
        (crop,) = self.rendering(batch.images, step)
        return self._split(crop.float())

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the same groups of the centre of images (B, C, H, W)."""
        return self._split(center_crop(unit_interval(images), list(self.layout.sizes[0])))

    def pictured(self, view: int, crop: Tensor) -> Tensor:
        """Return a view for people to look at: each channel's range brought to [0, 1]."""
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
    """Return the directed pairs of a full graph, or of a core view (the first)."""
    pairs = positives(views, views)
    return pairs if pairing == "full" else tuple(pair for pair in pairs if views[0] in pair)


def _for_grey_images(settings: GroupViews.Settings, plan: Plan) -> GroupViews.Settings:
    if plan.channels != 1 or SPACES[settings.space].takes is None:
        return settings
    plan.notice(
        f"images have one channel, so no {settings.space} colours to split: the views are low and "
        f"high spatial frequencies instead (views.space = {GREY})"
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
            f"views.space = {settings.space} needs RGB images; these have {plan.channels} "
            "channels: use views.space = raw, and views.groups for which channels make a view."
        )
    if len(groups) < 2 or not all(groups):
        raise RequestError(
            f"views.groups must be two groups of channels or more, none empty: "
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
            f"views.grey_p = {settings.grey_p} would take the colours away that views.space = "
            f"{settings.space} makes a view of: set views.grey_p = 0."
        )
