"""Views by transforms of the user's own, from kornia, torchvision or anywhere."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import kornia.augmentation
import kornia.enhance
import numpy as np
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from kornia.augmentation.base import _BasicAugmentationBase
from kornia.augmentation.container.base import ImageSequentialBase
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from coview.components import declared
from coview.distributed import rank, world_size
from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.own_code import Loaded, is_code, load
from coview.plan import Layout, Plan
from coview.recipes.tables import OwnViewSettings
from coview.records import Batch, Step, Views
from coview.seeds import generators_kept, seed_generators
from coview.views.augmentation import Normalize
from coview.views.backends.fused.fusing import fuse
from coview.views.backends.kornia import flat
from coview.views.chain import Chain, applied_to_each, unit_interval
from coview.views.crops import Rendering, positives
from coview.views.operations import OwnOperation

Transform = Callable[[Any], Any]
DRAWS = 16
"""How often a transform is tried, so that what it does only sometimes is met too."""
OF_PIL = (v1.ToTensor, v1.PILToTensor, v2.PILToTensor, v2.ToTensor)
"""What turns PIL images into tensors: a transform with one of these begins with PIL images."""
STANDARDIZING = (
    *(v1.Normalize, v2.Normalize),
    *(kornia.augmentation.Normalize, kornia.enhance.Normalize),
)


class OwnViewsCatalogue:
    """Transforms of the user's own, by ``file.py:name`` or ``module:name``."""

    title = ""

    @staticmethod
    def find(name: str) -> OwnViews | None:
        """Return what builds the views; None: the name is not that of code.

        Raises:
            RequestError: the code cannot be loaded.
        """
        return OwnViews(load(name)) if is_code(name) else None

    @staticmethod
    def names() -> list[str]:
        """Return no names: what there is cannot be listed."""
        return []


class OwnViews:
    """Builds views from a transform of the user's own code, a list, or a function giving either."""

    Settings = OwnViewSettings

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    @property
    def loaded(self) -> Loaded:
        """What was imported."""
        return self._loaded

    def __call__(self, settings: OwnViewSettings, plan: Plan) -> TransformViews:
        """Return the views."""
        thing = self._loaded.thing
        if inspect.isroutine(thing) or isinstance(thing, type):
            try:
                inspect.signature(thing).bind()
            except (TypeError, ValueError):
                pass  # it takes an image: it is the transform
            else:
                thing = self._loaded.call()
        return TransformViews(thing, plan, settings.symmetric)


class TransformViews(nn.Module):
    """Views by a user's transform, or one for each view.

    Args:
        transform: makes a view of an image. kornia's augmentations, alone or in an
            ``nn.Sequential``, are called with the batch in [0, 1] (standard ones run fused if
            images are RGB); anything else image by image, with a tensor in [0, 1] or, if it
            needs that, a PIL image. One that returns a list makes all views in one call; of a
            list of transforms each makes one view; a single one is called twice.
        plan: its channels and image size are used.
        symmetric: whether every view is both query and key; else the first is the query.

    Raises:
        RequestError: a transform fails, or does not return images of one size.
    """

    def __init__(
        self, transform: Transform | Sequence[Transform], plan: Plan, symmetric: bool = True
    ) -> None:
        super().__init__()
        several = isinstance(transform, (list, tuple, nn.ModuleList))
        given: list[Any] = list(transform) if several else [transform]  # type: ignore[arg-type]
        if not given:
            raise RequestError("views= holds no transform.")
        chains = [_chain(one, plan) for one in given]
        if note := _slow(chains):
            plan.notice(note)
        counts = [chain.count if isinstance(chain, ImageByImage) else 1 for chain in chains]
        if len(chains) > 1 and max(counts) > 1:
            raise RequestError("In a list of transforms, each must make one view of an image.")
        chains = chains if len(chains) > 1 else chains * (1 if counts[0] > 1 else 2)
        self.rendering = Rendering(chains)
        shapes = _shapes(chains, plan)
        everyone = tuple(range(len(shapes)))
        queries = everyone if symmetric else everyone[:1]
        keys = everyone if symmetric else everyone[1:]
        self.layout = Layout(
            sizes=tuple((height, width) for _, height, width in shapes),
            channels=tuple(channels for channels, _, _ in shapes),
            queries=queries,
            keys=keys,
            pairs=positives(queries, keys),
        )
        self.normalize = _standardization(given, chains, plan)

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the transform's ``Normalize``; 0 and 1 without one."""
        return self.normalize.mean, self.normalize.std

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return the views of the batch."""
        only = self.rendering.chains[0]
        if isinstance(only, ImageByImage) and only.count > 1:
            seed = step.seed_for(f"{step.component}/0")
            crops = only.all_views(batch.images, seed, rank(), world_size())
        else:
            crops = self.rendering(batch.images, step)
        return Views(crops, self.layout.queries, self.layout.keys, self.layout.pairs)

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the images' centre, of the views' size, standardised as the transform does."""
        size = max(self.layout.sizes)
        crop = self.normalize(tvf.center_crop(unit_interval(images), list(size)))
        return Views((crop,), (0,), (0,), ((0, 0),))


class ImageByImage(Chain):
    """A transform that is called with one image at a time.

    Attributes:
        count: number of views that one call makes.
        seconds: how long a view takes.
        of_pil: whether it is called with PIL images; else with tensors (C, H, W) in [0, 1].
    """

    def __init__(self, transform: Transform, of_pil: bool) -> None:
        super().__init__([transform])
        self.transform, self.of_pil = transform, of_pil
        self.count, self.seconds = 1, 1.0

    def all_views(
        self, images: Tensor, seed: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, ...]:
        """Return all views, each (B, C, h, w) float; see :meth:`Chain.__call__`."""
        given: Tensor | list[Image.Image] = unit_interval(images)
        if self.of_pil:
            given = [tvf.to_pil_image(image) for image in _bytes(images).cpu()]
        with generators_kept():
            torch.manual_seed(seed)
            made = applied_to_each(self._views_of, given, rank, world_size)
        return tuple(torch.stack(view).to(images.device) for view in zip(*made, strict=True))

    def __call__(self, images: Tensor, seed: int, rank: int = 0, world_size: int = 1) -> Tensor:
        """Return the first view."""
        return self.all_views(images, seed, rank, world_size)[0]

    def _views_of(self, image: Any) -> tuple[Tensor, ...]:
        made = self.transform(image)
        several = isinstance(made, (list, tuple))
        return tuple(_as_view(view) for view in (made if several else (made,)))

    def tried(self, image: Tensor) -> list[tuple[Tensor, ...]]:
        """Return the views of one image (C, H, W) uint8 from several calls.

        Raises:
            Exception: of any type, if the transform fails.
        """
        given = tvf.to_pil_image(image) if self.of_pil else unit_interval(image)
        made = []
        with generators_kept():
            for number in range(DRAWS):
                seed_generators(number)
                made.append(self._views_of(given))
        return made


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8) if images.is_floating_point() else images


def _as_view(view: Any) -> Tensor:
    """Return what a transform returned as (C, h, w) float."""
    if isinstance(view, Image.Image):
        view = tvf.pil_to_tensor(view)
    if isinstance(view, np.ndarray):
        view = torch.from_numpy(np.ascontiguousarray(view))
    if not isinstance(view, Tensor) or view.ndim != 3:
        what = f"a tensor {tuple(view.shape)}" if isinstance(view, Tensor) else type(view).__name__
        raise TypeError(f"it must return an image (C, H, W), or a list of images, not {what}")
    return unit_interval(view.as_subclass(Tensor))


def _chain(transform: Transform, plan: Plan) -> Chain:
    """Return a transform as a chain, after trying what it takes and gives.

    Raises:
        RequestError: it takes neither tensors nor PIL images.
    """
    if not callable(transform):
        raise RequestError(
            f"A transform must be callable, with an image; {type(transform).__name__} is not."
        )
    if any(_batched(part) for part in flat([transform])):
        return Chain(fuse([transform]) if plan.channels == 3 else [transform])
    from_pil = any(isinstance(part, OF_PIL) for part in parts_of(transform))
    pixels = torch.Generator().manual_seed(0)
    shape = (plan.channels, plan.image_size, plan.image_size)
    image = torch.randint(256, shape, dtype=torch.uint8, generator=pixels)
    problem: Exception | None = None
    for of_pil in (from_pil, not from_pil):
        chain = ImageByImage(transform, of_pil)
        began = time.perf_counter()
        try:
            made = chain.tried(image)
        except Exception as error:
            problem = problem or error
            continue
        chain.count = _count(made, transform)
        chain.seconds = (time.perf_counter() - began) / (DRAWS * chain.count)
        return chain
    raise RequestError(
        f"The transform {_name(transform)} fails on one {'x'.join(map(str, shape))} image "
        f"({type(problem).__name__}: {problem})."
    ) from problem


def _batched(operation: Any) -> bool:
    kinds = (_BasicAugmentationBase, ImageSequentialBase)
    return isinstance(operation, kinds) or bool(declared(operation, OwnOperation, "batched"))


def _count(made: Sequence[tuple[Tensor, ...]], transform: Transform) -> int:
    """Return how many views each call gave."""
    shapes = {tuple(tuple(view.shape) for view in views) for views in made}
    if len(shapes) > 1:
        raise RequestError(
            f"The transform {_name(transform)} gives views of different sizes: end it with a crop "
            "or a resize to one size."
        )
    return len(made[0])


def _slow(chains: Sequence[Chain]) -> str | None:
    """Return a sentence if views are made image by image; None: none are."""
    slow = [chain for chain in chains if isinstance(chain, ImageByImage)]
    if not slow:
        return None
    names = ", ".join(dict.fromkeys(_name(chain.transform) for chain in slow))
    how = "PIL images" if any(chain.of_pil for chain in slow) else "tensors"
    rate = len(slow) / sum(chain.seconds for chain in slow)
    return (
        f"The views are made image by image by {names}, from {how}: about "
        f"{float(f'{rate:.1g}'):,.0f} views a second here. Faster, on whole batches: kornia's "
        "modules in an nn.Sequential, or the method's own views (--set views.KEY=VALUE)."
    )


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)


def _shapes(chains: Sequence[Chain], plan: Plan) -> list[tuple[int, ...]]:
    """Return channels, height and width of each view."""
    probe = torch.zeros(2, plan.channels, plan.image_size, plan.image_size)
    only = chains[0]
    if isinstance(only, ImageByImage) and only.count > 1:
        return [tuple(view.shape[1:]) for view in only.all_views(probe, seed=0)]
    return [tuple(chain(probe, seed=0).shape[1:]) for chain in chains]


def parts_of(transform: Any) -> Iterator[Any]:
    """Yield a transform and all callables that it holds, however deep."""
    seen: set[int] = set()

    def walk(thing: Any) -> Iterator[Any]:
        if isinstance(thing, (list, tuple, Mapping)):
            for item in thing.values() if isinstance(thing, Mapping) else thing:
                yield from walk(item)
        elif callable(thing) and not isinstance(thing, type) and id(thing) not in seen:
            seen.add(id(thing))
            yield thing
            held = getattr(thing, "__closure__", None) or ()
            yield from walk([getattr(thing, "__self__", None), getattr(thing, "func", None)])
            yield from walk([_content(cell) for cell in held])
            yield from walk(getattr(thing, "__dict__", {}))

    yield from walk(transform)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a name that is not bound yet
        return None


def _standardization(given: Sequence[Any], chains: Sequence[Chain], plan: Plan) -> Normalize:
    """Return the transforms' own standardisation, for evaluation and export; say what was found."""
    channels = plan.channels
    found = {
        _mean_and_std(part, channels): None
        for transform in given
        for part in parts_of(transform)
        if isinstance(part, STANDARDIZING)
    }
    if found:
        mean, std = next(iter(found))
        others = " Other views have other values." if len(found) > 1 else ""
        plan.notice(
            f"The transform normalises, with mean {_short(mean)} and std {_short(std)}: coview "
            "does not do it again, and evaluates and exports the network with the same."
            f"{others}"
        )
        return Normalize(mean, std, active=True)
    low, high = _range(chains, plan)
    if low < -0.05 or high > 1.05:
        plan.notice(
            f"The transform's views run from {low:.2g} to {high:.2g}, but no Normalize is found in "
            "it: the network is evaluated and exported for images in [0, 1], which will not fit. "
            "Put a torchvision Normalize into the transform."
        )
    return Normalize((0.0,) * channels, (1.0,) * channels, active=True)


def _mean_and_std(part: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    flags = getattr(part, "flags", None)
    holder = (
        flags if isinstance(flags, Mapping) else vars(part) | {"mean": part.mean, "std": part.std}
    )
    values = [
        tuple(torch.as_tensor(holder[name], dtype=torch.float64).flatten().tolist())
        for name in ("mean", "std")
    ]
    mean, std = (one * channels if len(one) == 1 else one for one in values)
    return mean, std


def _range(chains: Sequence[Chain], plan: Plan) -> tuple[float, float]:
    """Return the least and greatest value of views of a black and a white image."""
    image = torch.zeros(2, plan.channels, plan.image_size, plan.image_size)
    image[1] = 1
    views = [chain(image, seed=0) for chain in chains]
    return min(float(view.min()) for view in views), max(float(view.max()) for view in views)


def _short(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
