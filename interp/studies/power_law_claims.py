"""What the paper says of power laws, and the rules by which the study's tables agree or disagree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from interp.seeds import spread
from interp.studies import distribution, paired
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement, Verdict
from interp.studies.study import Tables

BETWEEN = {"low": 0.6, "high": 0.8}
"""The exponents from and to which the paper finds the shortest plateau."""
SPACING = 5
"""Steps between measurements, and by how many a plateau has to end earlier."""
PLATEAU = {"earlier": SPACING}
SIZES = {"min_sizes": 2}
"""Numbers of people below which nothing is said about every N, or about how something grows with N."""


@dataclass(frozen=True)
class _Size:
    """What was measured with some number of people: tables with a row a seed, a column an exponent."""

    n: int
    n_steps: int
    ends: pd.DataFrame
    losses: pd.DataFrame
    accuracies: pd.DataFrame


@dataclass(frozen=True)
class _Measured:
    """What was measured: with every number of people, and of one of these in less time, shortest last."""

    sizes: Sequence[_Size]
    lengths: Sequence[_Size] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes)


def _at_every_size(holds: Callable[..., bool | None]) -> Callable[..., Verdict]:
    """A decision about the plateau's ends at every N."""

    def decide(of: _Measured, earlier: int, min_sizes: int, **numbers: float | int) -> Verdict:
        outcomes = [holds(size.ends, margin=earlier, **numbers) for size in of.sizes]
        return paired.everywhere(outcomes, min_sizes)

    return decide


def _each_size(what: str, words: Callable[[_Size], str]) -> Callable[[_Measured], str]:
    """What was measured at every N; nothing where there are no words for any."""

    def say(of: _Measured) -> str:
        parts = [f"N = {at.n:,}: {said}" for at in of.sizes if len(at.ends) and (said := words(at))]
        return f"{what} {'; '.join(parts)}" if parts else ""

    return say


def _say_shorter(of: _Size) -> str:
    inside = paired.within(of.ends, **BETWEEN)
    if 0.0 not in of.ends or not inside:
        return ""
    uniform, uneven = spread(of.ends[0.0], ".0f"), spread(of.ends[inside].mean(axis=1), ".0f")
    named = " and ".join(f"{exponent:g}" for exponent in inside)
    return f"step {uniform} uniform, {uneven} at α {named}"


def _say_lengths(of: _Measured) -> str:
    parts = [f"{at.n_steps:,} steps: {_say_best(at)}" for at in of.lengths if len(at.losses)]
    return f"N = {of.lengths[0].n:,}: best α of each seed: {'; '.join(parts)}" if parts else ""


def _by_n(
    difference: Callable[[pd.DataFrame], pd.Series],
) -> Callable[[_Measured], dict[str, list[float]]]:
    """Differences between plateaus' ends, seed by seed, at every N that has them."""

    def values(of: _Measured) -> dict[str, list[float]]:
        found = {f"N = {at.n:,}": list(difference(at.ends).astype(float)) for at in of.sizes}
        return {n: own for n, own in found.items() if own}

    return values


def _earlier(ends: pd.DataFrame) -> pd.Series:
    """By how many steps plateaus end earlier with α between, as a mean, than with uniform sampling."""
    inside = paired.within(ends, **BETWEEN)
    if 0.0 not in ends or not inside:
        return pd.Series(dtype=float)
    return ends[0.0] - ends[inside].mean(axis=1)


def _earliest(ends: pd.DataFrame) -> pd.Series:
    """By how many steps they end earlier with the best α between than with the best one elsewhere."""
    inside = paired.within(ends, **BETWEEN)
    outside = [exponent for exponent in ends if exponent not in inside]
    if ends.empty or not inside or not outside:
        return pd.Series(dtype=float)
    return ends[ends[outside].mean().idxmin()] - ends[ends[inside].mean().idxmin()]


def _grown(tables: Sequence[_Size]) -> list[float]:
    """By how much the α with the lowest loss is larger in the last of several, in each seed."""
    if len(tables) < 2 or tables[0].losses.empty or tables[-1].losses.empty:
        return []
    first, last = (at.losses.idxmin(axis=1) for at in (tables[0], tables[-1]))
    return list((last - first).dropna().astype(float) + 0.0)


def _gains(of: _Measured) -> pd.DataFrame:
    return paired.gains(of.sizes[-1].accuracies, 0.0, 1) if of else pd.DataFrame()


def _say_ends(of: _Size) -> str:
    return ", ".join(f"{mean:.0f} ({exponent:g})" for exponent, mean in of.ends.mean().items())


def _say_best(of: _Size) -> str:
    exponents = ", ".join(f"{exponent:g}" for exponent in of.losses.idxmin(axis=1))
    return f"{exponents} (best mean loss {of.losses.mean().min():.2f} nats)"


def _say_accuracy(of: _Measured) -> str:
    accuracies = of.sizes[-1].accuracies if of.sizes else pd.DataFrame()
    alpha = paired.best(accuracies.drop(columns=0.0, errors="ignore"))
    if 0.0 not in accuracies or alpha is None:
        return ""
    uniform, uneven = spread(accuracies[0.0], ".3f"), spread(accuracies[alpha], ".3f")
    said = f"{uniform} uniform, {uneven} at α = {alpha:g}, the best mean"
    return f"N = {of.sizes[-1].n:,}: final accuracy {said}"


_EVERY_N = (
    " The margin is the distance between measurements. It was 25 steps, with which it could not be told of "
    "256 and 512 people, and is smaller since the same seeds were trained again and measured more often. "
    f"{distribution.NEVER_ENDED}{paired.SEEDS_COUNT} Agree: so at every N; disagree: the other way round at "
    "some N; else, or with fewer than {min_sizes} N: cannot tell."
)
_NUMBERS = {**BETWEEN, **SIZES, **PLATEAU, **paired.SEEDS}
SHORTER = Statement[_Measured](
    "The α with the best final loss grows as training gets shorter",
    "grows with shorter training (Fig. 4, G; 16,000 steps of 128)",
    Rule(
        "Of the same people in runs of several lengths, in each seed: the α with the lowest loss at the "
        "last step is larger in the shortest than in the longest, and never smaller in one than in the "
        "next longer (agree in every seed), or it is smaller in the shortest than in the longest "
        "(disagree in every seed). Else, also where it is the same, or with fewer than {min_seeds} seeds "
        "or {min_lengths} lengths, or where a run is missing: cannot tell.",
        lambda of, min_lengths, **numbers: paired.lowest_grows(
            [length.losses for length in of.lengths], min_lengths, **numbers
        ),
        {"min_lengths": 2, **paired.SEEDS},
    ),
    _say_lengths,
    Number(
        "best α of the shortest training less that of the longest",
        lambda of: _grown(of.lengths),
        (0,),
        "+.2f",
    ),
)
STATEMENTS = (
    Statement[_Measured](
        "An uneven distribution shortens the plateau, for every N",
        "the plateau is shorter with a power law of α 0.6 to 0.8 than with uniform sampling, for every N "
        "(Fig. 4, G; 16,000 steps of 128)",
        Rule(
            "The mean plateau end of the runs with α from {low:g} to {high:g} is earlier than that of "
            "uniform sampling with the same seed: at least {earlier} steps earlier "
            f"{paired.CONSISTENT}.{_EVERY_N}",
            _at_every_size(paired.lower_within),
            _NUMBERS,
        ),
        _each_size("the plateau ends at", _say_shorter),
        Number("steps earlier with α between", _by_n(_earlier), (SPACING, -SPACING), "+.0f"),
    ),
    Statement[_Measured](
        "The plateau is shortest at α of 0.6 to 0.8, for every N",
        "shortest at α of 0.6 to 0.8 for every N (Fig. 4, G; 16,000 steps of 128)",
        Rule(
            "With some α from {low:g} to {high:g} it ends earlier than with each α below and above; the "
            "other way round: with some α below or above it ends earlier than with each of {low:g} to "
            "{high:g}. Earlier means at least {earlier} steps earlier "
            f"{paired.CONSISTENT}. Ties are no evidence.{_EVERY_N}",
            _at_every_size(paired.lowest_within),
            _NUMBERS,
        ),
        _each_size("mean plateau end in steps, by α:", _say_ends),
        Number(
            "steps earlier with the best α between than with the best elsewhere",
            _by_n(_earliest),
            (SPACING, -SPACING),
            "+.0f",
        ),
    ),
    Statement[_Measured](
        "The α with the best final loss grows with N",
        "grows with N (Fig. 4, G; 16,000 steps of 128)",
        Rule(
            "In each seed, the α with the lowest loss at the last step is larger at the largest N than at "
            "the smallest, and never smaller at one N than at the N before (agree in every seed), or it "
            "is smaller at the largest N than at the smallest (disagree in every seed). Else, also where "
            "it is the same, or with fewer than {min_seeds} seeds or {min_sizes} N, or where a run is "
            "missing: cannot tell.",
            lambda of, **numbers: paired.lowest_grows(
                [size.losses for size in of.sizes], **numbers
            ),
            {**SIZES, **paired.SEEDS},
        ),
        _each_size("best α of each seed:", _say_best),
        Number(
            "best α at the largest N less that at the smallest",
            lambda of: _grown(of.sizes),
            (0,),
            "+.2f",
        ),
    ),
    SHORTER,
    Statement[_Measured](
        "Some α above 0 gives a better final accuracy than uniform sampling, at the largest N",
        "not stated as such: that the best α grows with N says so (Fig. 4, G; 16,000 steps of 128)",
        paired.some_better(
            "some α above 0 the final accuracy is at least {higher:g} higher",
            "no α above 0 it is higher",
            _gains,
            distribution.ACCURACY,
        ),
        _say_accuracy,
        paired.gain_of_each(
            "final accuracy above that of uniform sampling at the largest N, by α",
            _gains,
            distribution.ACCURACY,
            "+.3f",
        ),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about power laws, held against tables as made or read back from CSV."""
    whole = distribution.comparable(tables["runs"], SPACING)
    shorter = tables.get("shorter", tables["runs"].iloc[:0])
    lengths = pd.concat(
        [whole, distribution.comparable(shorter, SPACING)] if len(shorter) else [whole]
    )
    people = set(map(int, shorter["n_individuals"]))
    same_people = lengths[lengths["n_individuals"].isin(people)]
    of = _Measured(_each(whole, "n_individuals"), _each(same_people, "n_steps")[::-1])
    return [
        paired.to_scale(statement.against(of), same_people if statement is SHORTER else whole)
        for statement in STATEMENTS
    ]


def _each(runs: pd.DataFrame, column: str) -> list[_Size]:
    """What was measured at each value of a column, in ascending order."""
    exponents = sorted(runs["exponent"].unique())
    measures = ("plateau_end", "attribute_loss", "attribute_accuracy")
    return [
        _Size(
            int(own["n_individuals"].iloc[0]),
            int(own["n_steps"].iloc[0]),
            *(paired.by_seed(own, "exponent", one, exponents) for one in measures),
        )
        for _, own in runs.groupby(column)
    ]
