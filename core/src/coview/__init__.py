"""coview: train image encoders without labels, from exchangeable parts.

Names are imported when they are first used, so ``from coview import Recipe, Use``
(all that a recipe's module needs) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from coview.moved import install

install()

_HOME = {
    "hookimpl": "coview.hookspecs",
    "setting": "coview.settings",
    "Recipe": "coview.recipes.recipe",
    "Use": "coview.recipes.recipe",
    "Plan": "coview.plan",
    "Layout": "coview.plan",
    "cosine": "coview.schedules",
    "linear": "coview.schedules",
    "Schedule": "coview.schedules",
    "Batch": "coview.records",
    "Views": "coview.records",
    "Encoded": "coview.records",
    "Targets": "coview.records",
    "Negatives": "coview.records",
    "Step": "coview.records",
    "CoviewError": "coview.errors",
    "RequestError": "coview.errors",
    "PluginError": "coview.errors",
    "train": "coview.api",
    "recipe": "coview.api",
    "component": "coview.api",
    "build": "coview.api",
    "load_backbone": "coview.api",
    "neighbours": "coview.evaluation.looking",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'coview' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
