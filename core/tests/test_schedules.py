"""Schedules against the method sheets' listed values, and their text form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coview.records import Step
from coview.schedules import Schedule, cosine, linear, parse


@pytest.mark.parametrize(
    ("start", "values"),
    [
        (0.996, [0.996, 0.99609789, 0.99658579, 0.998, 0.99941421, 0.99990211, 1.0]),
        (0.99, [0.99, 0.99024472, 0.99146447, 0.995, 0.99853553, 0.99975528, 1.0]),
    ],
)
def test_byol_momentum(start: float, values: list[float]) -> None:
    fractions = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
    seen = [cosine(start, 1.0).value(f * 1000, 1000) for f in fractions]
    assert seen == pytest.approx(values, abs=5e-9)


def test_dino_teacher_temperature_reaches_its_end_at_epoch_29() -> None:
    schedule = linear(0.04, 0.07, epochs=30, per="epoch", endpoint=True)
    listed = {0: 0.04, 1: 0.041034, 5: 0.045172, 10: 0.050345, 15: 0.055517, 20: 0.060690}
    listed |= {28: 0.068966, 29: 0.07, 30: 0.07, 99: 0.07}
    for epoch, value in listed.items():
        step = Step(number=epoch * 10 + 9, steps_per_epoch=10, total_steps=1000)
        assert schedule.at(step) == pytest.approx(value, abs=5e-7)


def test_per_step_length_in_epochs() -> None:
    schedule = linear(0.0, 1.0, epochs=2)
    values = [
        schedule.at(Step(number=n, steps_per_epoch=5, total_steps=50)) for n in (0, 5, 10, 49)
    ]
    assert values == [0.0, 0.5, 1.0, 1.0]


@given(
    st.sampled_from(["cosine", "linear"]),
    st.floats(-10, 10),
    st.floats(-10, 10),
    st.none() | st.floats(1, 100),
    st.sampled_from(["step", "epoch"]),
    st.booleans(),
)
def test_text_round_trip_and_bounds(
    kind: str, start: float, end: float, epochs: float | None, per: str, endpoint: bool
) -> None:
    schedule = Schedule(kind, start, end, epochs, per, endpoint)
    assert parse(str(schedule)) == schedule
    low, high = min(start, end), max(start, end)
    for index in range(12):
        assert low - 1e-9 <= schedule.value(index, 10) <= high + 1e-9
    assert math.isclose(schedule.value(0, 10), start, abs_tol=1e-9)
    assert math.isclose(schedule.value(9 if endpoint else 10, 10), end, abs_tol=1e-9)


@pytest.mark.parametrize(
    "text", ["cosine(1)", "sine(0, 1)", "0.5 +", "cosine(a, b)", "cosine(0, 1, per='day')", "3"]
)
def test_what_is_no_schedule_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a number, cosine\(START, END\)"):
        parse(text)


def test_reading_a_setting() -> None:
    import torch

    step = Step(number=5, total_steps=10)
    assert step.read(0.3) == 0.3
    value = step.read(cosine(0.0, 1.0))
    assert isinstance(value, torch.Tensor)
    assert (value.ndim, value.item()) == (0, pytest.approx(0.5))
