"""What seeds say together: their mean, the range they span, and a confidence interval of the mean.

A mean over seeds never stands without its range; this is the one place that computes both.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

import pandas as pd
from scipy.stats import t as student

from interp.errors import ArgumentError

CONFIDENCE = 0.95
"""Of the interval of a mean."""
SUMMARY = ("mean", "low", "high", "interval_low", "interval_high", "n_seeds")
"""The columns that `over_seeds` adds."""


@dataclass(frozen=True)
class OverSeeds:
    """A value of each seed, and what they come to together.

    Attributes:
        values: One a seed, in the unit of what was measured.
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> "OverSeeds":
        """From any iterable of numbers."""
        return cls(tuple(float(value) for value in values))

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean; NaN without a seed."""
        return sum(self.values) / self.n if self.values else float("nan")

    @property
    def low(self) -> float:
        """The lowest seed; NaN without one."""
        return min(self.values, default=float("nan"))

    @property
    def high(self) -> float:
        """The highest seed; NaN without one."""
        return max(self.values, default=float("nan"))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% confidence interval of the mean (Student's t); None with fewer than two seeds."""
        if self.n < 2:
            return None
        variance = sum((value - self.mean) ** 2 for value in self.values) / (self.n - 1)
        half = float(student.ppf((1 + CONFIDENCE) / 2, self.n - 1)) * sqrt(variance / self.n)
        return self.mean - half, self.mean + half

    def text(self, form: str = ".2f") -> str:
        """The mean with the values of the seeds behind it: "0.71 (0.70, 0.72)".

        Args:
            form: How numbers are written.
        """
        if not self.values:
            return "not measured"
        if self.n == 1:
            return f"{self.mean:{form}} (1 seed)"
        return f"{self.mean:{form}} ({', '.join(f'{value:{form}}' for value in self.values)})"

    def with_interval(self, form: str = ".2f") -> str:
        """The mean with its interval, for many seeds: "0.71 (95%: 0.69 to 0.73; 10 seeds)".

        Args:
            form: How numbers are written.
        """
        if self.interval is None:
            return self.text(form)
        low, high = self.interval
        return (
            f"{self.mean:{form}} ({CONFIDENCE:.0%}: {low:{form}} to {high:{form}}; {self.n} seeds)"
        )


def over_seeds(
    table: pd.DataFrame, by: str | Sequence[str], value: str = "value", *, complete: bool = False
) -> pd.DataFrame:
    """The mean over seeds of a tidy table, with its range and interval.

    Rows of one seed and one group are averaged first, so that each seed counts once.

    Args:
        table: With the columns `seed`, `by` and `value`; rows without a value do not count.
        by: The columns that tell groups apart, e.g. "step".
        value: The column of numbers.
        complete: Keep only groups that every seed of the table has.

    Returns:
        The columns of `by`, in order, and `SUMMARY`: `mean`, `low`, `high`, the ends of the 95%
        interval of the mean (NaN with fewer than two seeds), in the unit of `value`, and `n_seeds`.

    Raises:
        ArgumentError: a column is missing.
    """
    columns = [by] if isinstance(by, str) else list(by)
    missing = [name for name in ("seed", *columns, value) if name not in table]
    if missing:
        raise ArgumentError(
            f"A mean over seeds needs the columns {missing}; the table has {list(table.columns)}."
        )
    measured = table[table[value].notna()]
    each = measured.groupby([*columns, "seed"], observed=True, dropna=False)[value].mean()
    rows = []
    # One level by its number: pandas 2 warns about a list of one.
    levels = 0 if len(columns) == 1 else list(range(len(columns)))
    for key, group in each.groupby(level=levels, dropna=False):
        seeds = OverSeeds.of(group)
        low, high = seeds.interval or (float("nan"), float("nan"))
        named = key if isinstance(key, tuple) else (key,)
        rows.append([*named, seeds.mean, seeds.low, seeds.high, low, high, seeds.n])
    result = pd.DataFrame(rows, columns=[*columns, *SUMMARY])
    if complete and rows:
        result = result[result["n_seeds"] == measured["seed"].nunique()].reset_index(drop=True)
    return result


def number_of(n: int, one: str, many: str | None = None) -> str:
    """How many: "1 seed", "3 seeds".

    Example:
        >>> number_of(1, "biography", "biographies")
        '1 biography'
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def all_of(n: int, what: str) -> str:
    """All of several: "the one seed", "both seeds", "all 3 seeds"; `what` in the singular."""
    if n == 1:
        return f"the one {what}"
    return f"both {what}s" if n == 2 else f"all {n:,} {what}s"


def none_of(n: int, what: str) -> str:
    """None of several: "not the one seed", "neither seed", "none of the 3 seeds"; `what` in the singular."""
    if n == 2:
        return f"neither {what}"
    return f"none of the {n:,} {what}s" if n > 2 else f"not {all_of(n, what)}"


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """`OverSeeds.text` of values, one a seed: "0.71 (0.70, 0.72)"."""
    return OverSeeds.of(values).text(form)
