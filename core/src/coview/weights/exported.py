"""A backbone with its preprocessing, as it is exported and evaluated."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from coview.components import IMAGES, ViewsComponent, declared
from coview.errors import CoviewError, RequestError
from coview.files import replacing
from coview.nn.backbones import (
    BackboneSettings,
    BackboneSpec,
    find_backbone,
    from_module,
    is_convolutional,
)
from coview.own_code import importing_nothing
from coview.plan import Plan
from coview.registry import find, kind_of_role
from coview.settings import structure
from coview.weights.card import WeightCard
from coview.weights.own import recorded

if TYPE_CHECKING:
    from coview.method.module import Method
    from coview.nn.backbones import BackboneSpec

BACKBONE = "coview"
"""Key in the metadata of a file that holds a backbone."""
CLASSIFIER = "coview-classifier"
"""Key in the metadata of a file that holds a classifier on a backbone."""
INSIDE = "network.backbone."
"""Prefix of the backbone's tensors in a classifier's file."""
OVERSHOOT = 1e-3
"""How far beyond [0, 1] values may lie before someone is told: rounding goes so far."""


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a file's metadata and tensors.

    Raises:
        CoviewError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return dict(opened.metadata() or {}), tensors
    except SafetensorError as error:
        raise CoviewError(f"{path} is not a complete safetensors file: {error}") from error


def is_foreign(path: Path) -> bool:
    """Whether this is an existing file that another program wrote."""
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="pt") as opened:
            return not {BACKBONE, CLASSIFIER} & set(opened.metadata() or {})
    except SafetensorError:
        return False


def rebuilt(parts: Mapping[str, Any], backbone: BackboneSpec) -> tuple[nn.Module, nn.Module]:
    """Build views and encoder again.

    Args:
        parts: as returned by :func:`parts_of`.
        backbone: what the encoder builds its trunk (or trunks) from.

    Returns:
        The encoder's backbone, with fresh weights, and the views.

    Raises:
        RequestError: the package that provides one of them is not installed.
        CoviewError: one of them no longer accepts these settings.
    """
    facts = parts["plan"]
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    plan = Plan(**known, backbone=backbone)
    views = build_part("views", parts["views"], plan)
    encoder = build_part("encoder", parts["encoder"], attrs.evolve(plan, layout=views.layout))
    return encoder.backbone(), views


def build_part(role: str, part: Mapping[str, Any], plan: Plan) -> Any:
    """Build one component as :func:`parts_of` described it."""
    factory = find(kind_of_role(role), part["use"]).load()
    settings, problems = structure(factory.Settings, part["settings"], role)
    if problems:
        raise CoviewError(" ".join(problems))
    return factory(settings, plan)


class ExportedBackbone(nn.Module):
    """Images in [0, 1] to features, preprocessing included.

    Attributes:
        backbone: (B, C, size, size) normalised -> (B, D); if there are ``views``,
            called with all their crops.
        card: which network it is and what input it expects.
        views: the views component, if preprocessing is more than the standardised
            centre (patches, groups of channels): its ``evaluation_views`` then
            make the backbone's input.
    """

    mean: Tensor
    std: Tensor
    views: nn.Module | None

    def __init__(
        self,
        backbone: nn.Module,
        meta: WeightCard | Mapping[str, Any],
        views: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.card = card = WeightCard.of(meta)
        self.views = views
        self.register_buffer("mean", torch.tensor(card.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(-1, 1, 1), persistent=False)
        self.channels_last = is_convolutional(backbone)
        takes = IMAGES if views is None else declared(views, ViewsComponent, "takes")
        self._of_images = takes == IMAGES
        self._checked = not self._of_images

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float in [0, 1] -> (B, D); crops to the centre.

        A single image (C, H, W) gives one vector (D,). The first images are checked: values
        outside [0, 1] are said in a warning.
        """
        if self._of_images and images.ndim == 3:
            return self.forward(images[None])[0]
        if not self._checked and not torch.compiler.is_compiling():
            self._check(images)
        features: Tensor = self.backbone(*self.prepared(images))
        return features

    def prepared(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the backbone is called with, standardised: images, or crops of them."""
        return tuple(self._laid_out(crop) for crop in self._crops(images))

    def _check(self, images: Tensor) -> None:
        """Warn once of images that were not divided by 255, or are normalised already.

        Only the first batch is looked at: reading its values waits for the device.
        """
        self._checked = True
        low, high = (float(value) for value in images.detach().aminmax())
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            warnings.warn(
                f"These images run from {low:.3g} to {high:.3g}, but this network takes images in "
                "[0, 1] and normalises them itself: leave out Normalize, and divide bytes by 255.",
                stacklevel=5,  # through torch's two calls to the line that called the network
            )

    def _crops(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.views is not None:
            crops: tuple[Tensor, ...] = self.views.evaluation_views(images).crops  # type: ignore[operator]
            return crops
        size = self.card.size
        if images.shape[-2:] != (size, size):
            images = center_crop(images, [size, size])
        return ((images - self.mean) / self.std,)

    def _laid_out(self, crop: Tensor) -> Tensor:
        return crop.contiguous(memory_format=torch.channels_last) if self.channels_last else crop

    @property
    def meta(self) -> dict[str, Any]:
        """The card as plain values."""
        return self.card.as_dict()

    @property
    def width(self) -> int:
        """D, the number of features."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]


def export(method: Method, card: WeightCard) -> ExportedBackbone:
    """Return the method's backbone (shared, not copied) with its preprocessing.

    Args:
        method: a built method.
        card: the run's card (:func:`coview.weights.card.card_of`).
    """
    views: Any = method.components["views"]
    backbone = method.backbone()
    # Views with a normalization do nothing else in evaluation, so these weights can be
    # loaded without the plugin.
    normalization = declared(views, ViewsComponent, "normalization")
    simple = normalization is not None
    mean, std = normalization or ((0.0,) * card.channels, (1.0,) * card.channels)
    card = attrs.evolve(
        card,
        parts=None if simple else card.parts,
        mean=mean,
        std=std,
        size=max(max(size) for size in views.layout.sizes),
        heads=attention_heads(backbone),
    )
    return ExportedBackbone(backbone, card, None if simple else views)


def attention_heads(network: nn.Module) -> list[int]:
    """Return the attention heads of each block of a timm transformer; else an empty list."""
    counts = (getattr(m, "num_heads", None) for m in network.modules() if hasattr(m, "qkv"))
    return [count for count in counts if isinstance(count, int)]


def refuse_other_heads(card: WeightCard, network: nn.Module, weights: str | Path) -> None:
    """Refuse weights of a transformer with other attention heads.

    Tensor shapes do not show the difference (a ViT-S has 12 heads in MoCo v3, 6 in
    DINO), so the weights would load into the wrong network.

    Raises:
        RequestError: the counts differ.
    """
    stored, here = card.heads, attention_heads(network)
    if stored is not None and list(stored) != here:
        raise RequestError(
            f"{weights} holds backbone {card.backbone!r} with {_shown(stored)} attention heads "
            f"per block; the network here has {_shown(here)}. Their tensors have equal shapes, but "
            "they compute different features. Use the backbone that was trained."
        )


def _shown(heads: Sequence[int]) -> str:
    return "/".join(str(count) for count in sorted(set(heads))) or "no"


def save_backbone(exported: ExportedBackbone, path: Path) -> None:
    """Write weights and card as a safetensors file, atomically."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in exported.backbone.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={BACKBONE: json.dumps(exported.meta)})


Given = nn.Module | str | None
"""A network of the user's own: a module, or the name of what makes one."""


def load_backbone(
    path: str | Path, backbone: Given = None, notice: Callable[[str], None] = warnings.warn
) -> ExportedBackbone:
    """Load an exported backbone, from a run or from a file.

    Args:
        path: a run's directory, or a ``.safetensors`` file written by coview: a
            backbone, or a classifier on one.
        backbone: for a run whose backbone was the user's own: a module to load into, or
            ``file.py:function`` or ``module:function``, which makes one. A run's directory
            may name it (:func:`coview.weights.own.recorded`); a file alone is never obeyed.
        notice: called with a sentence when a run's directory says what to import.

    Returns:
        A module in evaluation mode: (B, C, H, W) float in [0, 1] -> (B, D).

    Raises:
        RequestError: there is no such file, or coview did not write it.
    """
    card, tensors = stored(path)
    if isinstance(backbone, str) and not card.given:
        raise RequestError(
            "--backbone is only for other programs' files and for networks of one's own; "
            f"{path} already names its network."
        )
    if backbone is None and card.given and (found := recorded(Path(path))) is not None:
        notice(found.note())
        backbone = found.code
    given = _spec_of(backbone, card)
    with importing_nothing(f"{path} names code to import, which a file of weights must not."):
        module, views = _build(card, given)
    refuse_other_heads(card, module, path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CoviewError(f"{path} does not fit backbone {card.backbone!r}: {error}") from error
    return ExportedBackbone(module, card, views).eval()


def stored(path: str | Path) -> tuple[WeightCard, dict[str, Tensor]]:
    """Return the card and the backbone's tensors in a run or a file.

    Raises:
        RequestError: there is no such file, or coview did not write it.
        CoviewError: it is damaged.
    """
    file = Path(path)
    file = file / "backbone.safetensors" if file.is_dir() else file
    if not file.is_file():
        raise RequestError(f"There is no exported backbone at {file}.")
    metadata, tensors = read(file)
    if CLASSIFIER in metadata:
        inside = {k.removeprefix(INSIDE): v for k, v in tensors.items() if k.startswith(INSIDE)}
        return WeightCard.of(json.loads(metadata[CLASSIFIER])["meta"]), inside
    if BACKBONE in metadata:
        return WeightCard.of(json.loads(metadata[BACKBONE])), tensors
    raise RequestError(f"{file} was not written by coview: it does not name its backbone.")


def _spec_of(backbone: Given, card: WeightCard) -> BackboneSpec | None:
    """Return how to build a network of the user's own; None: there is none."""
    if isinstance(backbone, str):
        settings, _ = structure(BackboneSettings, {}, "backbone")
        return BackboneSpec(backbone, find_backbone(backbone)[0], settings)
    return None if backbone is None else from_module(backbone, card.channels, card.size)


def _build(card: WeightCard, given: BackboneSpec | None) -> tuple[nn.Module, nn.Module | None]:
    """Return the backbone that a card names, and the views it needs, if any."""
    spec = given or _spec(card)
    if card.parts is not None:
        return rebuilt(card.parts, spec)
    return spec.build(card.channels, card.size), None


def build_backbone(card: WeightCard) -> nn.Module:
    """Return a fresh backbone of the kind that a card names."""
    with importing_nothing("A file of weights names code to import, which it must not."):
        return _spec(card).build(card.channels, card.size)


def _spec(card: WeightCard) -> BackboneSpec:
    if card.given:
        raise RequestError(_whose(card))
    if not card.backbone:
        raise CoviewError("These weights do not name their network.")
    settings, problems = structure(BackboneSettings, card.settings, "backbone")
    if problems:
        raise CoviewError(" ".join(problems))
    return BackboneSpec(card.backbone, find_backbone(card.backbone)[0], settings)


def _whose(card: WeightCard) -> str:
    """Return what to add so that weights of a network of the user's own can be loaded."""
    if card.code is not None:
        return (
            f"These weights are of a network of your own, made by {card.code}. A file of weights "
            f"has nothing imported, so add: --backbone {card.code} (in Python: "
            f"backbone={card.code!r})."
        )
    return (
        f"This run's backbone was a Python object ({card.backbone}), which no command can make. "
        f"Add: --backbone FILE.py:FUNCTION, a function that returns a {card.backbone} (in Python: "
        f"backbone={card.backbone}(...))."
    )
