"""Paired comparisons: distributions compared seed by seed.

Values of a measure are a table with a row a seed and a column a distribution (`by_seed`).
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from interp.seeds import number_of
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Verdict, differs, verdict

SEEDS = {"min_seeds": 3}
"""Seeds below which distributions are not compared."""
CONSISTENT = "on average over seeds, and in no seed the other way round"
"""What the template of a rule says of `rules.differs`, after the margin."""
SEEDS_COUNT = "Only seeds count of which every run is there; fewer than {min_seeds} decide nothing."
"""What the template of a rule says of `by_seed`."""


def by_seed(table: pd.DataFrame, distribution: str, measure: str, among: list[Any]) -> pd.DataFrame:
    """A measure of runs: a row a seed, a column a distribution.

    Args:
        table: With a row a run, on equally many people.
        distribution: The column that tells distributions apart.
        measure: A column, e.g. "plateau_end".
        among: The distributions, in order.

    Returns:
        Only seeds of which all of these are there.
    """
    return table.pivot_table(measure, "seed", distribution).reindex(columns=among).dropna()


def gains(values: pd.DataFrame, uniform: Hashable, sign: int) -> pd.DataFrame:
    """What every other distribution gains over the uniform one, a row a seed.

    Args:
        values: As `by_seed` returns it.
        uniform: The column of the uniform distribution; without it there are no gains.
        sign: 1 where more is better, -1 where less is.
    """
    if uniform not in values:
        return pd.DataFrame()
    difference = values.drop(columns=uniform).sub(values[uniform], axis=0)
    return difference * sign + 0.0  # no negative zero, which would be written as one


def best(values: pd.DataFrame) -> Any:
    """The distribution with the highest mean, of those with the most seeds; None without any."""
    if values.empty:
        return None
    seeds = values.count()
    return values.loc[:, seeds == seeds.max()].mean().idxmax()


def some_gain(gained: pd.DataFrame, margin: float | int, min_seeds: int) -> Verdict:
    """Whether some distribution is better than the uniform one.

    Args:
        gained: As `gains` returns it.
        margin: See `rules.differs`.
        min_seeds: With fewer nothing is decided.

    Returns:
        "agree" where one is, consistently; "disagree" where none is better even on average; else
        "cannot tell".
    """
    if gained.empty or len(gained) < min_seeds:
        return "cannot tell"
    if any(differs(gained[name], margin, min_seeds) for name in gained):
        return "agree"
    return "disagree" if (gained.mean() <= 0).all() else "cannot tell"


def some_better(
    some: str,
    none: str,
    gained: Callable[[Any], pd.DataFrame],
    margin: Mapping[str, float | int],
    note: str = "",
) -> Rule[Any]:
    """The rule that some distribution is better than the uniform one (`some_gain`).

    Args:
        some: What has to be the case for agree, with the margin: "some are {higher:g} higher".
        none: What for disagree: "none is higher".
        gained: From what was measured to gains.
        margin: By how much, with its name.
        note: On the measure; may name the margin.
    """

    def decide(measured: Any, min_seeds: int, **margin: float | int) -> Verdict:
        (least,) = margin.values()
        return some_gain(gained(measured), least, min_seeds)

    return Rule(
        f"Agree: with {some} {CONSISTENT}. Disagree: with {none} on average. Else: cannot tell. "
        f"{note}{SEEDS_COUNT}",
        decide,
        {**margin, **SEEDS},
    )


def gain_of_each(
    what: str,
    gained: Callable[[Any], pd.DataFrame],
    margin: Mapping[str, float | int],
    form: str,
) -> Number[Any]:
    """What `some_better` reads: what each distribution gains, against the margin and against nothing.

    Args:
        what: What is gained, with its unit.
        gained: From what was measured to gains.
        margin: By how much, with its name.
        form: How a gain is written.
    """

    def values(measured: Any) -> dict[str, list[float]]:
        return {str(name): list(own) for name, own in gained(measured).items()}

    return Number(what, values, (*margin.values(), 0), form)


def within(values: pd.DataFrame, low: float, high: float) -> list[float]:
    """The columns from `low` to `high`, where columns are points on a scale."""
    return [point for point in map(float, values.columns) if low <= point <= high]


def lower_within(
    values: pd.DataFrame, low: float, high: float, margin: float | int, min_seeds: int
) -> bool | None:
    """Whether points of a scale, as a mean, are lower than the point 0 (`rules.differs`)."""
    inside = within(values, low, high)
    if 0.0 not in values or not inside:
        return None
    return differs(values[0.0] - values[inside].mean(axis=1), margin, min_seeds)


def lowest_within(
    values: pd.DataFrame, low: float, high: float, margin: float | int, min_seeds: int
) -> bool | None:
    """Whether a measure is lowest from `low` to `high` on a scale.

    Returns:
        True where one point there is lower than each outside (`rules.differs`); False where one outside
        is lower than each there; else, and without points on both sides, None.
    """
    inside = within(values, low, high)
    outside = [point for point in map(float, values.columns) if point not in inside]
    if not inside or not outside or not min(outside) < low < high < max(outside):
        return None

    def some_below_all(ones: list[float], others: list[float]) -> bool:
        return any(
            all(differs(values[other] - values[one], margin, min_seeds) for other in others)
            for one in ones
        )

    if some_below_all(inside, outside):
        return True
    return False if some_below_all(outside, inside) else None


def lowest_grows(sizes: Sequence[pd.DataFrame], min_sizes: int, min_seeds: int) -> Verdict:
    """Whether the point of a scale where a measure is lowest grows from one table to the next.

    Args:
        sizes: Values of the measure at growing sizes.
        min_sizes: With fewer nothing is decided.
        min_seeds: Nor with fewer seeds, in any of them.

    Returns:
        "agree" where in every seed it grows from first to last and never falls in between; "disagree"
        where in every seed it falls from first to last; else "cannot tell".
    """
    if len(sizes) < min_sizes or any(len(values) < min_seeds for values in sizes):
        return "cannot tell"
    lowest = pd.concat([values.idxmin(axis=1) for values in sizes], axis=1).dropna()
    grown = lowest.iloc[:, -1] - lowest.iloc[:, 0]
    rises = lowest.diff(axis=1).iloc[:, 1:].ge(0).all(axis=1)
    holds = [
        False if by < 0 else True if by > 0 and steady else None
        for by, steady in zip(grown, rises, strict=True)
    ]
    return verdict(holds, max(min_seeds, len(holds)))


def everywhere(outcomes: Iterable[bool | None], minimum: int) -> Verdict:
    """The verdict on something said of every case: one counterexample is enough to disagree.

    Args:
        outcomes: For each case whether it holds; None where it cannot tell.
        minimum: With fewer cases nothing is decided.
    """
    known = list(outcomes)
    if len(known) < minimum:
        return "cannot tell"
    if any(outcome is False for outcome in known):
        return "disagree"
    return "agree" if all(known) else "cannot tell"


def to_scale(claim: Claim, runs: pd.DataFrame, n_individuals: bool = False) -> Claim:
    """A claim with the scale behind what was measured.

    Args:
        claim: What was measured may be empty: there is nothing to compare.
        runs: As `distribution.comparable` returns them.
        n_individuals: Whether the number of people is said, too.
    """
    said = claim.measured or "nothing to compare"
    if len(runs):
        n_seeds = runs["seed"].nunique()
        people = f"; {int(runs['n_individuals'].max()):,} people" if n_individuals else ""
        steps = " and ".join(f"{int(n):,}" for n in sorted(set(runs["n_steps"]))) + " steps"
        said += f"{people} ({steps}, {number_of(n_seeds, 'seed')})"
    return replace(claim, measured=said)
