"""From a user's request to a resolved recipe, the same way for command line and Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coview.errors import RequestError, unknown, within
from coview.own_code import refuse_unsaid
from coview.recipes.override import Layers
from coview.recipes.recipe import SOURCE, TABLES, Recipe, find_recipe, read_layers
from coview.recipes.resolve import Resolved, resolve
from coview.recipes.tables import FEW_IMAGES, SMALL_IMAGE, SMALL_PRESETS, DataSettings
from coview.registry import entries
from coview.settings import structure

OWN = (("backbone", "backbones", "--backbone "), ("views", "views", "--use views="))
"""What may be code of the user's own: table, kind, and the option that names it."""


@attrs.frozen(kw_only=True)
class Changes:
    """The changes that a user makes to a recipe.

    Attributes:
        use: role -> component's name, or names (negatives).
        set: ``ROLE.KEY`` -> value.
        epochs, batch_size, accumulate, backbone, image_size, on_bad_image: shortcuts.
        preset: a name; ``"none"``: no preset; None: chosen by the images' size and number.
        below: changes that a recipe file is laid over, each with its origin: a project's defaults.
    """

    use: Mapping[str, str | Sequence[str]] = attrs.field(factory=dict)
    set: Mapping[str, Any] = attrs.field(factory=dict)
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    backbone: str | None = None
    image_size: int | None = None
    on_bad_image: str | None = None
    preset: str | None = None
    below: tuple[tuple[str, Changes], ...] = ()


def configure(
    method: str | Path | Recipe,
    native: int | None,
    changes: Changes,
    layer: str,
    images: int | None = None,
) -> Resolved:
    """Resolve a method with changes, for images of a given size.

    Args:
        method: a method's name, a TOML file, or a recipe.
        native: pixels per side of the stored images; None: the recipe alone decides.
        changes: what the user set.
        layer: the origin that is shown for those values.
        images: number of images to train on, if known; it decides the preset of large ones.

    Raises:
        RequestError: with every problem found.
    """
    recipe, written = (method, {}) if isinstance(method, Recipe) else read_layers(method)
    layers = Layers(recipe)
    given = [changes.image_size, changes.set.get("data.size"), written.get("data", {}).get("size")]
    given += [lower.set.get("data.size") for _, lower in reversed(changes.below)]
    size = _image_size(native, given, recipe)
    preset = _preset(layers, changes.preset, size)
    notices: list[str] = []
    if changes.preset is None and (preset == "small" or not any(given)):
        preset = _preset_for_few(layers, size, images, notices.append) or preset
    if preset in SMALL_PRESETS and size is not None and not any(given):
        size = min(size, SMALL_IMAGE)
    if preset is not None:
        own, laid = isinstance(method, Recipe), recipe.presets[preset]
        laid = _fitting(recipe, laid) if own else laid
        lay_preset(layers, preset, laid)
    lay_written(layers, changes, written)
    if changes.image_size is not None:
        layers.set("data.size", changes.image_size, layer)
    elif native is not None and size not in (None, *given):
        layers.set("data.size", size, "data")
    lay(layers, changes, layer)
    if not isinstance(method, Recipe):
        _refuse_code(layers, Path(method), changes)
    return resolve(layers, preset, notices)


def _refuse_code(layers: Layers, file: Path, changes: Changes) -> None:
    said = [changes.backbone or ""]
    for use in changes.use.values():
        said += [use] if isinstance(use, str) else use
    named = []
    for table, kind, option in OWN:
        installed = {f"{entry.package}:{entry.name}" for entry in entries(kind)}
        named += [(option, d.name) for d in layers.tables[table] if d.name not in installed]
    refuse_unsaid(file, named, said)


def _image_size(native: int | None, given: Sequence[Any], recipe: Recipe) -> int | None:
    # Small images use the small preset at their own size: the recipe's size is for larger ones.
    small = native is not None and DataSettings().delivered_size(native) <= SMALL_IMAGE
    own = None if small and "small" in recipe.presets else recipe.data.get("size")
    asked = next((size for size in (*given, own) if size is not None), None)
    size = None if asked == "none" else asked
    settings, problems = structure(DataSettings, {"size": size}, "data")
    if problems:
        return None  # reported with everything else, when the recipe is resolved
    found: int | None = settings.size if native is None else settings.delivered_size(native)
    return found


def _preset(layers: Layers, asked: str | None, size: int | None) -> str | None:
    presets = layers.recipe.presets
    if asked == "none" or asked in presets:
        return None if asked == "none" else asked
    if asked is not None:
        layers.problems.append(unknown("preset", asked, [*presets, "none"]))
        return None
    small = size is not None and size <= SMALL_IMAGE
    return "small" if small and "small" in presets else None


def _preset_for_few(
    layers: Layers, size: int | None, images: int | None, notice: Callable[[str], None]
) -> str | None:
    """Return the preset for a set too small for the network and the epochs of a paper."""
    if size is None or images is None:
        return None
    for preset, most in FEW_IMAGES.items():
        if images < most and preset in layers.recipe.presets:
            if size > SMALL_IMAGE or preset != "small":
                notice(
                    f"{images} images are few: preset {preset} at {min(size, SMALL_IMAGE)} pixels. "
                    "The paper's network, size and epochs, for more and a GPU: --preset none"
                )
            return preset
    return None


def _fitting(recipe: Recipe, preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out a preset's settings for components that the recipe has replaced.

    A recipe made from an installed one (``attrs.evolve(recipe, loss=Use("mine"))``)
    keeps its presets, but their settings are for the original components.
    """
    try:
        written_for = find_recipe(recipe.name)
    except RequestError:
        return preset  # the user's own recipe, or a name that two packages claim

    def fits(table: str, value: Any) -> bool:
        if table not in TABLES or not isinstance(value, Mapping) or "use" in value:
            return True
        now, then = recipe.uses(table), written_for.uses(table)
        return [use.name for use in now] == [use.name for use in then]

    return {table: value for table, value in preset.items() if fits(table, value)}


def lay_preset(layers: Layers, name: str, preset: Mapping[str, Any]) -> None:
    """Lay a preset over a recipe, the first of all layers."""
    before, layer = len(layers.problems), f"preset {name}"
    layers.change({k: v for k, v in preset.items() if k != SOURCE}, layer)
    layers.problems[before:] = [within(layer, text) for text in layers.problems[before:]]


def lay_written(layers: Layers, changes: Changes, written: Mapping[str, Any]) -> None:
    """Lay what is written in files over a recipe: a project's defaults, then a recipe file."""
    for origin, lower in changes.below:
        lay(layers, lower, origin)
    layers.change(written, "file")


def lay(layers: Layers, changes: Changes, layer: str) -> None:
    """Lay a user's changes over a recipe; problems are collected in ``layers``."""
    for key in ("epochs", "batch_size", "accumulate"):
        if (value := getattr(changes, key)) is not None:
            layers.scalar(key, value, layer)
    if changes.backbone is not None:
        # Another backbone keeps the settings (the stem, say) that fit the images.
        (draft,) = layers.tables["backbone"]
        draft.name, draft.layer = changes.backbone, layer
    if changes.on_bad_image is not None:
        layers.set("data.on_bad_image", changes.on_bad_image, layer)
    for role, names in changes.use.items():
        layers.use(role, [names] if isinstance(names, str) else list(names), layer)
    for path, value in changes.set.items():
        layers.set(path, value, layer)
