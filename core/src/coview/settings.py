"""Settings: what a component lets its user choose, declared once.

``setting(default, help, *validators)`` declares one inside an attrs class; its
help, type and range are used by ``coview show``, by validation and in error
messages. :func:`structure` turns plain values (from TOML, the command line or
Python) into an instance, strictly: ``"false"`` is no bool and 2.7 no int.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

import attrs
import cattrs
from attrs import validators as _v

from coview.errors import nearest
from coview.schedules import Schedule, parse

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], Any]


def setting(default: Any, help: str, *validators: Validator) -> Any:
    """Declare a setting in an attrs class.

    Args:
        default: the paper's value.
        help: what it means, with its unit; shown by ``coview show``.
        validators: attrs validators, or this module's :func:`gt`, :func:`ge`,
            :func:`between`, :func:`one_of`. A schedule's start and end are
            checked as numbers would be, and None is always let through.
    """
    checks = [_each_end(check) for check in validators]
    return attrs.field(default=default, metadata={"help": help}, validator=checks or None)


def gt(bound: float) -> Validator:
    """Above ``bound``."""
    return _v.gt(bound)


def ge(bound: float) -> Validator:
    """At least ``bound``."""
    return _v.ge(bound)


def between(low: float, high: float) -> Validator:
    """In the closed interval [``low``, ``high``]."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not low <= value <= high:
            raise ValueError(f"'{attribute.name}' must be between {low} and {high}: {value}")

    return check


def one_of(*choices: Any) -> Validator:
    """One of ``choices``."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            listed = ", ".join(map(str, choices))
            hint = nearest(str(value), map(str, choices))
            raise ValueError(f"'{attribute.name}' must be one of {listed}: {value!r}.{hint}")

    return check


def increasing(low: float, high: float) -> Validator:
    """A pair (a, b) with ``low`` <= a <= b <= ``high``."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not low <= value[0] <= value[1] <= high:
            raise ValueError(
                f"'{attribute.name}' must be two rising numbers in [{low}, {high}]: {value}"
            )

    return check


def _each_end(check: Validator) -> Validator:
    def apply(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        for end in ends:
            if end is not None:
                check(instance, attribute, end)

    return apply


def literal(text: str) -> Any:
    """Read a command line's value as TOML; what is none of that is text.

    >>> literal("0.2"), literal("[1, 2]"), literal("true"), literal("sgd")
    (0.2, [1, 2], True, 'sgd')
    """
    try:
        return read_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        tomllib.TOMLDecodeError: it is none, or none that Python can read: nested by
            the thousand, a number of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise tomllib.TOMLDecodeError(str(error)) from error


def plain(value: Any) -> Any:
    """Return a settings value as TOML can write it (a schedule and None as text)."""
    if isinstance(value, Schedule):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return "none" if value is None else value


def fields_of(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields of a settings class, annotations resolved."""
    attrs.resolve_types(cls, include_extras=True)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    return fields


def structure(cls: type, values: Mapping[str, Any], where: str) -> tuple[Any, list[str]]:
    """Build ``cls`` from plain values.

    Args:
        cls: an attrs class made of :func:`setting` fields.
        values: by name; missing ones take their default.
        where: how messages call the place, e.g. ``"negatives"``.

    Returns:
        The instance (None if anything was wrong) and every problem found.
    """
    fields = {field.name: field for field in fields_of(cls)}
    problems: list[str] = []
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            listed = f" Its keys: {', '.join(fields)}." if fields else " It has no settings."
            problems.append(f"{where} has no setting {key!r}.{nearest(key, fields)}{listed}")
            continue
        try:
            chosen[key] = _structure_value(value, fields[key].type)
            validate = fields[key].validator
            if validate is not None:
                validate(None, fields[key], chosen[key])
        except (ValueError, TypeError, cattrs.BaseValidationError) as error:
            problems.append(f"{where}.{key}: {_reason(error)}")
    if problems:
        return None, problems
    return cls(**chosen), []


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    # attrs puts more than the message into args; the first is the sentence.
    return str(error.args[0]) if error.args else str(error)


def describe(type_: Any) -> str:
    """Name a setting's type as users write it."""
    if _is_optional(type_):
        return " or ".join("none" if a is type(None) else describe(a) for a in get_args(type_))
    if get_origin(type_) is tuple:
        inner = get_args(type_)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return f"list of {describe(inner[0])}"
        return f"list of {len(inner)} {describe(inner[0])}"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(type_, getattr(type_, "__name__", str(type_)).lower())


def _is_optional(type_: Any) -> bool:
    return get_origin(type_) in (types.UnionType, Union)


def _is_tuple(type_: Any) -> bool:
    origin: Any = get_origin(type_)
    return origin is tuple


def _structure_value(value: Any, type_: Any) -> Any:
    try:
        return _CONVERTER.structure(value, type_)
    except (ValueError, TypeError, cattrs.BaseValidationError) as error:
        if "schedule" in (reason := _reason(error)):
            raise
        raise ValueError(f"expected {describe(type_)}, got {value!r} ({reason})") from error


def _exactly(type_: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not type_:
            raise ValueError(f"this is {type(value).__name__}")
        return value

    return hook


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"this is {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("this is too large") from None


def _union(value: Any, type_: Any) -> Any:
    members = get_args(type_)
    if type(None) in members and (value is None or value == "none"):
        return None
    if Schedule in members:
        if isinstance(value, Schedule):
            return value
        if isinstance(value, str):
            return parse(value)
    failures = []
    for member in members:
        if member in (type(None), Schedule):
            continue
        try:
            return _CONVERTER.structure(value, member)
        except (ValueError, TypeError, cattrs.BaseValidationError) as error:
            failures.append(_reason(error))
    raise ValueError("; ".join(failures))


def _tuple(value: Any, type_: Any) -> tuple[Any, ...]:
    inner = get_args(type_)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"this is {type(value).__name__}")
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_CONVERTER.structure(item, inner[0]) for item in value)
    if len(value) != len(inner):
        raise ValueError(f"these are {len(value)}")
    return tuple(_CONVERTER.structure(v, t) for v, t in zip(value, inner, strict=True))


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for type_ in (bool, int, str):
        converter.register_structure_hook(type_, _exactly(type_))
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook_func(_is_optional, _union)
    converter.register_structure_hook_func(_is_tuple, _tuple)
    return converter


_CONVERTER = _make_converter()
