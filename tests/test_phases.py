import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import InterpError
from interp.phases import detect_phases, fit_power_law, sensitivity

STEPS = list(range(0, 80, 10))
BASELINE = 5.0
fixed = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def test_three_phases() -> None:
    found = detect_phases(STEPS, [8.0, 6.0, 5.1, 5.0, 5.0, 4.0, 2.0, 1.0], BASELINE)
    assert (found.statistics_end, found.plateau_end, found.plateau_length) == (20, 50, 30)
    names = ["statistics"] * 2 + ["plateau"] * 3 + ["knowledge"] * 3
    assert [found.at(step) for step in STEPS] == names


def test_never_leaving_the_plateau() -> None:
    found = detect_phases(STEPS, [8.0, 6.0, 5.1, 5.0, 5.0, 5.0, 5.0, 4.8], BASELINE)
    assert (found.statistics_end, found.plateau_end, found.plateau_length) == (20, None, None)
    assert found.at(70) == "plateau"


def test_never_reaching_the_baseline() -> None:
    found = detect_phases(STEPS, [9.0, 9.0, 9.0, 8.0, 8.0, 7.0, 7.0, 6.0], BASELINE)
    assert (found.statistics_end, found.plateau_end) == (None, None)
    assert found.at(70) == "statistics"


def test_a_dip_that_returns_is_not_the_end() -> None:
    found = detect_phases(STEPS, [8.0, 5.0, 4.0, 5.0, 5.0, 4.0, 3.0, 2.0], BASELINE)
    assert found.plateau_end == 50


def test_a_curve_that_comes_back_at_last_has_no_end() -> None:
    assert (
        detect_phases(STEPS, [8.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 5.0], BASELINE).plateau_end is None
    )


def test_starting_below() -> None:
    found = detect_phases(STEPS, [4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0], BASELINE)
    assert (found.statistics_end, found.plateau_end, found.plateau_length) == (0, 0, 0)
    assert found.at(0) == "knowledge"


@pytest.mark.parametrize(("loss", "ended"), [(4.75, False), (4.7499, True)])
def test_threshold_is_strict(loss: float, ended: bool) -> None:
    """The plateau's end is below 0.95 times the baseline."""
    found = detect_phases([0, 10], [5.0, loss], BASELINE, delta=0.05)
    assert found.plateau_end == (10 if ended else None)


def test_a_single_measurement() -> None:
    assert detect_phases([0], [8.0], BASELINE).at(0) == "statistics"


@fixed
@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_sensitivity_is_monotone(losses: list[float]) -> None:
    """A larger tolerance ends the statistics phase no later and the plateau no earlier."""
    table = sensitivity(range(len(losses)), losses, BASELINE)
    never = len(losses) + 1
    assert table["delta"].is_monotonic_increasing
    assert table["statistics_end"].fillna(never).is_monotonic_decreasing
    assert table["plateau_end"].fillna(never).is_monotonic_increasing


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1])
def test_delta_outside_is_refused(delta: float) -> None:
    with pytest.raises(InterpError, match=rf"delta={delta}.*between 0 and 1"):
        detect_phases([0], [1.0], BASELINE, delta)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(InterpError, match="2 steps but 1 losses"):
        detect_phases([0, 1], [1.0], BASELINE)


def test_exact_power_law() -> None:
    x = [4e3, 16e3, 64e3, 256e3]
    fit = fit_power_law(x, [0.43 * n**0.81 for n in x])
    assert fit.coefficient == pytest.approx(0.43)
    assert fit.exponent == pytest.approx(0.81)
    assert fit.low == pytest.approx(0.81, abs=1e-3)
    assert fit.high == pytest.approx(0.81, abs=1e-3)
    assert fit.r_squared == pytest.approx(1)
    assert fit.n_points == 4


def test_interval_covers_the_exponent_about_19_times_in_20() -> None:
    generator = np.random.default_rng(0)
    x = np.geomspace(256, 4096, 5)
    covered = 0
    for _ in range(400):
        y = 2 * x**0.7 * np.exp(generator.normal(0, 0.1, 5))
        fit = fit_power_law(x.tolist(), y.tolist())
        covered += fit.low <= 0.7 <= fit.high
    assert 0.92 < covered / 400 < 0.98


@pytest.mark.parametrize(
    ("x", "y", "complaint"),
    [
        ([1, 2], [1, 2], "at least 3 different x"),
        ([1, 1, 2], [1, 2, 3], "2 different x"),
        ([1, 2, 3], [1, 2], "3 different x and 2 y"),
        ([1, 2, 3], [1, 0, 2], "positive values"),
        ([-1, 2, 3], [1, 1, 2], "positive values"),
    ],
)
def test_power_law_refuses(x: list[int], y: list[int], complaint: str) -> None:
    with pytest.raises(InterpError, match=complaint):
        fit_power_law([float(v) for v in x], [float(v) for v in y])
