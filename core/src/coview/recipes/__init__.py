"""A method written down: read, changed, checked. Nothing here imports torch."""

from coview.recipes.recipe import (
    Recipe,
    Use,
    find_recipe,
    from_document,
    method_names,
    read_recipe,
    to_document,
    to_toml,
)

__all__ = [
    "Recipe",
    "Use",
    "find_recipe",
    "from_document",
    "method_names",
    "read_recipe",
    "to_document",
    "to_toml",
]
