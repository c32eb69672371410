"""A recipe: a method as data.

It names a component and its settings for each role, plus optimiser,
schedule, backbone, epochs and batch size. Making one imports neither
components nor torch. A recipe prints as TOML and is read back from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from coview.errors import CoviewError, PluginError, RequestError, unknown
from coview.hookspecs import ROLES, SEVERAL
from coview.registry import entries, find
from coview.settings import plain, read_toml

AFTERWARDS = ("probe", "finetune", "knn")
"""Tables that say how the method's authors evaluated weights; training does not use them."""

COMPONENTS = (*ROLES, "wrap")
"""The parts of a recipe that make up the method."""

TABLES = (*COMPONENTS, "backbone", "optimizer", "schedule", *AFTERWARDS)
"""The parts of a recipe that name something and give it settings."""

LISTS = ("negatives", "wrap")
"""Those that are always a tuple; the others of :data:`coview.hookspecs.SEVERAL` may be one."""

TEXTS = ("name", "summary", "paper")

SOURCE = "source"
"""The key of a preset that changes nothing, but says where the preset is from."""

SCALARS = ("epochs", "batch_size", "accumulate", "evaluates")


@attrs.frozen(init=False)
class Use:
    """A component by name, with the settings that differ from its defaults."""

    name: str
    settings: Mapping[str, Any]

    def __init__(self, name: str, /, **settings: Any) -> None:
        self.__attrs_init__(name, settings)


def _use(value: Use | str) -> Use:
    return Use(value) if isinstance(value, str) else value


Several = Use | tuple[Use, ...]


def _uses(value: Use | str | tuple[Use | str, ...] | list[Use | str]) -> tuple[Use, ...]:
    several = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(_use(item) for item in several)


def _one_or_more(value: Any) -> Several:
    uses = _uses(value)
    return uses[0] if len(uses) == 1 else uses


@attrs.frozen(kw_only=True)
class Recipe:
    """A method with every setting that its paper fixes.

    Attributes:
        summary: the method in one line.
        paper: where it is published, e.g. ``"arXiv:2003.04297"``.
        views, encoder, target, loss: a component for each role. Several views are a mixture,
            of which each step draws one; several losses are summed. Each of them may have a
            ``weight`` beside its own settings.
        negatives: one source or several; the loss gets a part from each.
        wrap: wrappers, which see what goes into the roles and what comes out; the first is
            the innermost.
        backbone: a registered or timm name; settings choose its stem.
        optimizer, schedule: registered names with settings.
        epochs: passes over the training set.
        batch_size: images per optimiser step, over all processes and
            micro-batches.
        accumulate: micro-batches per optimiser step.
        evaluates: the network that is exported and evaluated, ``"online"`` or
            ``"target"``.
        probe: the published linear probe of frozen weights, ``Use("sgd", ...)`` or
            ``Use("svm", ...)``; see :mod:`coview.optim.protocols`.
        finetune: the published fine-tuning with labels, ``Use("sgd", ...)``.
        knn: the published vote of neighbours, ``Use("knn", ...)``.
        data: settings of the loader (table ``data``).
        presets: named sets of changes for other situations. ``"small"`` is used
            for images of at most 64 pixels. A preset's ``source`` says where all of it is
            published, or that it is the package's own ("ours: ...", with the reasons). A setting
            of one of several losses: ``{"loss": {"info-nce": {"temperature": 0.2}}}``.
        name: filled in when the recipe is looked up.
    """

    summary: str
    paper: str = ""
    views: Several = attrs.field(converter=_one_or_more)
    encoder: Use = attrs.field(converter=_use)
    target: Use = attrs.field(default=Use("shared"), converter=_use)
    negatives: tuple[Use, ...] = attrs.field(default=(Use("none"),), converter=_uses)
    loss: Several = attrs.field(converter=_one_or_more)
    wrap: tuple[Use, ...] = attrs.field(default=(), converter=_uses)
    backbone: Use = attrs.field(default=Use("resnet50"), converter=_use)
    optimizer: Use = attrs.field(converter=_use)
    schedule: Use = attrs.field(converter=_use)
    epochs: int = 200
    batch_size: int = 256
    accumulate: int = 1
    evaluates: str = "online"
    probe: Use = attrs.field(default=Use("none"), converter=_use)
    finetune: Use = attrs.field(default=Use("none"), converter=_use)
    knn: Use = attrs.field(default=Use("none"), converter=_use)
    data: Mapping[str, Any] = attrs.field(factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    name: str = ""

    def uses(self, table: str) -> tuple[Use, ...]:
        """Return what a table names: one component, or several where that is possible."""
        value = getattr(self, table)
        return value if isinstance(value, tuple) else (value,)


def find_recipe(name_or_path: str | Path) -> Recipe:
    """Return the recipe of an installed method, or read one from a TOML file.

    Raises:
        RequestError: there is no such method, or the file is not a recipe.
        PluginError: the method's package is broken.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        return read_recipe(Path(text))
    entry = find("methods", text)
    recipe = entry.load()
    if not isinstance(recipe, Recipe):
        raise PluginError(
            f"Package {entry.package}: method {entry.name!r} ({entry.value}) must be a "
            f"coview.Recipe, not {type(recipe).__name__}."
        )
    return attrs.evolve(recipe, name=entry.name)


def method_names() -> list[str]:
    """Return the names of the installed methods."""
    return [entry.name for entry in entries("methods")]


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file; with ``base = "METHOD"`` it need only list what differs."""
    return _read(path)[0]


def read_layers(name_or_path: str | Path) -> tuple[Recipe, Mapping[str, Any]]:
    """Return a recipe, and what a file changes in it.

    For a file with a base, these are the base and the rest of the file, so that
    the file's values win over a preset of the base.

    Raises:
        RequestError, PluginError: as :func:`find_recipe`.
    """
    if not str(name_or_path).endswith(".toml"):
        return find_recipe(name_or_path), {}
    whole, document = _read(Path(name_or_path))
    if "base" not in document:
        return whole, {}
    changes = {k: v for k, v in document.items() if k in (*TABLES, *SCALARS, "data")}
    base = find_recipe(document["base"])
    about = {key: getattr(whole, key) for key in (*TEXTS, "presets")}
    return attrs.evolve(base, **about), changes


def _read(path: Path) -> tuple[Recipe, dict[str, Any]]:
    try:
        document = read_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"There is no recipe file {path}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path} cannot be read as TOML: {error}") from error
    document.pop("run", None)
    try:
        return from_document(document), document
    except RequestError as error:
        raise RequestError(*(f"{path}: {problem}" for problem in error.problems)) from error


def from_document(document: Mapping[str, Any]) -> Recipe:
    """Make a recipe from a TOML document's plain values."""
    names = [field.name for field in attrs.fields(Recipe)]
    problems = [unknown("key", k, [*names, "base"]) for k in document if k not in (*names, "base")]
    problems += _misshapen(document)
    if problems:
        raise RequestError(*problems)
    base = document.get("base")
    start: dict[str, Any] = {}
    if base is not None:
        start = attrs.asdict(find_recipe(base), recurse=False)
    values = {key: value for key, value in document.items() if key != "base"}
    for table in TABLES:
        if table in values:
            values[table] = _merge_table(table, start.get(table), values[table])
    if "data" in values:
        values["data"] = {**start.get("data", {}), **values["data"]}
    if "presets" in values:
        values["presets"] = {**start.get("presets", {}), **values["presets"]}
    try:
        return Recipe(**{**start, **values})
    except TypeError as error:
        raise RequestError(f"incomplete recipe: {error}. Add what is missing or a base.") from error


def _misshapen(document: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each key that must be a text or a table and is not."""
    texts = {**dict.fromkeys(TEXTS, "text"), "base": "a method's name"}
    problems = [
        f"{key} must be {what}, not {document[key]!r}."
        for key, what in texts.items()
        if not isinstance(document.get(key, ""), str)
    ]
    presets = document.get("presets", {})
    tables = {"data": document.get("data", {}), "presets": presets}
    if isinstance(presets, Mapping):
        tables |= {f"presets.{name}": preset for name, preset in presets.items()}
    problems += [
        f"{key} must be a table, not {value!r}."
        for key, value in tables.items()
        if not isinstance(value, Mapping)
    ]
    return problems


def _merge_table(table: str, start: Use | tuple[Use, ...] | None, value: Any) -> Any:
    """Lay a TOML table (or an array of tables, or a name) over the base's table."""
    several = value if isinstance(value, list) else [value]
    before = start if isinstance(start, tuple) else (start,)
    merged = []
    for position, item in enumerate(several):
        under = before[position] if position < len(before) else None
        if isinstance(item, str):
            item = {"use": item}
        if not isinstance(item, Mapping):
            raise RequestError(f"{table} must be a table with a key 'use', not {item!r}.")
        name = item.get("use", under.name if under else None)
        if not isinstance(name, str):
            raise RequestError(f"{table} needs a name: use = NAME.")
        kept = under.settings if under and under.name == name else {}
        merged.append(Use(name, **{**kept, **{k: v for k, v in item.items() if k != "use"}}))
    if len(merged) > 1 and table not in (*SEVERAL, *LISTS):
        raise RequestError(f"{table} takes one component, not {len(merged)}.")
    return tuple(merged) if table in LISTS or len(merged) > 1 else merged[0]


def to_document(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain values, in the order in which they read best."""
    document: dict[str, Any] = {"name": recipe.name, "summary": recipe.summary}
    document["paper"] = recipe.paper
    document |= {key: getattr(recipe, key) for key in SCALARS}
    for table in TABLES:
        tables = [{"use": use.name, **plain(use.settings)} for use in recipe.uses(table)]
        if tables:
            document[table] = tables[0] if len(tables) == 1 else tables
    document["data"] = plain(recipe.data)
    if recipe.presets:
        document["presets"] = {name: _plain_preset(p) for name, p in recipe.presets.items()}
    return document


def by_path(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables, each with its path, such as ``optimizer.lr``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from by_path(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _plain_preset(preset: Mapping[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, Use):
            return {"use": value.name, **plain(value.settings)}
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Use):
            return [one(item) for item in value]
        return plain(value)

    return {key: one(value) for key, value in preset.items()}


def to_toml(recipe: Recipe, **tables: Mapping[str, Any]) -> str:
    """Return the recipe as TOML, followed by further tables (``run``)."""
    try:
        return tomli_w.dumps({**to_document(recipe), **tables})
    except TypeError as error:
        raise CoviewError(f"TOML cannot hold a value of this recipe: {error}.") from error
