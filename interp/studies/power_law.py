"""Power law: does showing some people more often than others make a model learn faster?

Individual i is shown with a probability proportional to i^-α, for several α and several numbers of people
N; α = 0 is the uniform distribution. Source: paper, Fig. 4 and G.

In the paper 16,000 steps of 128 biographies show each of 64k people 32 times; in the defaults here 1,000
steps of 32 show each of 1,024 people 31 times. Everybody is asked about equally often, so that what is
learned of frequent people only does not count for more than it is.
"""

from collections.abc import Sequence
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
from interp.studies.distribution import (
    CONSISTENT,
    EARLIER,
    HIGHER,
    MIN_SEEDS,
    NEVER_ENDED,
    SEEDS_COUNT,
    UNIFORM,
    DistributionSettings,
    by_seed,
    comparable,
    consistent,
    gains,
    learned,
    learning_curves,
    scale,
    some_gain,
)
from interp.studies.study import (
    Claim,
    Planned,
    Study,
    Tables,
    Verdict,
    each_once,
    spread,
    verdict,
)

LOW, HIGH = 0.6, 0.8
"""The exponents from and to which the paper finds the shortest plateau."""
MIN_SIZES = 2
"""Numbers of people below which nothing is said about every N, or about how something grows with N."""
_RUNS = (
    "seed", "n_individuals", "exponent", "n_steps", "statistics_end", "plateau_end", "attribute_loss",
    "attribute_accuracy",
)  # fmt: skip
_CURVES = ("seed", "n_individuals", "exponent", "step", "metric", "value")


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

    Args:
        settings: Of the study.
        runs: The finished runs.

    Returns:
        "runs": a row a run, some columns of `distribution.learned`; `exponent` is 0 for uniform sampling.
        "curves": columns `seed`, `n_individuals`, `exponent`, `step`, `metric`, `value` of every second
        measurement.
    """
    del settings
    found = {"runs": (learned(runs), _RUNS), "curves": (learning_curves(runs, every=2), _CURVES)}
    of_kind = {}
    for name, (table, columns) in found.items():
        exponent = table["exponent"] if "exponent" in table else pd.Series(index=table.index)
        filled = table.assign(exponent=pd.to_numeric(exponent).fillna(0.0))
        order = [column for column in columns if column in _CURVES[:3]]
        of_kind[name] = filled[list(columns)].sort_values(order, ignore_index=True, kind="stable")
    return of_kind


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


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about power laws, held against the tables.

    Args:
        tables: Those of `tables`, as made or read back from CSV; "runs" is used.
    """
    runs = comparable(tables["runs"])
    sizes = sorted(int(n) for n in runs["n_individuals"].unique())
    ends, losses, accuracies = (
        {n: by_seed(runs[runs["n_individuals"] == n], "exponent", measure) for n in sizes}
        for measure in ("plateau_end", "attribute_loss", "attribute_accuracy")
    )
    every_exponent = sorted(float(exponent) for exponent in runs["exponent"].unique())
    complete = {
        n for n in sizes if list(ends[n]) == every_exponent and len(ends[n]) >= MIN_SEEDS
    }  # fmt: skip
    earlier = f"at least {EARLIER} steps earlier on average over seeds, {CONSISTENT}"
    every_n = (
        f"{NEVER_ENDED} {SEEDS_COUNT} Agree: so at every N; disagree: the other way round at some N; "
        f"else, or with fewer than {MIN_SIZES} N: cannot tell."
    )
    length = scale(runs)
    return [
        Claim(
            "An uneven distribution shortens the plateau, for every N",
            "the plateau is shorter with a power law of α 0.6 to 0.8 than with uniform sampling, for "
            "every N (Fig. 4, G; 16,000 steps of 128)",
            _measured_shorter(ends) + length,
            _every_size([_shortens(ends[n]) for n in sizes]),
            f"The mean plateau end of the runs with α from {LOW:g} to {HIGH:g} is earlier than that of "
            f"uniform sampling with the same seed: {earlier}. {every_n}",
        ),
        Claim(
            "The plateau is shortest at α of 0.6 to 0.8, for every N",
            "shortest at α of 0.6 to 0.8 for every N (Fig. 4, G; 16,000 steps of 128)",
            _measured_ends(ends) + length,
            _every_size([_shortest_there(ends[n]) if n in complete else None for n in sizes]),
            f"With some α from {LOW:g} to {HIGH:g} it ends earlier than with each α below and above; the "
            f"other way round: with some α below or above it ends earlier than with each of {LOW:g} to "
            f"{HIGH:g}. Earlier means {earlier}. Ties are no evidence. {every_n}",
        ),
        Claim(
            "The α with the best final loss grows with N",
            "grows with N, and with shorter training, which is not measured here (Fig. 4, G; 16,000 "
            "steps of 128)",
            _measured_best(losses) + length,
            _best_grows(losses) if sizes and complete == set(sizes) else "cannot tell",
            "In each seed, the α with the lowest loss at the last step is larger at the largest N than at "
            "the smallest, and never smaller at one N than at the N before (agree in every seed), or it "
            "is smaller at the largest N than at the smallest (disagree in every seed). Else, also where "
            f"it is the same, or with fewer than {MIN_SEEDS} seeds or {MIN_SIZES} N, or where a run is "
            "missing: cannot tell.",
        ),
        Claim(
            "Some α above 0 gives a better final accuracy than uniform sampling, at the largest N",
            "not stated as such: that the best α grows with N says so (Fig. 4, G; 16,000 steps of 128)",
            _measured_accuracy(accuracies) + length,
            some_gain(gains(accuracies[sizes[-1]], 0.0, 1), HIGHER) if sizes else "cannot tell",
            f"Agree: with some α above 0 the final accuracy is at least {HIGHER:g} higher on average over "
            f"seeds, {CONSISTENT}. Disagree: with no α above 0 it is higher on average. Else: cannot tell. "
            f"{SEEDS_COUNT}",
        ),
    ]


def _inside(ends: pd.DataFrame) -> list[float]:
    return [exponent for exponent in map(float, ends.columns) if LOW <= exponent <= HIGH]


def _shortens(ends: pd.DataFrame) -> bool | None:
    inside = _inside(ends)
    if 0.0 not in ends or not inside:
        return None
    return consistent(ends[0.0] - ends[inside].mean(axis=1), EARLIER)


def _shortest_there(ends: pd.DataFrame) -> bool | None:
    """Whether the shortest plateau is between `LOW` and `HIGH`; None without α on both sides of them."""
    inside = _inside(ends)
    outside = [exponent for exponent in map(float, ends.columns) if exponent not in inside]
    if not inside or not outside or not min(outside) < LOW < HIGH < max(outside):
        return None

    def earlier(one: float, other: float) -> bool | None:
        return consistent(ends[other] - ends[one], EARLIER)

    if any(all(earlier(one, other) for other in outside) for one in inside):
        return True
    return False if any(all(earlier(one, other) for other in inside) for one in outside) else None


def _every_size(outcomes: Sequence[bool | None]) -> Verdict:
    """A statement about every N: one counterexample is enough to disagree."""
    if len(outcomes) < MIN_SIZES:
        return "cannot tell"
    if any(outcome is False for outcome in outcomes):
        return "disagree"
    return "agree" if all(outcomes) else "cannot tell"


def _best_exponents(losses: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """The α with the lowest loss: a row a seed that all N have, a column an N."""
    return pd.DataFrame({n: of_size.idxmin(axis=1) for n, of_size in losses.items()}).dropna()


def _best_grows(losses: dict[int, pd.DataFrame]) -> Verdict:
    if len(losses) < MIN_SIZES:
        return "cannot tell"
    holds: list[bool | None] = []
    for _, best in _best_exponents(losses).iterrows():
        first, last = best.iloc[0], best.iloc[-1]
        if last < first:
            holds.append(False)
        else:
            holds.append(True if last > first and best.is_monotonic_increasing else None)
    return verdict(holds, max(MIN_SEEDS, len(holds)))


def _measured_shorter(ends: dict[int, pd.DataFrame]) -> str:
    said = []
    for n, of_size in ends.items():
        inside = _inside(of_size)
        if 0.0 in of_size and inside and len(of_size):
            uniform, uneven = of_size[0.0], of_size[inside].mean(axis=1)
            said.append(
                f"N = {n:,}: step {spread(uniform, '.0f')} uniform, {spread(uneven, '.0f')} at α "
                f"{' and '.join(f'{exponent:g}' for exponent in inside)}"
            )
    return f"the plateau ends at {'; '.join(said)}" if said else "nothing to compare"


def _measured_ends(ends: dict[int, pd.DataFrame]) -> str:
    said = []
    for n, of_size in ends.items():
        if len(of_size):
            means = of_size.mean()
            steps = ", ".join(f"{mean:.0f} ({exponent:g})" for exponent, mean in means.items())
            said.append(f"N = {n:,}: {steps}")
    return f"mean plateau end in steps, by α: {'; '.join(said)}" if said else "nothing to compare"


def _measured_best(losses: dict[int, pd.DataFrame]) -> str:
    best = _best_exponents(losses) if losses else pd.DataFrame()
    if best.empty:
        return "nothing to compare"
    said = []
    for n, of_size in losses.items():
        of_seed = ", ".join(f"{exponent:g}" for exponent in best[n])
        means = of_size.mean()
        said.append(f"N = {n:,}: {of_seed} (best mean loss {means.min():.2f} nats)")
    return f"best α of each seed: {'; '.join(said)}"


def _measured_accuracy(accuracies: dict[int, pd.DataFrame]) -> str:
    if not accuracies:
        return "nothing to compare"
    n = max(accuracies)
    found = accuracies[n]
    uneven = found.drop(columns=0.0, errors="ignore").mean()
    if 0.0 not in found or uneven.empty or found.empty:
        return "nothing to compare"
    best = uneven.idxmax()
    return (
        f"N = {n:,}: final accuracy {spread(found[0.0], '.3f')} uniform, {spread(found[best], '.3f')} at "
        f"α = {best:g}, the best mean"
    )


STUDY = Study(
    name="power_law",
    title="Power law",
    question="Does showing some people more often than others shorten the plateau and give more knowledge "
    "in the same number of steps, and how uneven is best for how many people (paper, section 4, Fig. 4, G)?",
    settings=PowerLawSettings,
    runs=planned,
    tables=tables,
    figures=figures,
    claims=claims,
)
