"""Power law.

Does showing some people more often than others shorten the plateau and give more knowledge in the same
number of steps, and how uneven is best for how many people (paper, section 4, Fig. 4, G)?

Command: interp batch power_law --out artifacts/studies --workers 2
Duration: 54 runs of 1,000 steps; about a minute each on one core

Individual i is shown with a probability proportional to i^-α, for several α and several numbers of people
N; α = 0 is the uniform distribution. Source: paper, Fig. 4 and G.

In the paper 16,000 steps of 128 biographies show each of 64k people 32 times; in the defaults here 1,000
steps of 32 show each of 1,024 people 31 times. Everybody is asked about equally often, so that what is
learned of frequent people only does not count for more than it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pydantic import model_validator

from interp.plots.distribution import (
    distribution_curves,
    final_against_exponent,
    plateau_against_exponent,
)
from interp.run import Run
from interp.seeds import spread
from interp.studies.collect import collect
from interp.studies.distribution import (
    CONSISTENT,
    HIGHER,
    MIN_SEEDS,
    NEVER_ENDED,
    NOTHING,
    PLATEAU,
    SEEDS_COUNT,
    UNIFORM,
    DistributionSettings,
    by_seed,
    comparable,
    gains,
    learned,
    learning_curves,
    scale,
    some_gain,
)
from interp.studies.rules import Claim, Rule, Statement, Verdict, differs, verdict
from interp.studies.study import Planned, Study, Tables, each_once

LOW, HIGH = 0.6, 0.8
"""The exponents from and to which the paper finds the shortest plateau."""
MIN_SIZES = 2
"""Numbers of people below which nothing is said about every N, or about how something grows with N."""
_COLUMNS = {
    "runs": (
        "seed", "n_individuals", "exponent", "n_steps", "statistics_end", "plateau_end",
        "attribute_loss", "attribute_accuracy",
    ),
    "curves": ("seed", "n_individuals", "exponent", "step", "metric", "value"),
}  # fmt: skip
BySize = dict[int, pd.DataFrame]
"""A measure for each number of people: a row a seed, a column an exponent."""


class PowerLawSettings(DistributionSettings):
    """Which exponents are tried, for how many people."""

    exponents: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """The exponents α; 0 is uniform sampling, which the others are compared with."""
    sizes: tuple[int, ...] = (256, 512, 1024)
    """Numbers of people N."""

    @model_validator(mode="after")
    def _each_once(self) -> "PowerLawSettings":
        each_once("exponents", self.exponents)
        each_once("sizes", self.sizes)
        return self


def power_law(exponent: float) -> dict[str, Any]:
    """The sampling settings of an exponent. With 0 those of uniform sampling: other studies share them."""
    return {"kind": "power_law", "exponent": exponent} if exponent else UNIFORM


def planned(settings: PowerLawSettings) -> list[Planned]:
    """The runs that settings ask for."""
    return [
        Planned(settings.distribution(seed, n, power_law(exponent)))
        for seed in settings.seeds
        for n in settings.sizes
        for exponent in settings.exponents
    ]


def tables(settings: PowerLawSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """What the finished runs came to.

    Returns:
        "runs": a row a run, some columns of `distribution.learned`; `exponent` is 0 for uniform sampling.
        "curves": columns `seed`, `n_individuals`, `exponent`, `step`, `metric`, `value` of every second
        measurement.
    """

    def of_run(run: Run) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        measured = {"runs": learned([run]), "curves": learning_curves([run], every=2)}
        return {"exponent": _exponent(run)}, measured

    def order(run: Run) -> tuple[int, int, float]:
        return run.config.seed, run.config.population.n_individuals, _exponent(run)

    return collect(sorted(runs, key=order), of_run, _COLUMNS)


def _exponent(run: Run) -> float:
    return run.config.sampling.exponent or 0.0


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figures, by anchor; none where nothing was measured."""
    runs, curves = comparable(tables["runs"]), tables["curves"]
    if runs.empty:
        return {}
    curves = curves.sort_values(["exponent", "seed", "step"])
    named = [f"α = {exponent:g}" for exponent in curves["exponent"]]
    return {
        "power-law-plateau": plateau_against_exponent(runs),
        "power-law-final": final_against_exponent(runs),
        "power-law-curves": distribution_curves(curves.assign(distribution=named)),
    }


@dataclass(frozen=True)
class _Measured:
    """What the claims are held against: measures by number of people, and the scale in words."""

    ends: BySize
    losses: BySize
    accuracies: BySize
    complete: set[int]
    scale: str


def _by_size(shown: Callable[..., bool | None], whole: bool = False) -> Callable[..., Verdict]:
    """A decision about every N: one counterexample is enough to disagree.

    Args:
        shown: From the plateau's ends at one N, and the numbers of the rule.
        whole: Whether only an N counts of which all runs are there.
    """

    def decide(of: _Measured, min_sizes: int, min_seeds: int, **numbers: float | int) -> Verdict:
        outcomes = [
            None if whole and n not in of.complete else shown(ends, **numbers)
            for n, ends in of.ends.items()
        ]
        if len(outcomes) < min_sizes:
            return "cannot tell"
        if any(outcome is False for outcome in outcomes):
            return "disagree"
        return "agree" if all(outcomes) else "cannot tell"

    return decide


def _inside(ends: pd.DataFrame, low: float, high: float) -> list[float]:
    return [exponent for exponent in map(float, ends.columns) if low <= exponent <= high]


def _shortens(ends: pd.DataFrame, low: float, high: float, earlier: float | int) -> bool | None:
    inside = _inside(ends, low, high)
    if 0.0 not in ends or not inside:
        return None
    return differs(ends[0.0] - ends[inside].mean(axis=1), earlier)


def _shortest_there(
    ends: pd.DataFrame, low: float, high: float, earlier: float | int
) -> bool | None:
    inside = _inside(ends, low, high)
    outside = [exponent for exponent in map(float, ends.columns) if exponent not in inside]
    if not inside or not outside or not min(outside) < low < high < max(outside):
        return None

    def sooner(one: float, other: float) -> bool | None:
        return differs(ends[other] - ends[one], earlier)

    if any(all(sooner(one, other) for other in outside) for one in inside):
        return True
    return False if any(all(sooner(one, other) for other in inside) for one in outside) else None


def _best_exponents(losses: BySize) -> pd.DataFrame:
    """The α with the lowest loss: a row a seed that all N have, a column an N."""
    return pd.DataFrame({n: of_size.idxmin(axis=1) for n, of_size in losses.items()}).dropna()


def _best_grows(of: _Measured, min_sizes: int, min_seeds: int) -> Verdict:
    if len(of.losses) < min_sizes or of.complete != set(of.losses):
        return "cannot tell"
    best = _best_exponents(of.losses)
    holds: list[bool | None] = []
    for _, row in best.iterrows():
        first, last = row.iloc[0], row.iloc[-1]
        grows = last > first and row.is_monotonic_increasing
        holds.append(False if last < first else True if grows else None)
    return verdict(holds, max(min_seeds, len(holds)))


def _some_accuracy_higher(of: _Measured, higher: float, min_seeds: int) -> Verdict:
    if not of.accuracies:
        return "cannot tell"
    return some_gain(gains(of.accuracies[max(of.accuracies)], 0.0, 1), higher)


def _measured_shorter(of: _Measured) -> str:
    parts = []
    for n, ends in of.ends.items():
        inside = _inside(ends, LOW, HIGH)
        if 0.0 in ends and inside and len(ends):
            parts.append(
                f"N = {n:,}: step {spread(ends[0.0], '.0f')} uniform, "
                f"{spread(ends[inside].mean(axis=1), '.0f')} at α {' and '.join(f'{a:g}' for a in inside)}"
            )
    return f"the plateau ends at {'; '.join(parts)}{of.scale}" if parts else NOTHING + of.scale


def _measured_ends(of: _Measured) -> str:
    parts = [
        f"N = {n:,}: {', '.join(f'{mean:.0f} ({a:g})' for a, mean in ends.mean().items())}"
        for n, ends in of.ends.items()
        if len(ends)
    ]
    means = f"mean plateau end in steps, by α: {'; '.join(parts)}" if parts else NOTHING
    return means + of.scale


def _measured_best(of: _Measured) -> str:
    best = _best_exponents(of.losses) if of.losses else pd.DataFrame()
    parts = [
        f"N = {n:,}: {', '.join(f'{a:g}' for a in best[n])} (best mean loss {losses.mean().min():.2f} nats)"
        for n, losses in of.losses.items()
        if not best.empty
    ]
    return (f"best α of each seed: {'; '.join(parts)}" if parts else NOTHING) + of.scale


def _measured_accuracy(of: _Measured) -> str:
    n = max(of.accuracies, default=0)
    accuracy = of.accuracies.get(n, pd.DataFrame())
    uneven = accuracy.drop(columns=0.0, errors="ignore").mean()
    if 0.0 not in accuracy or uneven.empty or accuracy.empty:
        return NOTHING + of.scale
    best = uneven.idxmax()
    return (
        f"N = {n:,}: final accuracy {spread(accuracy[0.0], '.3f')} uniform, "
        f"{spread(accuracy[best], '.3f')} at α = {best:g}, the best mean{of.scale}"
    )


_EVERY_N = (
    f" {NEVER_ENDED} {SEEDS_COUNT} Agree: so at every N; disagree: the other way round at some N; else, "
    "or with fewer than {min_sizes} N: cannot tell."
)
_NUMBERS = {"low": LOW, "high": HIGH, "min_sizes": MIN_SIZES, **PLATEAU}
STATEMENTS = (
    Statement[_Measured](
        "An uneven distribution shortens the plateau, for every N",
        "the plateau is shorter with a power law of α 0.6 to 0.8 than with uniform sampling, for every N "
        "(Fig. 4, G; 16,000 steps of 128)",
        Rule(
            "The mean plateau end of the runs with α from {low:g} to {high:g} is earlier than that of "
            "uniform sampling with the same seed: at least {earlier} steps earlier "
            f"{CONSISTENT}.{_EVERY_N}",
            _by_size(_shortens),
            _NUMBERS,
        ),
        _measured_shorter,
    ),
    Statement[_Measured](
        "The plateau is shortest at α of 0.6 to 0.8, for every N",
        "shortest at α of 0.6 to 0.8 for every N (Fig. 4, G; 16,000 steps of 128)",
        Rule(
            "With some α from {low:g} to {high:g} it ends earlier than with each α below and above; the "
            "other way round: with some α below or above it ends earlier than with each of {low:g} to "
            "{high:g}. Earlier means at least {earlier} steps earlier "
            f"{CONSISTENT}. Ties are no evidence.{_EVERY_N}",
            _by_size(_shortest_there, whole=True),
            _NUMBERS,
        ),
        _measured_ends,
    ),
    Statement[_Measured](
        "The α with the best final loss grows with N",
        "grows with N, and with shorter training, which is not measured here (Fig. 4, G; 16,000 steps of "
        "128)",
        Rule(
            "In each seed, the α with the lowest loss at the last step is larger at the largest N than at "
            "the smallest, and never smaller at one N than at the N before (agree in every seed), or it "
            "is smaller at the largest N than at the smallest (disagree in every seed). Else, also where "
            "it is the same, or with fewer than {min_seeds} seeds or {min_sizes} N, or where a run is "
            "missing: cannot tell.",
            _best_grows,
            {"min_sizes": MIN_SIZES, "min_seeds": MIN_SEEDS},
        ),
        _measured_best,
    ),
    Statement[_Measured](
        "Some α above 0 gives a better final accuracy than uniform sampling, at the largest N",
        "not stated as such: that the best α grows with N says so (Fig. 4, G; 16,000 steps of 128)",
        Rule(
            "Agree: with some α above 0 the final accuracy is at least {higher:g} higher "
            f"{CONSISTENT}. Disagree: with no α above 0 it is higher on average. Else: cannot tell. "
            f"{SEEDS_COUNT}",
            _some_accuracy_higher,
            {"higher": HIGHER, "min_seeds": MIN_SEEDS},
        ),
        _measured_accuracy,
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about power laws, held against "runs", as made or read back from CSV."""
    runs = comparable(tables["runs"])
    sizes = sorted(int(n) for n in runs["n_individuals"].unique())
    ends, losses, accuracies = (
        {n: by_seed(runs[runs["n_individuals"] == n], "exponent", measure) for n in sizes}
        for measure in ("plateau_end", "attribute_loss", "attribute_accuracy")
    )
    exponents = sorted(float(exponent) for exponent in runs["exponent"].unique())
    complete = {n for n in sizes if list(ends[n]) == exponents and len(ends[n]) >= MIN_SEEDS}
    measured = _Measured(ends, losses, accuracies, complete, scale(runs))
    return [statement.against(measured) for statement in STATEMENTS]


STUDY = Study("power_law", __doc__, PowerLawSettings, planned, tables, figures, claims)
