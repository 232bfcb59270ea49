"""Laws of the plateau's end, told apart by what they say of a population that they were not fitted to.

In logarithms the ends lie on a bend. A *constant and power law* (a statistics phase that does not grow, and
a plateau that does) bends; so does a parabola, which stands for any bend. Each is fitted to all numbers
of people but the largest, and has to say when the plateau of those ends.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.phases import DELTA

STRAIGHT, OFFSET, BEND = "power law", "constant and power law", "parabola"
LAW_COLUMNS = (
    "law", "n_individuals", "measured", "predicted", "off", "exponent", "exponent_low", "exponent_high",
    "constant",
)  # fmt: skip
FEWEST = 5
"""Numbers of people without which nothing is left out: three parameters and a look at the scatter."""
_RESAMPLED = 200
_SEED = 0x6C617773
_Values = Float[np.ndarray, " run"]
_Law = Callable[[_Values], _Values]


def plateau_laws(runs: pd.DataFrame, delta: float = DELTA) -> pd.DataFrame:
    """What each law, fitted to all numbers of people but the largest, says of that.

    Args:
        runs: A run and δ a row: `n_individuals`, `delta`, `plateau_end` (steps; NA where not reached).
        delta: The tolerance δ.

    Returns:
        Columns `law`, `n_individuals` (the largest), `measured` and `predicted` (the geometric mean end, in
        steps), `off` (how far they are apart, in logarithms, absolute); of all numbers of people `exponent`
        with the range of 95% of 200 resamples (runs of each number drawn again; of three runs, that is
        narrower than an interval of the mean) and `constant`
        (steps), NaN where a law has none. No rows for fewer than five numbers of people, or if a plateau
        did not end.
    """
    own = runs[runs["delta"] == delta]
    people, ends = own["n_individuals"].to_numpy(float), own["plateau_end"]
    if own["n_individuals"].nunique() < FEWEST or ends.isna().any() or (ends <= 0).any():
        return pd.DataFrame(columns=list(LAW_COLUMNS))
    steps = ends.to_numpy(float)
    last = people == people.max()
    measured = float(np.exp(np.log(steps[last]).mean()))
    rows = []
    for name, fit in _FITS.items():
        law, _ = fit(people[~last], steps[~last])
        predicted = float(law(people[last][:1])[0])
        _, (exponent, constant) = fit(people, steps)
        low, high = _interval(fit, people, steps)
        off = abs(float(np.log(predicted / measured)))
        rows.append(
            (name, int(people.max()), measured, predicted, off, exponent, low, high, constant)
        )
    return pd.DataFrame(rows, columns=list(LAW_COLUMNS))


def _interval(
    fit: "Callable[[_Values, _Values], tuple[_Law, tuple[float, float]]]",
    people: _Values,
    steps: _Values,
) -> tuple[float, float]:
    generator = np.random.default_rng(_SEED)
    groups = [np.flatnonzero(people == n) for n in np.unique(people)]
    found = []
    for _ in range(_RESAMPLED):
        drawn = np.concatenate([generator.choice(group, len(group)) for group in groups])
        found.append(fit(people[drawn], steps[drawn])[1][0])
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _straight(people: _Values, steps: _Values) -> tuple[_Law, tuple[float, float]]:
    slope, intercept = np.polyfit(np.log(people), np.log(steps), 1)
    return lambda n: np.exp(intercept + slope * np.log(n)), (float(slope), float("nan"))


def _parabola(people: _Values, steps: _Values) -> tuple[_Law, tuple[float, float]]:
    bent = np.polyfit(np.log(people), np.log(steps), 2)
    return lambda n: np.exp(np.polyval(bent, np.log(n))), (float("nan"), float("nan"))


def _offset(people: _Values, steps: _Values) -> tuple[_Law, tuple[float, float]]:
    from scipy.optimize import least_squares  # takes a second, which `interp --help` would wait for

    scale = people.max()

    def law(parameters: _Values, n: _Values) -> _Values:
        constant, log_height, exponent = parameters
        found: _Values = constant + np.exp(log_height + exponent * np.log(n / scale))
        return found

    found = least_squares(
        lambda parameters: np.log(law(parameters, people) / steps),
        x0=[steps.min() / 2, np.log(steps.max()), 1.0],
        bounds=([0.0, -np.inf, 0.0], [steps.min(), np.inf, 5.0]),
        x_scale=[steps.min(), 1.0, 1.0],
    )
    return lambda n: law(found.x, n), (float(found.x[2]), float(found.x[0]))


_FITS = {STRAIGHT: _straight, OFFSET: _offset, BEND: _parabola}
