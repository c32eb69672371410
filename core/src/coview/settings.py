"""Settings: what a component lets its user choose, declared once.

``setting(default, help, *validators)`` declares one inside an attrs class; its
help, type and range are used by ``coview show``, by validation and in error
messages. :func:`structure` turns plain values (from TOML, the command line or
Python) into an instance, strictly: ``"false"`` is not a bool and 2.7 is not an int.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

import attrs
import cattrs

from coview.errors import nearest, within
from coview.schedules import Schedule, parse

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], Any]
Origins = Mapping[str, str]


def setting(default: Any, help: str, *validators: Validator) -> Any:
    """Declare a setting in an attrs class.

    Args:
        default: the paper's value.
        help: what it means, with its unit; shown by ``coview show``.
        validators: attrs validators, :func:`gt`, :func:`ge`, :func:`between`, :func:`one_of`.
            A schedule's start and end are both checked; None always passes.
    """
    checks = [_each_end(check) for check in validators]
    return attrs.field(default=default, metadata={"help": help}, validator=checks or None)


def gt(bound: float) -> Validator:
    """Above ``bound``."""
    return _checked(lambda value: value > bound, f"above {bound}")


def ge(bound: float) -> Validator:
    """At least ``bound``."""
    return _checked(lambda value: value >= bound, f"at least {bound}")


def between(low: float, high: float, words: str = "") -> Validator:
    """In the closed interval [``low``, ``high``], which messages may put in ``words``."""
    return _checked(lambda value: low <= value <= high, words or f"between {low} and {high}")


def one_of(*choices: Any) -> Validator:
    """One of ``choices``."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in choices:
            listed = " or ".join(", ".join(map(str, choices)).rsplit(", ", 1))
            hint = nearest(str(value), map(str, choices))
            raise ValueError(f"{attribute.name} must be {listed}, not {value!r}.{hint}")

    return check


def matching(pattern: str, words: str) -> Validator:
    """A text that matches a regular expression as a whole, which messages put in ``words``."""
    return _checked(lambda value: re.fullmatch(pattern, value) is not None, words)


def increasing(low: float, high: float) -> Validator:
    """A pair (a, b) with ``low`` <= a <= b <= ``high``."""
    return _checked(
        lambda pair: low <= pair[0] <= pair[1] <= high, f"two rising numbers in [{low}, {high}]"
    )


def _checked(holds: Callable[[Any], bool], wanted: str) -> Validator:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not holds(value):
            raise ValueError(f"{attribute.name} must be {wanted}, not {value}")

    return check


def _each_end(check: Validator) -> Validator:
    def apply(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        for end in ends:
            if end is not None:
                check(instance, attribute, end)

    return apply


def literal(text: str) -> Any:
    """Read a value from the command line: as TOML if it is TOML, else as text.

    >>> literal("0.2"), literal("[1, 2]"), literal("(1, 2)"), literal("true"), literal("sgd")
    (0.2, [1, 2], [1, 2], True, 'sgd')
    """
    # A list may be written as Python writes a tuple.
    listed = text.translate(str.maketrans("()", "[]")) if text.startswith("(") else text
    try:
        return read_toml(f"value = {listed}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        tomllib.TOMLDecodeError: not valid TOML, or beyond Python's limits (a thousand
            nested arrays, a number of thousands of digits).
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise tomllib.TOMLDecodeError(str(error)) from error


def plain(value: Any) -> Any:
    """Return a setting's value in a form that TOML can write (a schedule and None as text)."""
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


def structure(
    cls: type, values: Mapping[str, Any], where: str, owner: str = "", by: Origins | None = None
) -> tuple[Any, list[str]]:
    """Build ``cls`` from plain values.

    Args:
        cls: an attrs class made of :func:`setting` fields.
        values: by name; missing ones take their default.
        where: what messages put before a setting's name, e.g. ``"negatives"``; may be empty.
        owner: who messages say has no such setting, if that is not ``where``.
        by: the layer that set each value; messages name a preset.

    Returns:
        The instance (None if anything was wrong) and every problem found.
    """
    fields = {field.name: field for field in fields_of(cls)}
    problems: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            own = f" Its settings: {', '.join(fields)}." if fields else " It has no settings."
            problems[key] = f"{owner or where} has no setting {key!r}.{nearest(key, fields)}{own}"
            continue
        try:
            chosen[key] = _structure_value(value, fields[key].type)
            validate = fields[key].validator
            if validate is not None:
                validate(None, fields[key], chosen[key])
        except (ValueError, TypeError, cattrs.BaseValidationError) as error:
            reason = re.sub(f"^'?{key}'? (?=must)", "", _reason(error))
            place = f"{where}.{key}".lstrip(".") + ("" if reason.startswith("must") else ":")
            problems[key] = f"{place} {reason}{'' if reason[-1:] in '.?' else '.'}"
    if problems:
        return None, [within((by or {}).get(key, ""), text) for key, text in problems.items()]
    return cls(**chosen), []


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error.args[0]) if error.args else str(error)  # attrs adds more than the message


def describe(type_: Any) -> str:
    """Name a setting's type in words, e.g. ``a list of 2 numbers``."""
    if _is_optional(type_):
        return " or ".join("none" if a is type(None) else describe(a) for a in get_args(type_))
    if get_origin(type_) is tuple:
        inner = get_args(type_)
        several = re.sub(r"\ba (.*?number|list)\b", r"\1s", describe(inner[0]))
        return f"a list of {'' if inner[1:] == (Ellipsis,) else f'{len(inner)} '}{several}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(type_, f"a {getattr(type_, '__name__', str(type_)).lower()}")


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
        large = " (too large)" if "too large" in reason else ""
        raise ValueError(f"must be {describe(type_)}, not {value!r}{large}") from error


def _exactly(type_: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not type_:
            raise ValueError(type(value).__name__)
        return value

    return hook


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(type(value).__name__)
    try:
        return float(value)
    except OverflowError:
        raise ValueError("too large") from None


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
        raise ValueError(type(value).__name__)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_CONVERTER.structure(item, inner[0]) for item in value)
    if len(value) != len(inner):
        raise ValueError(f"{len(value)} values")
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
