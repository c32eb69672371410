"""From what a user asked for to a resolved recipe: the one path of CLI and Python."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coview.data.assemble import delivered_size
from coview.data.base import SMALL_IMAGE, DataSettings, Source
from coview.errors import RequestError, unknown
from coview.recipes.override import Layers
from coview.recipes.recipe import TABLES, Recipe, find_recipe, read_layers
from coview.recipes.resolve import Resolved, resolve
from coview.settings import between, ge, literal, read_toml, setting, structure


@attrs.frozen(kw_only=True)
class Changes:
    """What is laid over a recipe, apart from a preset.

    Attributes:
        use: role -> component's name, or names (negatives).
        set: ``ROLE.KEY`` -> value.
        epochs, batch_size, accumulate, backbone, image_size, on_bad_image: shortcuts.
        preset: by name; ``"none"`` for none; None to choose by image size.
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


def configure(
    method: str | Path | Recipe, source: Source | None, changes: Changes, layer: str
) -> Resolved:
    """Resolve a method with changes, for a data source.

    Args:
        method: a method's name, a TOML file, or a recipe.
        source: decides the preset by its images' size; None: the recipe alone.
        changes: what the user set.
        layer: how the origin of those values is called.

    Raises:
        RequestError: with every problem found.
    """
    recipe, written = (method, {}) if isinstance(method, Recipe) else read_layers(method)
    layers = Layers(recipe)
    size = _image_size(source, written.get("data", {}).get("size"), recipe, changes)
    preset = _preset(layers, changes.preset, size)
    if preset is not None:
        laid = recipe.presets[preset]
        if isinstance(method, Recipe):
            laid = _fitting(recipe, laid)
        layers.change(laid, f"preset {preset}")
    layers.change(written, "file")
    if changes.image_size is not None:
        layers.set("data.size", changes.image_size, layer)
    elif size is not None and source is not None:
        layers.set("data.size", size, "data")
    _lay(layers, changes, layer)
    return resolve(layers, preset)


def _image_size(
    source: Source | None, written: Any, recipe: Recipe, changes: Changes
) -> int | None:
    own = None if _takes_small(source, recipe) else recipe.data.get("size")
    given = (changes.image_size, changes.set.get("data.size"), written, own)
    asked = next((size for size in given if size is not None), None)
    if asked == "none":
        asked = None
    settings, problems = structure(DataSettings, {"size": asked}, "data")
    if problems:
        return None  # reported with everything else, when it is resolved
    if source is None:
        return settings.size  # type: ignore[no-any-return]
    return delivered_size(settings, source.native_size())


def _takes_small(source: Source | None, recipe: Recipe) -> bool:
    """Whether these images take the small preset at their own size: the recipe's is for larger."""
    if source is None or "small" not in recipe.presets:
        return False
    return delivered_size(DataSettings(), source.native_size()) <= SMALL_IMAGE


def _preset(layers: Layers, asked: str | None, size: int | None) -> str | None:
    presets = layers.recipe.presets
    if asked == "none" or asked in presets:
        return None if asked == "none" else asked
    if asked is not None:
        layers.problems.append(unknown("preset", asked, [*presets, "none"]))
        return None
    small = size is not None and size <= SMALL_IMAGE
    return "small" if small and "small" in presets else None


def _fitting(recipe: Recipe, preset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out a preset's settings for components that the recipe has replaced.

    A recipe made from an installed one (``attrs.evolve(recipe, loss=Use("mine"))``)
    keeps its presets, whose settings are for the components they were written for.
    """
    try:
        written_for = find_recipe(recipe.name)
    except RequestError:
        return preset  # a recipe of one's own, or a name that two packages claim

    def fits(table: str, value: Any) -> bool:
        if table not in TABLES or not isinstance(value, Mapping) or "use" in value:
            return True
        now, then = recipe.uses(table), written_for.uses(table)
        return [use.name for use in now] == [use.name for use in then]

    return {table: value for table, value in preset.items() if fits(table, value)}


def _lay(layers: Layers, changes: Changes, layer: str) -> None:
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


def parse_use(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read ``ROLE=NAME[,NAME]`` from the command line."""
    pairs = _pairs("--use", "ROLE=COMPONENT", texts)
    return {role: [name.strip() for name in names.split(",")] for role, names in pairs.items()}


def parse_set(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``ROLE.KEY=VALUE`` from the command line; values are TOML, or text."""
    pairs = _pairs("--set", "ROLE.KEY=VALUE", texts)
    return {path: literal(value) for path, value in pairs.items()}


def _pairs(option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    problems = [f"{option} takes {form}, not {text!r}." for text in texts if "=" not in text]
    if problems:
        raise RequestError(*problems)
    split = (text.split("=", 1) for text in texts)
    return {key.strip(): value.strip() for key, value in split}


SEEDS = (-(2**63), 2**63 - 1)
"""What a generator can be seeded with."""


@attrs.frozen
class RunTable:
    """The ``[run]`` table of a recipe file: what its run was beside the recipe."""

    data: str | None = setting(None, "SOURCE[:PATH]")
    seed: int | None = setting(None, "of everything random", between(*SEEDS))
    precision: str | None = setting(None, "auto, fp32, bf16 or fp16")
    workers: int | None = setting(None, "processes that decode images", ge(0))
    max_steps: int | None = setting(None, "steps after which it stops", ge(1))
    preset: str | None = setting(None, "the preset that was laid over the recipe")


def run_table(method: str | Path | Recipe) -> dict[str, Any]:
    """Return the ``[run]`` table of a recipe file that a run left, else nothing.

    Raises:
        RequestError: the table is none, or holds what a run does not.
    """
    if isinstance(method, Recipe) or not str(method).endswith(".toml"):
        return {}
    try:
        table = read_toml(Path(method).read_text(encoding="utf-8")).get("run", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}  # reading the recipe itself gives the error
    if not isinstance(table, Mapping):
        raise RequestError(f"{method}: run must be a table, not {table!r}.")
    _, problems = structure(RunTable, table, f"{method}: run")
    if problems:
        raise RequestError(*problems)
    return dict(table)
