"""When mechanisms emerge: half of the final strength, and what is followed."""

import math

import numpy as np
import pandas as pd
import pytest

from interp.memory.emergence import (
    FAINT,
    MECHANISMS,
    Mechanism,
    emergence_steps,
    half_strength_step,
    strength_of,
)


def test_half_is_interpolated_between_checkpoints() -> None:
    assert half_strength_step([0, 100, 200], [0.0, 0.2, 1.0]) == pytest.approx(137.5)


def test_half_counts_from_where_it_stays() -> None:
    """A rise that does not last is no emergence."""
    steps, curve = [0, 10, 20, 30, 40], [0.0, 0.9, 0.1, 0.9, 1.0]
    assert half_strength_step(steps, curve) == pytest.approx(25)


def test_what_was_there_from_the_start_emerges_at_the_first_step() -> None:
    assert half_strength_step([5, 10], [0.6, 1.0]) == 5


def test_a_strength_need_not_be_defined_at_every_step() -> None:
    steps, undefined = [0, 50, 100, 150, 200], [math.nan, 0.0, math.nan, 0.2, 1.0]
    assert half_strength_step(steps, undefined) == half_strength_step(
        [50, 150, 200], [0.0, 0.2, 1.0]
    )


@pytest.mark.parametrize("last", [FAINT - 0.001, 0.0, -0.5, math.nan])
def test_what_is_faint_in_the_end_is_absent(last: float) -> None:
    assert math.isnan(half_strength_step([0, 1, 2], [0.0, 0.9, last]))


def test_half_against_a_fine_search() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        steps = np.cumsum(generator.integers(1, 50, size=12))
        curve = generator.random(12)
        curve[-1] = 0.9
        found = half_strength_step(steps.tolist(), curve.tolist())
        fine = np.linspace(steps[0], steps[-1], 200_001)
        below = fine[np.interp(fine, steps, curve) < 0.45]
        slow = steps[0] if not len(below) else below[-1]
        assert found == pytest.approx(slow, abs=(steps[-1] - steps[0]) / 1e5)


def scores() -> pd.DataFrame:
    """Two heads: one strong early, the other at the end."""
    rows = [
        (step, 0, head, "name_to_name", value, 0.1)
        for step, values in ((0, (0.1, 0.1)), (10, (0.9, 0.2)), (20, (0.3, 0.7)))
        for head, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["step", "layer", "head", "metric", "value", "chance"])


def test_the_unit_that_has_most_in_the_end_is_followed_back() -> None:
    mechanism = Mechanism(
        ("attention", "scores"), {}, "value", "chance", ("layer", "head"), "one head"
    )
    curve = strength_of(scores(), mechanism)
    assert curve["value"].tolist() == [0.1, 0.2, 0.7]
    assert curve["control"].tolist() == [0.1, 0.1, 0.1]


def test_without_units_the_mean_is_taken() -> None:
    mechanism = Mechanism(("attention", "scores"), {}, "value", None, (), "")
    curve = strength_of(scores(), mechanism)
    assert curve["value"].tolist() == pytest.approx([0.1, 0.55, 0.5])
    assert (curve["control"] == 0).all()


def test_steps_of_all_mechanisms_with_phase() -> None:
    strengths = pd.DataFrame(
        [("a", 0, 0.0), ("a", 10, 1.0), ("b", 0, 0.0), ("b", 10, 0.01)],
        columns=["mechanism", "step", "strength"],
    )
    found = emergence_steps(strengths, lambda step: "plateau" if step >= 5 else "statistics")
    assert found["mechanism"].tolist() == ["a", "b"]
    assert found["step"].iloc[0] == 5
    assert np.isnan(found["step"].iloc[1])
    assert found["phase"].tolist() == ["plateau", ""]
    assert found["final"].tolist() == [1.0, 0.01]


def test_of_a_layer_the_mean_over_heads_is_followed() -> None:
    curve = strength_of(scores(), MECHANISMS["name grouping at last name"])
    assert curve["value"].tolist() == pytest.approx([0.1, 0.55, 0.5])


def test_other_rows_can_be_the_control() -> None:
    keys = pd.DataFrame(
        [
            (step, layer, "middle name", split, "selectivity", value * (layer + 1))
            for step, known, others in ((0, 0.4, 0.4), (10, 0.45, 0.3))
            for layer in (0, 1)
            for split, value in (("evaluation", known), ("held_out", others))
        ],
        columns=["step", "layer", "position", "split", "metric", "value"],
    )
    curve = strength_of(keys, MECHANISMS["key selectivity"])
    assert curve["value"].tolist() == [0.8, 0.9]
    assert curve["control"].tolist() == [0.8, 0.6]


def test_what_could_not_be_measured_is_left_out() -> None:
    swaps = pd.DataFrame(
        [
            (step, 0, "mlp_out", "every name", "any", share, 0.01)
            for step, share in ((0, math.nan), (10, 0.2), (20, 0.6))
        ],
        columns=["step", "layer", "site", "position", "sentences", "share", "control_share"],
    )
    curve = strength_of(swaps, MECHANISMS["MLP share at names"])
    assert curve["step"].tolist() == [10, 20]
