"""Settings: strict types, ranges, all problems at once."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from coview.schedules import Schedule, cosine
from coview.settings import between, describe, gt, literal, one_of, plain, setting, structure


@attrs.frozen
class Example:
    count: int = setting(3, "a count", gt(0))
    rate: float | Schedule = setting(0.5, "a rate", between(0, 1))
    name: str = setting("a", "a name", one_of("a", "bee"))
    pair: tuple[float, float] = setting((0.0, 1.0), "a pair")
    words: tuple[str, ...] = setting(("x",), "words")
    width: int | None = setting(None, "a width", gt(0))
    on: bool = setting(False, "a switch")


def test_plain_values_become_settings() -> None:
    made, problems = structure(
        Example,
        {
            "rate": "cosine(0.1, 1.0)",
            "pair": [1, 2.5],
            "words": ["u", "v"],
            "width": "none",
            "on": True,
        },
        "x",
    )
    assert problems == []
    assert made == Example(
        rate=cosine(0.1, 1.0), pair=(1.0, 2.5), words=("u", "v"), width=None, on=True
    )
    assert isinstance(made.pair[0], float)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("count", 2.7, "must be a whole number, not 2.7"),
        ("count", "3", "must be a whole number, not '3'"),
        ("count", True, "must be a whole number, not True"),
        ("count", 0, "count must be above 0, not 0."),
        ("on", "false", "must be true or false, not 'false'"),
        ("rate", 1.5, "must be between 0 and 1, not 1.5."),
        ("rate", "cosine(0.5, 1.5)", "must be between 0 and 1, not 1.5."),
        ("rate", "cosine(0.5)", "is neither a number nor a schedule"),
        ("rate", "high", "is neither a number nor a schedule"),
        ("name", "be", "must be a or bee, not 'be'. Did you mean 'bee'"),
        ("pair", [1.0], "must be a list of 2 numbers, not [1.0]."),
        ("pair", 1.0, "must be a list of 2 numbers, not 1.0."),
        ("width", -1, "must be above 0, not -1."),
        ("width", 1.5, "must be a whole number or none, not 1.5."),
        ("cuont", 3, "has no setting 'cuont'. Did you mean 'count'"),
    ],
)
def test_wrong_values_get_a_sentence(key: str, value: Any, said: str) -> None:
    made, problems = structure(Example, {key: value}, "here")
    assert made is None
    assert len(problems) == 1
    assert problems[0].startswith("here")
    assert said in problems[0]


def test_all_problems_at_once() -> None:
    _, problems = structure(Example, {"count": "x", "on": 1, "nme": "a"}, "here")
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2", 0.2),
        ("3", 3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"x"', "x"),
        ("sgd", "sgd"),
        ("cosine(0.9, 1.0)", "cosine(0.9, 1.0)"),
        ("1e-4", 1e-4),
        ("none", "none"),
    ],
)
def test_literals(text: str, value: Any) -> None:
    assert literal(text) == value
    assert type(literal(text)) is type(value)


def test_plain_goes_back() -> None:
    made = Example(rate=cosine(0.1, 1.0), width=None)
    again, problems = structure(Example, plain(attrs.asdict(made, recurse=False)), "x")
    assert problems == []
    assert again == made


def test_types_are_named_as_users_write_them() -> None:
    fields = {f.name: f.type for f in attrs.fields(attrs.resolve_types(Example))}
    assert describe(fields["words"]) == "a list of text"
    assert describe(fields["rate"]) == "a number or a schedule"
