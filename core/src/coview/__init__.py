"""coview: train image encoders without labels, from exchangeable parts.

Names are imported when they are first used, so ``from coview import Recipe, Use``
(all that a recipe's module needs) does not import torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
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
    "load_encoder": "coview.api",
    "neighbours": "coview.api",
    "evaluate": "coview.api",
    "compare": "coview.api",
    "embed": "coview.api",
    "Embedder": "coview.api.embedder",
    "export": "coview.api",
    "views": "coview.api",
    "Run": "coview.training.run",
    "Result": "coview.api.results",
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


class _Views(ModuleType):
    """The package ``coview.views``, which can also be called: see :func:`coview.api.views`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("coview.api").views(*arguments, **options)


class _Coview(ModuleType):
    """This package. The import of ``coview.views`` must not take the function's place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "views" and isinstance(value, ModuleType):
            value.__class__ = _Views
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Coview
