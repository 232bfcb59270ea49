"""A mean over seeds with its range and interval."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.errors import ArgumentError
from interp.seeds import OverSeeds, all_of, none_of, number_of, over_seeds


def test_a_mean_with_its_interval() -> None:
    assert OverSeeds.of([1.0, 2.0, 3.0]).with_interval() == "2.00 (95%: -0.48 to 4.48; 3 seeds)"
    assert OverSeeds.of([1.0]).with_interval() == "1.00 (1 seed)"


def test_interval_is_students():
    values = [0.7, 0.72, 0.75, 0.69]
    seeds = OverSeeds.of(values)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert seeds.interval == pytest.approx(expected)
    assert (seeds.low, seeds.high, seeds.n) == (0.69, 0.75, 4)


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "not measured"), ([0.5], "0.50 (1 seed)"), ([0.7, 0.72], "0.71 (0.70, 0.72)")],
)
def test_text_names_every_seed(values, text):
    assert OverSeeds.of(values).text() == text
    assert OverSeeds.of(values).interval is None or len(values) > 1


def test_each_seed_counts_once_and_incomplete_groups_can_be_left_out():
    table = pd.DataFrame(
        [(0, 1, 1.0), (0, 1, 3.0), (1, 1, 5.0), (0, 2, 4.0), (1, 2, float("nan"))],
        columns=["seed", "step", "value"],
    )
    found = over_seeds(table, "step").set_index("step")
    assert found["mean"].to_dict() == {1: 3.5, 2: 4.0}  # the two rows of seed 0 are one
    assert found["n_seeds"].to_dict() == {1: 2, 2: 1}
    assert list(over_seeds(table, "step", complete=True)["step"]) == [1]


def test_a_missing_column_is_named():
    with pytest.raises(ArgumentError, match="seed"):
        over_seeds(pd.DataFrame({"step": [1], "value": [1.0]}), "step")


@pytest.mark.parametrize(
    ("n", "number", "everyone", "nobody"),
    [
        (1, "1 seed", "the one seed", "not the one seed"),
        (2, "2 seeds", "both seeds", "neither seed"),
        (3, "3 seeds", "all 3 seeds", "none of the 3 seeds"),
        (1200, "1,200 seeds", "all 1,200 seeds", "none of the 1,200 seeds"),
    ],
)
def test_one_two_and_many_have_words_of_their_own(n, number, everyone, nobody):
    assert (number_of(n, "seed"), all_of(n, "seed"), none_of(n, "seed")) == (
        number,
        everyone,
        nobody,
    )
