"""Old names of modules, for plugins that were written for version 0.1.

They still work, with a ``DeprecationWarning``, until version 0.3.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "coview.assignments": "coview.losses.assignments",
    "coview.backbones": "coview.nn.backbones",
    "coview.comparison": "coview.losses.similarity",
    "coview.compiling": "coview.nn.compile",
    "coview.constants": "coview.nn.constants",
    "coview.contrast": "coview.losses.softmax",
    "coview.data.bad": "coview.data.bad_images",
    "coview.data.folder": "coview.data.sources.folder",
    "coview.data.layout": "coview.data.sources.arrays",
    "coview.data.listing": "coview.data.sources.folder",
    "coview.data.named": "coview.data.sources.torchvision",
    "coview.data.reading": "coview.data.loader",
    "coview.encoders": "coview.nn.encoder",
    "coview.evaluation.classifiers": "coview.weights.classifier",
    "coview.evaluation.exported": "coview.weights.exported",
    "coview.evaluation.frozen": "coview.evaluation.features",
    "coview.evaluation.protocols": "coview.optim.protocols",
    "coview.evaluation.subsets": "coview.data.splits",
    "coview.evaluation.supervised": "coview.evaluation.classifier",
    "coview.guards": "coview.components",
    "coview.heads": "coview.nn.heads",
    "coview.neutral": "coview.method.neutral",
    "coview.training.distributed": "coview.distributed",
    "coview.training.optimizers": "coview.optim.optimizers",
}


class _Moved(MetaPathFinder, Loader):
    """Answers the import of an old name with a module that forwards to the new one."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        now = MOVED[module.__name__]
        text = f"{module.__name__} is now {now}; version 0.3 removes the old name."
        warnings.warn(text, DeprecationWarning, stacklevel=2)

        def find(name: str) -> Any:
            return getattr(importlib.import_module(now), name)

        module.__doc__ = text
        module.__getattr__ = find  # type: ignore[method-assign]


def install() -> None:
    """Make the old names importable; modules that really exist take precedence."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
