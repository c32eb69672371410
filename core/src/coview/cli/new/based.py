"""What a recipe that is based on another's changes in it."""

from __future__ import annotations

import attrs

from coview.cli.source import NotKnownError, settings_of
from coview.errors import RequestError
from coview.recipes.recipe import Recipe, Use, find_recipe
from coview.registry import find


@attrs.frozen
class Based:
    """A new recipe that is another one with one change.

    Attributes:
        base: the other method's name, with its package where it was given.
        package: the distribution that the method comes from.
        versions: the versions of it that the new package requires.
        effect: the change in words.
        imports: what the recipe's module imports from coview for it.
        change: the change as an argument of ``attrs.evolve(base, ...)``.
        setting: what is changed, as `coview show` names it.
        value: its value then, as Python writes it.
    """

    base: str
    package: str
    versions: str
    effect: str
    imports: str
    change: str
    setting: str
    value: str


UNMIRRORED = (
    "images are not mirrored, for data in which left and right differ",
    "from coview import Use\n",
    'views=Use(base.views.name, **{**base.views.settings, "flip_p": 0.0})',
    "views.flip_p",
    "0.0",
)
LONGER = ("it trains twice as long", "", "epochs=2 * base.epochs", "epochs")


def based_on(base: str) -> Based:
    """Return a change that fits an installed method, for its package to start from.

    Raises:
        RequestError: there is no such method.
    """
    if base.endswith(".toml"):
        raise RequestError(
            f"--base takes an installed method, not the file {base}: no package can depend on it."
        )
    entry, recipe = find("methods", base), find_recipe(base)
    name = f"{entry.package}:{entry.name}" if ":" in base else entry.name
    change = UNMIRRORED if mirrors(recipe) else (*LONGER, str(2 * recipe.epochs))
    return Based(name, entry.package, versions_like(entry.version), *change)


def versions_like(version: str) -> str:
    """Return the versions of a package that go with this one: ``>=0.1,<0.2`` for 0.1.3."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"


def mirrors(recipe: Recipe) -> bool:
    """Whether a recipe's views mirror images, and no preset says how often."""
    if isinstance(recipe.views, tuple) or recipe.views.settings.get("flip_p") == 0.0:
        return False
    try:
        there = settings_of(find("views", recipe.views.name).value)
    except NotKnownError:
        return False
    laid = [preset.get("views", {}) for preset in recipe.presets.values()]
    said = any(isinstance(one, (Use, str, list, tuple)) or "flip_p" in one for one in laid)
    return "flip_p" in there and not said
