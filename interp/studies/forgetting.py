"""Forgetting: what becomes of old knowledge while something new is learned, with and without replay.

The same is asked of a language model that is fine-tuned on new people, and of the toy memory that is
fine-tuned on new pairs. Thresholds are the questions' own, so that both are judged alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, isnan, nan
from typing import Any, TypeVar

import pandas as pd

BOTH = 0.9
"""Share of old knowledge kept, and of the new learned, that is as good as all."""
KNOWN = 0.9
"""Accuracy on what was known that there has to be before: else there is little to forget."""
HALF = 0.5
"""Share of the old accuracy below which more than half of it is lost."""
AnyForgetting = TypeVar("AnyForgetting", bound="Forgetting")


@dataclass(frozen=True)
class Forgetting:
    """One seed's accuracies (shares) while it is fine-tuned on something new.

    Attributes:
        old: On what was known before, by step, without replay; empty if it was not measured.
        new: On what is new, likewise.
        replayed: On old and new at the last step, by replay weight.
    """

    old: pd.Series
    new: pd.Series
    replayed: Mapping[float, tuple[float, float]]

    @classmethod
    def of(
        cls: type[AnyForgetting], accuracy: pd.DataFrame, old: str, new: str, **more: Any
    ) -> AnyForgetting:
        """From a table of accuracies of one seed.

        Args:
            accuracy: Columns `replay_weight` (NaN: no replay), `step`, `split`, `value`.
            old: The split of what was known.
            new: The split of what is new.
            more: What a subclass has beside.
        """
        weights = pd.to_numeric(accuracy["replay_weight"]).astype(float).fillna(0.0)
        without = accuracy[weights == 0]
        replayed = {}
        for weight in sorted(set(weights) - {0.0}):
            curves = [by_step(accuracy[weights == weight], split) for split in (old, new)]
            if all(map(len, curves)):
                replayed[weight] = (float(curves[0].iloc[-1]), float(curves[1].iloc[-1]))
        return cls(by_step(without, old), by_step(without, new), replayed, **more)

    @property
    def half_lost(self) -> int | None:
        """The first measured step with less than half of the old accuracy; None if there is none."""
        lost = self.old.index[self.old < first(self.old) * HALF]
        return int(lost[0]) if len(lost) else None

    @property
    def lost(self) -> float:
        """The accuracy on what was known that is lost in the end; NaN if it was not measured."""
        return first(self.old) - last(self.old)

    def lowest_kept(self, by: float | int = inf) -> float:
        """The lowest accuracy on what was known up to a step, as a share of what it was.

        NaN where it was not followed so far and half is not lost; that is so where the share is below `HALF`.
        """
        short = self.old.empty or (isfinite(by) and self.old.index[-1] < by)
        if self.half_lost is None and short:
            return nan
        return float(self.old[self.old.index <= by].min()) / first(self.old)

    @property
    def learned_at_half_lost(self) -> float:
        """The accuracy on what is new when half of the old is lost; NaN where it never is."""
        if self.half_lost is None or self.new.empty:
            return nan
        return float(self.new[self.half_lost])

    @property
    def gained_by_replay(self) -> float:
        """The final accuracy on what was known with the heaviest replay, less that without; NaN without."""
        return self.replayed[max(self.replayed)][0] - last(self.old) if self.replayed else nan

    @property
    def best_of_both(self) -> float:
        """The smaller share of the old accuracy kept and the new learned, at the best replay weight.

        NaN without replay.
        """
        shares = [min(old / first(self.old), new) for old, new in self.replayed.values()]
        return max(shares, default=nan)


def by_step(table: pd.DataFrame, split: str) -> pd.Series:
    """The values of a split, by step."""
    return table[table["split"] == split].set_index("step")["value"].astype(float).sort_index()


def first(curve: pd.Series) -> float:
    """The first value; NaN if there is none."""
    return float(curve.iloc[0]) if len(curve) else nan


def last(curve: pd.Series) -> float:
    """The last value; NaN if there is none."""
    return float(curve.iloc[-1]) if len(curve) else nan


@dataclass(frozen=True)
class Question:
    """What is asked of a seed, in words and as a function.

    Attributes:
        template: The statement, with {things} for what is known ("people", say) and its numbers.
        holds: From a seed and the numbers to whether it holds; None where that cannot be told.
        numbers: The thresholds, by name.
    """

    template: str
    holds: Callable[..., bool | None]
    numbers: Mapping[str, Any]

    def about(self, things: str) -> str:
        """The template with its things named."""
        return self.template.replace("{things}", things)


def question(template: str, **numbers: Any) -> Callable[[Callable[..., bool | None]], Question]:
    """Makes a question of the function that answers it."""
    return lambda holds: Question(template, holds, numbers)


@question("Without replay accuracy on old {things} falls below half of what it was.")
def forgets(seed: Forgetting) -> bool | None:
    """Never None."""
    return seed.half_lost is not None


@question(
    "Without replay accuracy on old {things} is below half of what it was by step {soon}.", soon=500
)
def forgets_soon(seed: Forgetting, soon: int) -> bool | None:
    """None where it was not followed so far."""
    if seed.half_lost is None and seed.old.index[-1] < soon:
        return None
    return seed.half_lost is not None and seed.half_lost <= soon


@question(
    "Without replay, at the first measured step where accuracy on old {things} is below half of what it "
    "was, accuracy on new ones is below {learned:g}",
    learned=0.5,
)
def loses_first(seed: Forgetting, learned: float) -> bool | None:
    """None where half is never lost."""
    at = seed.learned_at_half_lost
    return None if isnan(at) else at < learned


@question(
    "With the heaviest replay the final accuracy on old {things} is at least {helps:g} above that without",
    helps=0.1,
)
def replay_helps(seed: Forgetting, helps: float) -> bool | None:
    """None without replay."""
    return seed.gained_by_replay >= helps if seed.replayed else None


@question(
    "No replay weight ends with {both:.0%} of the old accuracy kept and {both:g} accuracy on new {things}.",
    both=BOTH,
)
def replay_is_partial(seed: Forgetting, both: float) -> bool | None:
    """None without replay."""
    if not seed.replayed:
        return None
    kept = both * first(seed.old)
    return not any(old >= kept and new >= both for old, new in seed.replayed.values())
