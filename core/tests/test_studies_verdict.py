"""Verdicts: intervals against worked numbers, and rules over all values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coview.errors import RequestError
from coview.studies import Above, Alike, Quantity, Study, Variant
from coview.studies.verdict import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Interval, overall

values = st.lists(st.floats(-1, 1), min_size=2, max_size=6)


def given_values(**terms: list[float]):
    return lambda term: terms[term]


def test_the_interval_is_students() -> None:
    # t of two degrees of freedom at 97.5 %: 4.302653; the deviation of these is .0360555.
    found = Interval.of([0.80, 0.82, 0.87])
    assert found.mean == pytest.approx(0.83)
    half = 4.302653 * 0.0360555 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.83 - half, 0.83 + half), rel=1e-5)


def test_one_value_says_nothing_about_others() -> None:
    assert Interval.of([0.5]) == Interval(0.5, -math.inf, math.inf)
    found = Above("a", "b").judge(given_values(a=[0.9], b=[0.1]))
    assert found.verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("a", "verdict"),
    [
        ([0.80, 0.81, 0.82], SUPPORTED),
        ([0.60, 0.61, 0.62], NOT_SUPPORTED),
        ([0.60, 0.71, 0.86], INCONCLUSIVE),
    ],
)
def test_above(a: list[float], verdict: str) -> None:
    assert Above("a", "b").judge(given_values(a=a, b=[0.70, 0.705, 0.71])).verdict == verdict
    assert Above("a", 0.70).judge(given_values(a=a)).verdict == verdict


def test_seeds_are_compared_in_pairs() -> None:
    # Seeds differ much more than the two, but one is always .02 above the other.
    a, b = [0.52, 0.72, 0.92], [0.50, 0.70, 0.90]
    assert Above("a", "b").judge(given_values(a=a, b=b)).verdict == SUPPORTED
    assert Above("a", "b").judge(given_values(a=a, b=b[::-1])).verdict == INCONCLUSIVE


def test_a_margin_has_to_be_passed() -> None:
    near = given_values(a=[0.73, 0.74, 0.735], b=[0.70, 0.71, 0.705])
    assert Above("a", "b", by=0.02).judge(near).verdict == SUPPORTED
    assert Above("a", "b", by=0.04).judge(near).verdict == NOT_SUPPORTED


def test_a_rule_in_words_has_no_negative_margin() -> None:
    assert Above("a", "b").rule == "a is above b"
    assert Above("a", "b", 0.1).rule == "a is above b by more than 0.1"
    assert Above("a", "b", -0.05).rule == "a is less than 0.05 below b"


def test_alike() -> None:
    near = given_values(a=[0.705, 0.71, 0.715], b=[0.70, 0.71, 0.71])
    assert Alike("a", "b", within=0.03).judge(near).verdict == SUPPORTED
    apart = given_values(a=[0.805, 0.81, 0.815], b=[0.70, 0.71, 0.71])
    assert Alike("a", "b", within=0.03).judge(apart).verdict == NOT_SUPPORTED
    loose = given_values(a=[0.6, 0.71, 0.8], b=[0.70, 0.71, 0.71])
    assert Alike("a", "b", within=0.03).judge(loose).verdict == INCONCLUSIVE


@given(values, st.floats(-0.5, 0.5))
def test_what_holds_one_way_fails_the_other(a: list[float], by: float) -> None:
    b = [0.0] * len(a)
    one = Above("a", "b", by=by).judge(given_values(a=a, b=b)).verdict
    other = Above("b", "a", by=-by).judge(given_values(a=a, b=b)).verdict
    opposite = {SUPPORTED: NOT_SUPPORTED, NOT_SUPPORTED: SUPPORTED, INCONCLUSIVE: INCONCLUSIVE}
    assert other == opposite[one]


def test_one_rule_that_fails_decides() -> None:
    good = Above("a", 0).judge(given_values(a=[0.5, 0.51]))
    bad = Above("a", 1).judge(given_values(a=[0.5, 0.51]))
    open_ = Above("a", 0.5).judge(given_values(a=[0.1, 0.9]))
    assert [finding.verdict for finding in (good, bad, open_)] == [
        SUPPORTED,
        NOT_SUPPORTED,
        INCONCLUSIVE,
    ]
    assert overall([good, good]) == SUPPORTED
    assert overall([good, open_]) == INCONCLUSIVE
    assert overall([good, open_, bad]) == NOT_SUPPORTED


def test_a_rule_about_nothing_measured_is_refused() -> None:
    def study(rule: Above) -> Study:
        return Study(
            claim="", source="", common=Variant(), variants={"large": Variant()}, expect=(rule,)
        )

    study(Above("large:knn", 0.5))
    with pytest.raises(RequestError, match="variant called 'larg'. Did you mean 'large'"):
        study(Above("larg", 0.5))
    with pytest.raises(RequestError, match="quantity called 'kn'"):
        study(Above(0.5, "large:kn"))


def test_a_grid_names_variants() -> None:
    with pytest.raises(RequestError, match=r"variant called 'a \+ c'"):
        Study(
            claim="",
            source="",
            common=Variant(),
            variants={"a + b": Variant()},
            expect=(),
            grid=(("a",), ("b", "c")),
        )


def test_variants_are_laid_over_what_is_common() -> None:
    common = Variant(method="simclr", epochs=3, set={"loss.temperature": 0.1, "views.flip_p": 0.0})
    whole = Variant(epochs=5, set={"loss.temperature": 1.0}).over(common)
    assert whole.given() == {
        "method": "simclr",
        "epochs": 5,
        "set": {"loss.temperature": 1.0, "views.flip_p": 0.0},
    }
    assert common.epochs == 3 and common.set["loss.temperature"] == 0.1


def test_what_a_run_did_not_log_is_said() -> None:
    class Run:
        def value(self, name: str) -> None:
            return None

    with pytest.raises(RequestError, match="logged no 'missing'"):
        Quantity("missing", "").read(Run())


def test_a_function_measures_too() -> None:
    # As good as any function of one argument that a package can be asked for.
    assert Quantity("builtins:len", "").read("four") == 4.0
