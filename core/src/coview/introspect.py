"""Tell what the author of a class wrote from what its base classes brought."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def _bodies(cls: type) -> list[type]:
    """Return the classes that its author wrote: neither the core's nor a library's."""
    others = ("coview", "torch", "timm", "builtins", "abc", "typing", "kornia", "torchvision")
    return [c for c in cls.__mro__ if c.__module__.partition(".")[0] not in others]


def written(cls: type, code: bool) -> list[str]:
    """Return the public names that a class's author wrote: methods (``code``) or plain values.

    Names that a base class of the core or of a library already has are left out.
    """
    bodies = _bodies(cls)
    given = [base for base in cls.__mro__ if base not in bodies]
    bases = {name for base in given for name in (*vars(base), *inspect.get_annotations(base))}
    return [
        name
        for body in bodies
        for name, value in vars(body).items()
        if not name.startswith("_") and name not in bases and _is_code(value) == code
    ]


def _is_code(value: Any) -> bool:
    kinds = (property, functools.cached_property, staticmethod, classmethod)
    return callable(value) or isinstance(value, kinds) or inspect.isdatadescriptor(value)
