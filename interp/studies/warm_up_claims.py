"""What the tables of the study of warm-ups say: the claims, each with its rule and its numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import pandas as pd

from interp.seeds import number_of, spread
from interp.studies import paired
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement, Verdict, verdict
from interp.studies.study import Tables

MARGIN = {"margin": 0.02}
"""Differences of final accuracy that count: larger than the standard error of a share of the 1,536
values (256 people) that are measured, 0.013 at most."""
LEARNED = {"learned": 0.1}
"""Where neither of two schedules ends with more accuracy than this, neither is as good as the other."""
DURATIONS = {"durations": 3}
"""Durations of fixed warm-ups below which nothing is said of the best of them."""


def best_of(table: pd.DataFrame, family: str) -> str | None:
    """The schedule of a family with the highest final accuracy, as a mean over seeds.

    Only schedules with as many seeds as any of the family take part. None where nothing was measured.

    Args:
        table: "learned", as `tables` returns it.
        family: See `tables`.
    """
    name = paired.best(_accuracies(table[table["family"] == family]))
    return None if name is None else str(name)


def _accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """Final accuracy over everybody: a row a seed, a column a schedule."""
    return table.pivot(index="seed", columns="schedule", values="accuracy_of_everybody").astype(
        float
    )


@dataclass(frozen=True)
class _Measured:
    """The tables that the claims are held against."""

    learned: pd.DataFrame
    stages: pd.DataFrame

    def family(self, family: str) -> pd.DataFrame:
        return self.learned[self.learned["family"] == family]

    def accuracy(self, family: str) -> pd.Series:
        """By seed, of the best schedule of a family; or of "the worst adaptive" in each seed."""
        if family == "the worst adaptive":
            return _accuracies(self.family("adaptive")).min(axis=1)
        values, best = _accuracies(self.family(family)), best_of(self.learned, family)
        return pd.Series(dtype=float) if best is None else values[best].dropna()

    @property
    def durations(self) -> int:
        """How many durations of fixed warm-ups were tried."""
        return int(self.family("warm-up")["epochs_warmup"].nunique())

    def named(self, family: str) -> str:
        best = best_of(self.learned, family)
        if best is None or family in ("uniform", "fewer people"):
            return best or family
        return f"best {family} ({best.split(': ')[1]})"

    def said(self, values: dict[str, pd.Series]) -> str:
        accuracies = "; ".join(f"{name} {spread(own, '.3f')}" for name, own in values.items())
        table, scale = self.learned, "nothing was measured"
        if len(table):
            people, steps = int(table["n_everybody"].max()), int(table["n_steps"].max())
            scale = f"{people:,} people, {steps:,} steps, "
            scale += number_of(table["seed"].nunique(), "seed")
        return f"final accuracy: {accuracies} ({scale})"


def _say(*families: str) -> Callable[[_Measured], str]:
    return lambda of: of.said({of.named(family): of.accuracy(family) for family in families})


def _say_fewer(of: _Measured) -> str:
    said, control = _say("warm-up", "fewer people")(of), of.family("fewer people")
    if control.empty:
        return said
    alone = spread(control["attribute_accuracy"], ".3f")
    return f"{said}; of the {int(control['n_individuals'].iloc[0])} people alone {alone}"


def _say_adaptive(of: _Measured) -> str:
    tried = [of.family(family)["schedule"].nunique() for family in ("adaptive", "warm-up")]
    said = (
        f"{_say('adaptive', 'warm-up')(of)}; the best of {tried[0]} adaptive schedules and of {tried[1]} "
        f"warm-ups of {of.durations} durations"
    )
    schedule = best_of(of.learned, "adaptive")
    if schedule is None:
        return said
    own = of.stages[(of.stages["schedule"] == schedule) & (of.stages["step"] > 0)]
    if own.empty:
        return f"{said}; the adaptive schedule never grew"
    last = own.groupby("seed")["step"].max().astype(int)
    steps = " to ".join(f"{step:,}" for step in sorted({last.min(), last.max()}))
    return f"{said}; the adaptive schedule grew for the last time at step {steps}"


def _say_every_adaptive(of: _Measured) -> str:
    adaptive = _accuracies(of.family("adaptive"))
    each = {str(name): adaptive[name].dropna() for name in adaptive}
    return of.said({**each, "uniform": of.accuracy("uniform")})


def _differences(
    of: _Measured, ours: str, theirs: str, learned: float = -inf, durations: float | int = 0
) -> list[float]:
    """Final accuracies of one family less those of another, in each seed that both have.

    Args:
        of: What was measured.
        ours: The one family.
        theirs: The other.
        learned: Seeds in which neither exceeds this are left out.
        durations: With fewer durations of warm-ups there are none.
    """
    pairs = pd.concat([of.accuracy(ours), of.accuracy(theirs)], axis=1).dropna()
    known = pairs[pairs.max(axis=1) > learned] if of.durations >= durations else pairs[:0]
    return [float(our - their) for our, their in known.to_numpy()]


def _compared(
    template: str,
    ours: str,
    theirs: str,
    holds: Callable[..., bool | None],
    *,
    margin: float,
    **which: float | int,
) -> Rule[_Measured]:
    """A rule about `_differences` and a margin."""

    def decide(of: _Measured, min_seeds: int, margin: float, **which: Any) -> Verdict:
        differences = _differences(of, ours, theirs, **which)
        return verdict((holds(by, margin) for by in differences), min_seeds)

    return Rule(template, decide, {"margin": margin, **which, "min_seeds": 2})


def _difference(ours: str, theirs: str, *against: float, **which: float | int) -> Number[_Measured]:
    """What such a rule reads of each seed."""

    def values(of: _Measured) -> list[float]:
        return _differences(of, ours, theirs, **which)

    what = f"final accuracy, {_CALLED[ours]} less {_CALLED[theirs]}"
    return Number(what, values, against, "+.3f")


_MARGIN = MARGIN["margin"]
_HINDSIGHT = "The best of several is the one with the highest mean over seeds: with hindsight. "
_FEWER = ". With fewer than {min_seeds} such seeds: cannot tell."
_NEITHER = "A seed where neither exceeds {learned:g} cannot tell"
_CALLED = {
    "uniform": "uniform sampling",
    "power law": "the best power law",
    "warm-up": "the best warm-up",
    "adaptive": "the best adaptive schedule",
    "the worst adaptive": "the worst adaptive schedule",
    "fewer people": "training on fewer people",
}


def _better(ours: str, theirs: str) -> Rule[_Measured]:
    return _compared(
        f"{_HINDSIGHT}Agree: in all seeds that can tell {_CALLED[ours]} ends higher than {_CALLED[theirs]}; "
        f"disagree: in all, lower. A seed with a difference of at most {{margin:g}} cannot tell{_FEWER}",
        ours,
        theirs,
        lambda by, margin: None if abs(by) <= margin else by > 0,
        **MARGIN,
    )


def _as_good(ours: str, theirs: str, also: str = "", **numbers: float | int) -> Rule[_Measured]:
    return _compared(
        f"{_HINDSIGHT}Agree: in every seed {_CALLED[ours]} ends at most {{margin:g}} below "
        f"{_CALLED[theirs]}; disagree: in every seed it ends further below. {_NEITHER}{_FEWER}{also}",
        ours,
        theirs,
        lambda by, margin: by >= -margin,
        **MARGIN,
        **LEARNED,
        **numbers,
    )


STATEMENTS = (
    Statement(
        "A warm-up on few people gives a better final accuracy than uniform sampling at the same "
        "number of steps",
        "warm-ups on 2k to 32k of 128k people for 1 to 8 of 16 epochs, the best of which ends at "
        "94.92% (Fig. 4 right, I); no number for uniform sampling at hand",
        _better("warm-up", "uniform"),
        _say("warm-up", "uniform"),
        _difference("warm-up", "uniform", _MARGIN, -_MARGIN),
    ),
    Statement(
        "A warm-up does at least as well as the best power law",
        "not stated: our reading of its proposal of curricula (Fig. 4 right)",
        _as_good("warm-up", "power law"),
        _say("warm-up", "power law"),
        _difference("warm-up", "power law", -_MARGIN, **LEARNED),
    ),
    Statement(
        "A warm-up beats training on fewer people only, counted over everybody",
        "94.92% of 128k people with a warm-up; 97.72% of 83k people when trained on these only, "
        "which is 63.26% of the 128k",
        _better("warm-up", "fewer people"),
        _say_fewer,
        _difference("warm-up", "fewer people", _MARGIN, -_MARGIN),
    ),
    Statement(
        "An adaptive schedule, with no setting for when to switch, does as well as the best fixed "
        "warm-up",
        "proposes adaptive schedules and measures none (section 6): this claim is ours",
        _as_good(
            "adaptive",
            "warm-up",
            " So it is with fewer than {durations} durations of warm-ups, as the claim is about these.",
            **DURATIONS,
        ),
        _say_adaptive,
        _difference("adaptive", "warm-up", -_MARGIN, **LEARNED, **DURATIONS),
    ),
    Statement(
        "Every adaptive schedule tried gives a better final accuracy than uniform sampling",
        "proposes adaptive schedules and measures none (section 6): this claim is ours",
        _compared(
            "Nothing is chosen with hindsight. Agree: in every seed the worst of the adaptive schedules "
            "ends more than {margin:g} higher than uniform sampling; disagree: in every seed it ends "
            f"lower, or at most {{margin:g}} higher. {_NEITHER}{_FEWER}",
            "the worst adaptive",
            "uniform",
            lambda by, margin: by > margin,
            **MARGIN,
            **LEARNED,
        ),
        _say_every_adaptive,
        _difference("the worst adaptive", "uniform", _MARGIN, **LEARNED),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The claims held against "learned" and "stages", as made or read back from CSV."""
    measured = _Measured(tables["learned"], tables["stages"])
    return [statement.against(measured) for statement in STATEMENTS]
