"""Views that are the overlapping patches of one image."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.transforms.v2.functional import center_crop

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.nn.constants import like
from coview.plan import Layout, Plan
from coview.records import Batch, Step, Views
from coview.settings import between, ge, gt, setting
from coview.views import unit_interval
from coview.views.augmentation import LUMA, Normalize
from coview_cpc.augmentation import PatchAugmentation, draw, window


class PatchViews(nn.Module):
    """A grid of overlapping patches, each a view (van den Oord et al. 2018, section 3.3).

    The image is cropped at a random place, flipped, turned grey and cut into
    patches, and each patch is moved by a few pixels: a random part of it is kept
    and padded back to size. View number r x columns + c is the patch in row r and
    column c. The pairs of views are each patch and those below it in its column;
    the encoder decides which of them are compared.

    The defaults, patches of a quarter of the image with a stride of half a patch,
    give the paper's 7 x 7 patches at any size that is a multiple of 8.
    """

    @attrs.frozen
    class Settings(PatchAugmentation):
        """The paper's values."""

        size: int | None = setting(
            None, "size in pixels of the part of the image to cut up; none: all of it", gt(0)
        )
        padding: int = setting(
            0, "pixels of padding (with the mean) around the image before the random crop", ge(0)
        )
        flip_p: float = setting(0.5, "probability of a horizontal flip", between(0, 1))
        grey: bool = setting(True, "turn the image grey, so that views have one channel")
        patch: int | None = setting(
            None, "patch size in pixels; none: a quarter of views.size", gt(1)
        )
        stride: int | None = setting(
            None, "pixels from one patch to the next; none: half a patch", gt(0)
        )
        normalize: bool = setting(
            True, "subtract the data set's mean and divide by its standard deviation"
        )

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings
        self.size = settings.size or plan.image_size
        self.patch = settings.patch or max(2, self.size // 4)
        self.stride = settings.stride or max(1, self.patch // 2)
        _check(self.size, self.patch, settings.padding, plan)
        side = (self.size - self.patch) // self.stride + 1
        self.to_grey = settings.grey and plan.channels == 3
        channels = 1 if self.to_grey else plan.channels
        self.layout = _layout(side, self.patch, channels)
        mean, std = plan.mean, plan.std
        if self.to_grey:
            # The channels of photographs vary nearly together, so deviations add like means.
            mean, std = _luma(mean), _luma(std)
        self.normalize = Normalize(mean, std, settings.normalize)
        self.operations = settings.chain(channels, plan.notice)

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return the patches, (B, C, patch, patch) float each, in reading order."""
        images = self._cropped(batch.images.float() / 255, step)
        patches = self.cut(self._grey(images))
        rows = patches.flatten(0, 1)
        # Rows are ordered by image, then by patch, so a process's rows lie together.
        seed = step.seed_for(f"{step.component}/patches")
        rows = self.normalize(self.settings.applied(self.operations, rows, seed))
        rows = self.settings.moved(rows, step)
        return self._views(rows.view_as(patches))

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the patches of the centre of images (B, C, H, W), normalised but not moved."""
        centre = center_crop(unit_interval(images), [self.size, self.size])
        return self._views(self.cut(self.normalize(self._grey(centre))))

    def pictured(self, view: int, crop: Tensor) -> Tensor:
        """Return a patch for people to look at, with the standardisation undone."""
        shift, scale = self.normalize.mean, self.normalize.std
        return crop * crop.new_tensor(scale).view(-1, 1, 1) + crop.new_tensor(shift).view(-1, 1, 1)

    def cut(self, images: Tensor) -> Tensor:
        """Cut images (B, C, size, size) into patches (B, rows x columns, C, patch, patch).

        Patch (r, c) is ``image[stride r : stride r + patch, stride c : stride c + patch]``.
        """
        pieces = images.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)
        return pieces.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)

    def _cropped(self, images: Tensor, step: Step) -> Tensor:
        """Crop each image at its own random place, and flip some."""
        rows, margin = len(images), self.settings.padding
        if margin:
            mean = sum(self.normalize.mean) / len(self.normalize.mean)
            images = pad(images, (margin,) * 4, value=mean)
        slack = min(images.shape[-2:]) - self.size
        corners = draw(step, rows, 2, high=slack + 1)
        images = window(images, corners[:, 0], corners[:, 1], self.size)
        flipped = draw(step, rows) < self.settings.flip_p
        return torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)

    def _grey(self, images: Tensor) -> Tensor:
        if not self.to_grey:
            return images
        weights = like(LUMA, images).view(1, 3, 1, 1)
        return (images * weights).sum(dim=1, keepdim=True) / weights.sum()

    def _views(self, patches: Tensor) -> Views:
        layout = self.layout
        return Views(patches.unbind(1), layout.queries, layout.keys, layout.pairs)


def _luma(values: tuple[float, ...]) -> tuple[float, ...]:
    return (sum(w * v for w, v in zip(LUMA, values, strict=True)) / sum(LUMA),)


def _check(size: int, patch: int, padding: int, plan: Plan) -> None:
    if size > plan.image_size + 2 * padding:
        raise RequestError(
            f"views.size = {size} is more than the loader's {plan.image_size} pixels"
            f"{f' and {padding} of padding on each side' if padding else ''}: set data.size to "
            f"{size} or more, or remove views.size."
        )
    if patch >= size:
        raise RequestError(
            f"views.patch = {patch} leaves only one patch of an image of {size} pixels: use less, "
            f"for example a quarter ({max(2, size // 4)})."
        )


def _layout(side: int, patch: int, channels: int) -> Layout:
    count = side * side
    everyone = tuple(range(count))
    below = tuple((v, w) for v in everyone for w in range(v + side, count, side))
    return Layout(
        sizes=((patch, patch),) * count,
        channels=(channels,) * count,
        queries=everyone,
        keys=everyone,
        pairs=below,
        grid=(side, side),
    )
