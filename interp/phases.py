"""The three phases of learning, read off the attribute-loss curve.

1. *statistics*: the loss falls to the no-knowledge baseline;
2. *plateau*: it stays there, and hardly any value is predicted right;
3. *knowledge*: it falls below for good.

The paper prints no threshold. Ours: the plateau ends at the first step from which the loss stays
below (1 - δ) times the baseline; the statistics phase ends at the first step at which it is at most
(1 + δ) times the baseline. `sensitivity` shows how much that depends on δ.
Source: paper, section 3 and Fig. 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

from interp.errors import ArgumentError, InterpError, NothingToMeasureError

if TYPE_CHECKING:
    import pandas as pd

PAPER_COEFFICIENT, PAPER_EXPONENT = 0.43, 0.81
"""The paper's power law of plateau length (steps) against the number of individuals (Fig. 2)."""
DELTA = 0.05
"""The default δ."""
NAMES = ("statistics", "plateau", "knowledge")
"""The phases in their order."""
DELTAS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
"""The δ that `sensitivity` tries."""


@dataclass(frozen=True)
class Phases:
    """Where the three phases of one curve meet.

    Attributes:
        statistics_end: First step at which the loss has come down to the baseline, or None.
        plateau_end: First step from which the loss stays below the baseline, or None.
        baseline: The no-knowledge baseline the curve is held against, in nats.
        delta: The tolerance δ, a share of the baseline.
        stages: Of a training in stages, the steps at which its later stages begin, with what they train
            on; figures draw them.
    """

    statistics_end: int | None
    plateau_end: int | None
    baseline: float
    delta: float
    stages: tuple[tuple[int, str], ...] = ()

    @property
    def plateau_length(self) -> int | None:
        """Steps of the plateau, if both its ends are known."""
        if self.statistics_end is None or self.plateau_end is None:
            return None
        return self.plateau_end - self.statistics_end

    def at(self, step: int) -> str:
        """The phase of a step: "statistics", "plateau" or "knowledge"."""
        if self.plateau_end is not None and step >= self.plateau_end:
            return "knowledge"
        if self.statistics_end is not None and step >= self.statistics_end:
            return "plateau"
        return "statistics"


def detect_phases(
    steps: Sequence[int], losses: Sequence[float | int], baseline: float, delta: float = DELTA
) -> Phases:
    """The phases of a loss curve: increasing steps, the attribute loss at each and the baseline in nats.

    Example:
        >>> detect_phases([0, 10, 20, 30, 40], [7.0, 5.1, 5.0, 4.0, 1.0], baseline=5.0).plateau_end
        30
    """
    if not isinstance(delta, Real) or not 0 < delta < 1:
        raise ArgumentError(f"delta={delta} is not between 0 and 1; it is a share of the baseline.")
    if len(steps) != len(losses):
        raise ArgumentError(f"{len(steps)} steps but {len(losses)} losses; give one loss a step.")
    reached = [s for s, loss in zip(steps, losses, strict=True) if loss <= (1 + delta) * baseline]
    plateau_end = None
    for step, loss in zip(reversed(steps), reversed(losses), strict=True):
        if not loss < (1 - delta) * baseline:
            break
        plateau_end = int(step)
    return Phases(int(reached[0]) if reached else None, plateau_end, baseline, delta)


@dataclass(frozen=True)
class Band:
    """One phase of a run, from its first step (`start`) to that at which the next begins (`end`).

    Where none begins, `end` is the last measured step. `closed` says whether the run has left this phase
    (or, for the last phase, reached the end in it).
    """

    name: str
    start: int
    end: int
    closed: bool

    @property
    def number(self) -> int:
        """1, 2 or 3."""
        return NAMES.index(self.name) + 1


def phase_bands(phases: Phases, first: int, last: int) -> list[Band]:
    """The phases between the first and the last measured step, in order, without empty ones."""
    edges = [first, phases.statistics_end, phases.plateau_end, None]
    bands = []
    for name, start, following in zip(NAMES, edges, edges[1:], strict=False):
        if start is None:
            break
        end = last if following is None else following
        # A run may have entered its last phase at its last measurement.
        if end > start or (following is None and start == last):
            bands.append(Band(name, start, end, following is not None or name == NAMES[-1]))
    return bands


def sensitivity(
    steps: Sequence[int],
    losses: Sequence[float | int],
    baseline: float,
    deltas: Sequence[float] = DELTAS,
) -> "pd.DataFrame":
    """The phases for several δ: columns `delta`, `statistics_end`, `plateau_end` (steps or NA).

    Raises:
        NothingToMeasureError: a baseline of 0, of which every share is the same.
    """
    if not baseline:
        raise NothingToMeasureError(
            "There are no phases, as the baseline is 0 nats: all known people have the same values, which "
            "statistics alone predict."
        )
    import pandas as pd  # `interp --help` would wait for it

    phases = [detect_phases(steps, losses, baseline, delta) for delta in deltas]
    ends = [(p.delta, p.statistics_end, p.plateau_end) for p in phases]
    table = pd.DataFrame(ends, columns=["delta", "statistics_end", "plateau_end"])
    return table.astype({"statistics_end": "Int64", "plateau_end": "Int64"})


@dataclass(frozen=True)
class PowerLawFit:
    """y = coefficient · x^exponent, fitted by least squares on logarithms.

    `low` and `high` are the ends of the exponent's confidence interval, `r_squared` the share of the
    variance of log y that the fit explains.
    """

    coefficient: float
    exponent: float
    low: float
    high: float
    r_squared: float
    n_points: int


def fit_power_law(
    x: Sequence[float | int], y: Sequence[float | int], confidence: float = 0.95
) -> PowerLawFit:
    """Fits a power law; the interval is Student's, from the scatter around the line.

    All values have to be positive, and at least three x different; else there is an `InterpError`.
    """
    if len(x) != len(y) or len(set(x)) < 3:
        raise InterpError(
            f"A power law needs at least 3 different x with a y each, got {len(set(x))} different x "
            f"and {len(y)} y; add sizes, or let runs go on (training.n_steps) until their plateau ends."
        )
    if min(*x, *y) <= 0:
        raise InterpError("A power law needs positive values; leave out those at or below 0.")
    import numpy as np
    from scipy import stats  # takes a second, which `interp --help` would wait for

    line = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf((1 + confidence) / 2, len(x) - 2) * line.stderr
    return PowerLawFit(
        coefficient=float(np.exp(line.intercept)),
        exponent=float(line.slope),
        low=float(line.slope - half),
        high=float(line.slope + half),
        r_squared=float(line.rvalue**2),
        n_points=len(x),
    )
