"""Recipes: read, changed and checked, without importing torch."""

from coview.recipes.recipe import Recipe, Use, find_recipe, method_names, to_toml

__all__ = ["Recipe", "Use", "find_recipe", "method_names", "to_toml"]
