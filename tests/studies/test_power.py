"""Intervals and power: how many seeds would tell a mean apart from a threshold."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from interp.errors import ArgumentError
from interp.studies.found import intervals_table
from interp.studies.power import MOST_SEEDS, Number, each_seed, in_words, seeds_needed
from interp.studies.rules import Rule, Statement


def said(number: Number[Any], cases: list[Any], *, decided: bool = False) -> str:
    """What a statement says of what its rule reads."""
    return in_words(number.read(cases), decided=decided)


NUMBER: Number[list[float]] = Number("gain", lambda cases: cases, (0.1, 0.5))


@pytest.mark.parametrize("threshold", [0.15, 0.19, 0.0])
def test_seeds_needed_are_the_fewest(threshold: float) -> None:
    """Held against the interval of so many values with the same mean and spread."""
    values = [0.1, 0.2, 0.3]
    n = seeds_needed(values, threshold)
    assert n is not None
    for count, outside in ((n, True), (n - 1, False)):
        if count < 2:
            continue
        half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5
        assert (not 0.2 - half <= threshold <= 0.2 + half) == outside


def test_a_mean_at_the_threshold_is_never_told_apart() -> None:
    assert seeds_needed([0.1, 0.3], 0.2) is None
    assert "more than" in said(NUMBER, [0.0, 0.2, 0.1 + 1e-9])
    assert f"{MOST_SEEDS:,}" in said(NUMBER, [0.0, 0.2, 0.1 + 1e-9])


def test_what_is_said() -> None:
    assert said(NUMBER, [0.1, 0.2, 0.3]) == (
        "gain: 0.20, 95% interval -0.05 to 0.45 (3 seeds), held against 0.10; with this spread 7 seeds would "
        "tell their mean apart from it"
    )
    assert "held against 0.50" in said(NUMBER, [0.4, 0.5, 0.7])
    assert said(NUMBER, [0.2, 0.21, 0.2, 0.21]).endswith("; the mean is told apart from it already")
    for few in ([], [0.3], [0.3, float("nan")], [float("inf"), 0.3]):
        assert "fewer than two seeds" in said(NUMBER, few)
    with pytest.raises(ArgumentError, match="two at least"):
        seeds_needed([0.1], 0.0)


def test_what_is_decided_has_an_interval_and_no_number_of_seeds() -> None:
    rule: Rule[float] = Rule.each("At least {low:g}.", lambda one, low: one >= low, low=0.1)
    claim = Statement("It gains", "not measured", rule, str, NUMBER)
    assert claim.against([0.2, 0.3]).power == (
        "gain: 0.25, 95% interval -0.39 to 0.89 (2 seeds), held against 0.10, which lies in it"
    )
    assert claim.against([0.2]).power.startswith("gain: fewer than two seeds")
    told = claim.against([0.05, 0.3])
    assert told.verdict == "cannot tell"
    assert told.said == f"{told.measured}. {told.power}"
    assert claim.against([]).power == ""
    assert Statement("It gains", "not measured", rule, str).against([0.05, 0.3]).power == ""


def test_a_number_of_each_seed_and_of_its_conditions() -> None:
    """Seeds without a value, or without a condition, are left out there alone."""
    seeds = [{"a": 1.0, "b": 2.0}, None, {}, {"b": 4.0}]
    found = each_seed("gain", lambda seed: seed, 3, 1, form=".0f", least=0).read(seeds)
    assert [(one.group, one.values, one.limit) for one in found] == [
        ("a", (1.0,), 1.0), ("b", (2.0, 4.0), 3.0),
    ]  # fmt: skip
    assert found[1].words == "3, 95% interval 0 to 16"
    for nothing in ([], [None], [{}]):
        (none,) = each_seed("gain", lambda seed: seed, 3).read(nothing)
        assert (none.group, none.values) == ("", ())


def test_several_conditions_are_said_together() -> None:
    both = each_seed(
        "share known", lambda seed: {"rare": seed, "common": 1 - seed / 100}, 0.5, least=0, most=1
    )
    assert said(both, [0.3, 0.5, 0.9], decided=True) == (
        "share known, with 95% intervals (3 seeds), held against 0.50: rare 0.57 (0.00 to 1.00), common 0.99 "
        "(0.99 to 1.00); the threshold lies in that of rare"
    )
    n = seeds_needed([0.3, 0.5, 0.9], 0.5)
    assert f"rare 0.57 (0.00 to 1.00) [{n} seeds would tell], common" in said(both, [0.3, 0.5, 0.9])
    one = each_seed("dose", lambda model: {"memory": model}, 0.5, case="model")
    assert said(one, [0.1, 0.2], decided=True).startswith(
        "dose, memory: 0.15, 95% interval -0.49 to 0.79 (2 models)"
    )
    some = each_seed("share", lambda seed: {"a": seed} | ({"b": 1} if seed > 0.2 else {}), 0.5)
    assert "(2 to 3 seeds)" in said(some, [0.1, 0.3, 0.4], decided=True)


def test_intervals_as_a_table() -> None:
    rule: Rule[float] = Rule.each("At least {low:g}.", lambda one, low: one >= low, low=0.1)
    bare = Statement("It is", "not measured", rule, str)
    claim = Statement(
        "It gains", "not measured", rule, str, (NUMBER, each_seed("loss", lambda v: -v, 0))
    )
    table = intervals_table([bare.against([0.2]), claim.against([0.2, 0.3]), claim.against([0.2])])
    assert list(table["claim"]) == [2, 2, 3, 3]
    assert list(table["number"]) == ["gain", "loss"] * 2
    half = stats.t.ppf(0.975, 1) * np.std([0.2, 0.3], ddof=1) / 2**0.5
    assert table["interval_low"][:2].tolist() == pytest.approx(
        [0.25 - half, -0.25 - half], abs=1e-6
    )
    assert table["interval_high"].isna().tolist() == [False, False, True, True]
    assert table["against"].tolist() == [0.1, 0, 0.1, 0]
    assert table["seeds_needed"][0] == seeds_needed([0.2, 0.3], 0.1)
    assert table["seeds_needed"].isna().tolist() == [False, False, True, True]


def test_a_number_is_held_against_something() -> None:
    with pytest.raises(ArgumentError, match="held against nothing"):
        each_seed("gain", lambda seed: seed)
