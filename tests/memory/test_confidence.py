"""Confidence as a detector: areas and curves against counts over pairs."""

import numpy as np
import pytest

from interp.memory.confidence import UNITS, area_under, suspicions, thinned_roc


def test_area_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(0)
    unknown, known = generator.integers(0, 9, 40) / 4, generator.integers(0, 7, 30) / 4
    greater = (unknown[:, None] > known).mean() + (unknown[:, None] == known).mean() / 2
    assert area_under(unknown, known) == pytest.approx(greater)
    assert area_under(known + 10, known) == 1


def test_a_thinned_curve_keeps_its_area_and_ends() -> None:
    generator = np.random.default_rng(0)
    unknown, known = generator.normal(1, 1, 700), generator.normal(0, 1, 900)
    false_alarms, found = thinned_roc(unknown, known, n_points=60)
    assert len(found) <= 60
    assert (false_alarms[0], found[0], false_alarms[-1], found[-1]) == (0, 0, 1, 1)
    assert (np.diff(false_alarms) >= 0).all()
    area = np.trapezoid(found, false_alarms)
    assert area == pytest.approx(area_under(unknown, known), abs=0.005)
    threshold = 0.5  # a point of the whole curve lies near the thinned one
    place = np.interp((known >= threshold).mean(), false_alarms, found)
    assert place == pytest.approx((unknown >= threshold).mean(), abs=0.02)


def test_a_person_is_the_mean_of_her_predictions() -> None:
    values = np.random.default_rng(0).random((2, 5, 6))
    single, person = (suspicions(values, unit) for unit in UNITS)
    np.testing.assert_allclose(single["top probability"], 1 - values[0])
    np.testing.assert_allclose(person["entropy"][:, 0], values[1].mean(axis=1))
    np.testing.assert_allclose(person["top probability"][:, 0], 1 - values[0].mean(axis=1))
