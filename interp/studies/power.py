"""Intervals and power: how sure the number is that a rule reads, and how many seeds would make it sure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Generic, TypeVar

from scipy.stats import t as student

from interp.errors import ArgumentError
from interp.seeds import CONFIDENCE, OverSeeds

Cases = TypeVar("Cases")
MOST_SEEDS = 1000
"""More seeds than that are not counted."""


@dataclass(frozen=True)
class Number(Generic[Cases]):
    """The number that a rule reads of each seed, and what it holds it against.

    Attributes:
        what: What it is, with its unit.
        values: From what was measured to one value a seed.
        against: The thresholds of the rule.
        form: How values are written.
    """

    what: str
    values: Callable[[Cases], Sequence[float | int]]
    against: tuple[float | int, ...]
    form: str = ".2f"

    def said(self, cases: Cases, *, decided: bool = False) -> str:
        """Its mean with the 95% interval, and how many seeds would take the threshold out of it.

        A rule that asks every seed (`Rule.each`) may not be decided by them: seeds on both sides stay. Where
        the rule has `decided`, the interval alone; "" with fewer than two seeds.
        """
        values = [float(value) for value in self.values(cases) if isfinite(value)]
        if len(values) < 2:
            if decided:
                return ""
            return f"{self.what}: fewer than two seeds have one, so that its spread is not known"
        over, form = OverSeeds.of(values), self.form
        low, high = over.interval or (over.mean, over.mean)
        limit = min(self.against, key=lambda one: abs(over.mean - one))
        said = (
            f"{self.what}: {over.mean:{form}}, {CONFIDENCE:.0%} interval {low:{form}} to {high:{form}} "
            f"({len(values)} seeds), held against {limit:{form}}"
        )
        if decided:
            return said
        said += "; "
        needed = seeds_needed(values, limit)
        if needed is None:
            return f"{said}more than {MOST_SEEDS:,} seeds would be needed to tell them apart"
        if needed <= len(values):
            return (
                f"{said}the mean is told apart from it already, and more seeds would not change what the "
                "rule says"
            )
        return f"{said}with this spread {needed} seeds would tell their mean apart from it"


def seeds_needed(values: Sequence[float | int], threshold: float | int) -> int | None:
    """How many seeds would put a threshold outside of the 95% interval of the mean, by Student's t.

    Args:
        values: One of each seed measured, two at least: their mean and spread are taken as the true ones.
        threshold: What the mean is to be told apart from.

    Returns:
        The smallest number of seeds, 2 at least; None for more than `MOST_SEEDS`.

    Raises:
        ArgumentError: fewer than two values.

    Example:
        >>> seeds_needed([0.1, 0.2, 0.3], 0.15), seeds_needed([0.1, 0.2, 0.3], 0.2)
        (18, None)
    """
    if len(values) < 2:
        raise ArgumentError(f"{len(values)} seeds have no spread; give the values of two at least.")
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    distance = abs(mean - threshold)
    for n in range(2, MOST_SEEDS + 1):
        if float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread / n**0.5 < distance:
            return n
    return None
