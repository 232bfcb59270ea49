"""What the tables of the study of celebrities say: the claims, each with its rule and its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from interp.seeds import spread
from interp.studies import distribution, paired
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement, Verdict, differs, verdict
from interp.studies.study import Tables

UNIFORM = "uniform"
"""What tables and figures call the uniform distribution."""
SIMILAR = {"similar": 2.0}
"""Gains up to so many times as large, or as small, are similar."""


@dataclass(frozen=True)
class _Compared:
    """A measure by seed and distribution, and what is gained in it over the uniform one."""

    values: pd.DataFrame
    celebrities: pd.DataFrame
    power_laws: pd.DataFrame

    @classmethod
    def of(cls, runs: pd.DataFrame, measure: str, sign: int) -> "_Compared":
        kinds = dict(zip(runs["distribution"], runs["kind"], strict=True))
        values = paired.by_seed(runs, "distribution", measure, list(kinds))
        gained = paired.gains(values, UNIFORM, sign)
        celebrities, power_laws = (
            gained[[name for name in gained if kinds[str(name)] == kind]]
            for kind in ("celebrities", "power_law")
        )
        return cls(values, celebrities, power_laws)

    def each(self, what: str, form: str) -> str:
        """The uniform distribution and all celebrities, in words."""
        if self.celebrities.empty:
            return ""
        names = [UNIFORM, *self.celebrities]
        said = [f"{name} {spread(self.values[name], form)}" for name in names]
        return f"{what}: {'; '.join(said)}"

    def largest(self, what: str, form: str) -> str:
        """The largest gains, in words."""
        if self.celebrities.empty or self.power_laws.empty:
            return ""
        kinds = [(gained, paired.best(gained)) for gained in (self.celebrities, self.power_laws)]
        said = [f"{name} {spread(gained[name], form)}" for gained, name in kinds]
        return f"largest mean gain in {what}: {'; '.join(said)}"

    @property
    def best_gains(self) -> list[tuple[float, float]]:
        """In each seed, of the celebrities and of the power law with the largest mean gain."""
        if self.celebrities.empty or self.power_laws.empty:
            return []
        ours, theirs = (
            gained[paired.best(gained)].astype(float)
            for gained in (self.celebrities, self.power_laws)
        )
        return list(zip(ours, theirs, strict=True))

    def similar(self, similar: float, min_seeds: int, margin: float | int) -> Verdict:
        """Whether the best celebrities gain about as much as the best power law, if that gains at all."""
        gains = self.best_gains
        if not differs((their for _, their in gains), margin, min_seeds):
            return "cannot tell"
        holds = [
            their / similar <= our <= their * similar if their > 0 else None for our, their in gains
        ]
        return verdict(holds, max(min_seeds, len(holds)))

    def times(self, min_seeds: int, margin: float | int) -> list[float]:
        """Gains of the best celebrities in times those of the best power law, where that gains."""
        gains = self.best_gains
        if not differs((their for _, their in gains), margin, min_seeds):
            return []
        return [our / their for our, their in gains if their > 0]


Measured = dict[str, _Compared]


def _similar(
    measure: str, margin: Mapping[str, float | int], said: str, note: str = ""
) -> Rule[Measured]:
    """The rule that gains are similar; `said` names the margin."""

    def decide(of: Measured, similar: float, min_seeds: int, **margin: float | int) -> Verdict:
        (least,) = margin.values()
        return of[measure].similar(similar, min_seeds, least)

    return Rule(
        "The gain over uniform sampling with the same seed, of the celebrities and of the power law with "
        "the largest mean gain each. Agree: in every seed that of the celebrities is at least "
        "1/{similar:g} and at most {similar:g} times that of the power law; disagree: in every seed it "
        "is less or more. Else: cannot tell; nor can it be told where the power law gains less than "
        f"{said} on average over seeds, or nothing in one of them. {paired.SEEDS_COUNT}{note}",
        decide,
        {**SIMILAR, **margin, **paired.SEEDS},
    )


def _similar_numbers(
    measure: str, margin: Mapping[str, float | int], what: str, form: str
) -> tuple[Number[Measured], Number[Measured]]:
    """What that rule reads: whether there is a gain to compare with, and how the two compare."""
    (least,) = margin.values()
    similar = SIMILAR["similar"]
    return (
        Number(
            f"{what}, of the power law that gains most",
            lambda of: [their for _, their in of[measure].best_gains],
            (least,),
            form,
        ),
        Number(
            "gain of the celebrities that gain most, in times that of the power law",
            lambda of: of[measure].times(margin=least, **paired.SEEDS),
            (1 / similar, similar),
        ),
    )


_EARLIER = "steps by which the plateau ends earlier than with uniform sampling"
_HIGHER = "final accuracy above that of uniform sampling"
_PAPER = (
    "gains similar to the power law's: 4k, 16k and 64k celebrities with weights 2 to 16 (Fig. H; 16,000 "
    "steps of 128)"
)
STATEMENTS = (
    Statement[Measured](
        "Celebrities shorten the plateau",
        _PAPER,
        paired.some_better(
            "some celebrities it ends at least {earlier} steps earlier than with uniform sampling",
            "none it ends earlier",
            lambda of: of["ends"].celebrities,
            distribution.PLATEAU,
            distribution.NEVER_ENDED,
        ),
        lambda of: of["ends"].each("plateau end in steps", ".0f"),
        paired.gain_of_each(
            _EARLIER, lambda of: of["ends"].celebrities, distribution.PLATEAU, "+.0f"
        ),
    ),
    Statement[Measured](
        "Celebrities give a better final accuracy than uniform sampling",
        _PAPER,
        paired.some_better(
            "some celebrities it is at least {higher:g} higher",
            "none it is higher",
            lambda of: of["accuracies"].celebrities,
            distribution.ACCURACY,
        ),
        lambda of: of["accuracies"].each("final accuracy", ".3f"),
        paired.gain_of_each(
            _HIGHER, lambda of: of["accuracies"].celebrities, distribution.ACCURACY, "+.3f"
        ),
    ),
    Statement[Measured](
        "Celebrities shorten the plateau about as much as a power law does",
        _PAPER,
        _similar(
            "ends", distribution.PLATEAU, "{earlier} steps", f" {distribution.NEVER_ENDED.strip()}"
        ),
        lambda of: of["ends"].largest("steps", ".0f"),
        _similar_numbers("ends", distribution.PLATEAU, _EARLIER, "+.0f"),
    ),
    Statement[Measured](
        "Celebrities raise the final accuracy about as much as a power law does",
        _PAPER,
        _similar("accuracies", distribution.ACCURACY, "{higher:g}"),
        lambda of: of["accuracies"].largest("final accuracy", ".3f"),
        _similar_numbers("accuracies", distribution.ACCURACY, _HIGHER, "+.3f"),
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's claims about celebrities, held against "runs", as made or read back from CSV."""
    runs = distribution.comparable(tables["runs"])
    compared = {
        "ends": _Compared.of(runs, "plateau_end", -1),
        "accuracies": _Compared.of(runs, "attribute_accuracy", 1),
    }
    found = [statement.against(compared) for statement in STATEMENTS]
    return [paired.to_scale(claim, runs, n_individuals=True) for claim in found]
