"""Intervals and power: how sure the numbers are that rules read, and how many seeds would make them sure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Generic, TypeVar

from scipy.stats import t as student

from interp.errors import ArgumentError
from interp.seeds import CONFIDENCE, OverSeeds, number_of

Case = TypeVar("Case")
Cases = TypeVar("Cases")
Values = Sequence[float | int]
MOST_SEEDS = 1000
"""More seeds than that are not counted."""
TOLD_APART = "the mean is told apart from it already"


@dataclass(frozen=True)
class Reading:
    """A number that a rule reads, as measured.

    Attributes:
        what: What it is, with its unit.
        group: Of which of several conditions; "" where there is one.
        values: One a seed, those that have one.
        limit: The threshold of the rule that is nearest to their mean.
        least: What such a number is at least, in any seed.
        most: And at most.
        form: How values are written.
        case: What has a value each.
    """

    what: str
    group: str
    values: tuple[float, ...]
    limit: float
    least: float = -inf
    most: float = inf
    form: str = ".2f"
    case: str = "seed"

    @property
    def over(self) -> OverSeeds:
        """The values together."""
        return OverSeeds(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean, cut off where no value can lie; None with fewer than two seeds."""
        if self.over.interval is None:
            return None
        low, high = self.over.interval
        return max(low, self.least), min(high, self.most)

    @property
    def within(self) -> bool:
        """Whether the limit lies in the interval, so that the mean is not told apart from it."""
        found = self.over.interval
        return found is not None and found[0] <= self.limit <= found[1]

    @property
    def needed(self) -> int | None:
        """How many seeds would tell the mean apart from the limit; None with too few to say, or for many."""
        return seeds_needed(self.values, self.limit) if len(self.values) >= 2 else None

    def written(self, value: float) -> str:
        """A value in the form of the number; never "-0.00"."""
        said = f"{value:{self.form}}"
        return f"{0.0:{self.form}}" if not any(digit in said for digit in "123456789") else said

    @property
    def words(self) -> str:
        """The mean with its interval: "0.20, 95% interval -0.05 to 0.45"."""
        if self.interval is None:
            return "fewer than two seeds have one, so that its spread is not known"
        low, high = map(self.written, self.interval)
        return f"{self.written(self.over.mean)}, {CONFIDENCE:.0%} interval {low} to {high}"

    @property
    def power(self) -> str:
        """What more seeds would tell, in words."""
        if len(self.values) < 2:
            return ""
        if self.needed is None:
            return f"more than {MOST_SEEDS:,} seeds would be needed to tell the mean apart from it"
        if self.needed <= len(self.values):
            return TOLD_APART
        return f"with this spread {self.needed} seeds would tell their mean apart from it"


@dataclass(frozen=True)
class Number(Generic[Cases]):
    """A number that the rule reads of each seed, and what it holds it against.

    Attributes:
        what: What it is, with its unit.
        values: From what was measured to one value a seed, or, where the rule reads it of several
            conditions, to such values by the condition's name. Seeds that have none are left out, or NaN.
        against: The thresholds of the rule.
        form: How values are written.
        least: What a value is at least in any seed, 0 of a share: intervals are cut off there.
        most: And at most.
        case: What has a value each, in the singular, where that is no seed.
    """

    what: str
    values: Callable[[Cases], Values | Mapping[str, Values]]
    against: tuple[float | int, ...]
    form: str = ".2f"
    least: float | int = -inf
    most: float | int = inf
    case: str = "seed"

    def read(self, cases: Cases) -> list[Reading]:
        """What the rule reads of what was measured, by condition."""
        found = self.values(cases)
        groups = found if isinstance(found, Mapping) else {"": found}
        return [self._reading(group, values) for group, values in groups.items()]

    def _reading(self, group: str, values: Values) -> Reading:
        own = tuple(float(value) for value in values if value is not None and isfinite(value))
        mean = OverSeeds(own).mean
        limit = float(min(self.against, key=lambda one: abs(mean - one) if own else 0))
        ends = float(self.least), float(self.most)
        return Reading(self.what, group, own, limit, *ends, self.form, self.case)


def each_seed(
    what: str,
    read: Callable[[Case], float | int | Mapping[str, float | int] | None],
    *against: float | int,
    form: str = ".2f",
    least: float | int = -inf,
    most: float | int = inf,
    case: str = "seed",
) -> Number[Sequence[Case]]:
    """A number that a rule reads of each seed by itself, as `Rule.each` asks it.

    Args:
        what: What it is, with its unit.
        read: From a seed to its value, or to those of several conditions by name; None where it has none.
        against: The thresholds of the rule.
        form: How values are written.
        least: What a value is at least in any seed.
        most: And at most.
        case: What has a value each, in the singular, where that is no seed.

    Raises:
        ArgumentError: no threshold is given.

    Example:
        >>> each_seed("gain", lambda seed: seed, 0.1).read([0.2, None, 0.3])[0].values
        (0.2, 0.3)
    """
    if not against:
        raise ArgumentError(f"{what!r} is held against nothing; give the thresholds of the rule.")

    def values(seeds: Sequence[Case]) -> Values | Mapping[str, Values]:
        found = [one for seed in seeds if (one := read(seed)) is not None]
        named = [one if isinstance(one, Mapping) else {"": one} for one in found]
        groups = dict.fromkeys(group for one in named for group in one)
        return {group: [one[group] for one in named if group in one] for group in groups} or []

    return Number(what, values, against, form, least, most, case)


def in_words(readings: Sequence[Reading], *, decided: bool = False) -> str:
    """What is read of one number, in all of its conditions: means with 95% intervals.

    Of what is not decided also how many seeds would take the threshold out of the interval. A rule that asks
    every seed (`Rule.each`) may not be decided by so many: seeds on both sides stay.

    Args:
        readings: As `Number.read` returns them.
        decided: Whether the rule has decided: then nothing is said of more seeds.
    """
    if not readings:
        return ""
    known = [one for one in readings if len(one.values) >= 2]
    if not known:
        return "" if decided else f"{readings[0].what}: {readings[0].words}"
    if len(readings) == 1:
        (one,) = known
        held = f"({number_of(len(one.values), one.case)}), held against {one.written(one.limit)}"
        said = f"{', '.join(filter(None, (one.what, one.group)))}: {one.words} {held}"
        if decided:
            return f"{said}, which lies in it" if one.within else said
        return f"{said}; {one.power}"
    parts = []
    for one in known:
        low, high = map(one.written, one.interval or (one.over.mean, one.over.mean))
        part = f"{one.group} {one.written(one.over.mean)} ({low} to {high})"
        if not decided and not (one.needed or inf) <= len(one.values):
            n_needed = f"{one.needed}" if one.needed else f"more than {MOST_SEEDS:,}"
            part += f" [{n_needed} seeds would tell]"
        parts.append(part)
    limits = " and ".join(dict.fromkeys(one.written(one.limit) for one in known))
    counts = sorted({len(one.values) for one in known})
    n_cases = f"{counts[0]:,} to " if counts[0] < counts[-1] else ""
    n_cases += number_of(counts[-1], known[0].case)
    said = (
        f"{known[0].what}, with {CONFIDENCE:.0%} intervals ({n_cases}), held against {limits}: "
        f"{', '.join(parts)}"
    )
    among = [one.group for one in known if one.within] if decided else []
    return f"{said}; the threshold lies in that of {' and '.join(among)}" if among else said


def seeds_needed(values: Values, threshold: float | int) -> int | None:
    """How many seeds would put a threshold outside of the 95% interval of the mean, by Student's t.

    If mean and spread were those of the seeds measured: of other seeds, so many have about an even chance.

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
