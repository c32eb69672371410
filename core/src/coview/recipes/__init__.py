"""A method written down: read, changed, checked. Nothing here imports torch."""

from coview.recipes.recipe import Recipe, Use, find_recipe, method_names, to_toml

__all__ = ["Recipe", "Use", "find_recipe", "method_names", "to_toml"]
