"""More seeds.

What do claims say that their studies could not decide, on average over further seeds?

Command: interp batch more_seeds --out artifacts/studies --workers 2
Duration: 44 runs of `tiny` (1 to 2 minutes each on one core), then half an hour of measuring

A claim that cannot be told says how many seeds would tell the mean of what its rule reads apart from the
threshold, if mean and spread were those of the seeds measured. Here are so many seeds or more, none of
which the study itself has, and no more runs of each than the number needs; the study's own tables and
claims are made of each seed, and the number is read there. The rule is the same for all: where the 95%
interval of the mean lies. How many seeds, and the threshold, were written down before.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, nan
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import field_validator

from interp.config import Settings
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.plots.more_seeds import values_of_seeds
from interp.seeds import OverSeeds
from interp.studies.collect import complete
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Planned, Study, StudySettings, Tables, each_known, each_once
from interp.studies.undecided import FIRST_SEED, UNDECIDED, Undecided

WITHIN_THE_HOUR = (
    "kind of memory", "groups of equations", "memory of random features", "fewer people",
)  # fmt: skip
"""What two cores have time for in an hour. "attention in fine-tuning" takes about as long by itself, "rare
people" and "adaptive schedule" hours."""
ENOUGH = 0.8
"""The share of the seeds that have to have a value."""
COLUMNS = {"numbers": ("case", "seed", "value")}


class MoreSeedsSettings(StudySettings):
    """Settings of the study of claims that could not be decided."""

    seeds: tuple[int, ...] = ()
    """Seeds of every case, none of which its study has; none: of each as many as it was to be decided by."""
    cases: tuple[str, ...] = WITHIN_THE_HOUR
    """What is decided, by name (`interp.studies.undecided.UNDECIDED`)."""

    varies: ClassVar[frozenset[str]] = frozenset().union(*(c.varies for c in UNDECIDED.values()))

    @field_validator("seeds")
    @classmethod
    def _seeds_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if known := [seed for seed in seeds if seed < FIRST_SEED]:
            raise ConfigError(
                f"seeds={list(seeds)}: the studies themselves have {known}; name seeds from {FIRST_SEED} on."
            )
        return each_once("seeds", seeds) if seeds else seeds

    @field_validator("cases")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return each_known("cases", names, UNDECIDED)

    def of_seeds(self) -> Iterator[tuple[Undecided, int, Settings]]:
        """Every case with each of its seeds, and the settings of its study for that."""
        for name in self.cases:
            case = UNDECIDED[name]
            for seed in self.seeds or case.own_seeds:
                given: dict[str, Any] = {"preset": self.preset, "seeds": (seed,), "run": self.run}
                yield case, seed, case.study.settings(**given, **case.settings)


def _needed(case: Undecided, settings: Settings) -> list[Planned]:
    return [plan for plan in case.study.runs(settings) if case.needed(plan.config)]


def planned(settings: MoreSeedsSettings) -> list[Planned]:
    """The runs that settings ask for: of every case those that its number is read of."""
    return [plan for case, _, own in settings.of_seeds() for plan in _needed(case, own)]


def tables(settings: MoreSeedsSettings, runs: Sequence[Any]) -> dict[str, pd.DataFrame]:
    """What the rules of the claims read of each seed.

    Returns:
        "numbers": by `case` and `seed` the `value`; NaN where the seed has none. Seeds of which a run is
        missing are left out.
    """
    finished = {address_of(run.config): run for run in runs}
    rows = []
    for case, seed, own in settings.of_seeds():
        addresses = [address_of(plan.config) for plan in _needed(case, own)]
        if all(address in finished for address in addresses):
            found = case.study.tables(own, [finished[address] for address in addresses])
            rows.append((case.name, seed, round(_read(case, case.study.claims(found)), 5)))
    return {"numbers": pd.DataFrame(rows, columns=list(COLUMNS["numbers"]))}


def _read(case: Undecided, claims: Sequence[Claim]) -> float:
    """The value of the one seed that claims were made of; NaN without one."""
    [claim] = [one for one in claims if one.claim == case.claim]
    [reading] = claim.readings
    return reading.values[0] if reading.values else nan


_Values = Mapping[int, float]
"""By seed."""


def _statement(case: Undecided) -> Statement[_Values]:
    least = ceil(ENOUGH * case.seeds)
    rule = Rule[float].interval(
        f"The mean of what the rule of the study `{case.study.name}` reads for its claim “{case.claim}” "
        f"({case.number}), over seeds that the study does not have, {case.seeds} from {FIRST_SEED} on.",
        lambda value: value,
        minimum=least,
        **{case.side: case.threshold},
    )
    return Statement(
        case.asked,
        "by the study's own seeds it cannot be told; how many others are asked follows from their spread",
        Rule(
            rule.template,
            lambda found, **numbers: rule.decision(found.values(), **numbers),
            rule.numbers,
        ),
        lambda found: f"{case.number}: {OverSeeds.of(found.values()).with_interval(case.form)}",
        Number(case.number, lambda found: list(found.values()), (case.threshold,), case.form),
    )


def claims(tables: Tables) -> list[Claim]:
    """One for each case that there are values of, held against tables as made or read back from CSV."""
    numbers = complete(tables, COLUMNS)["numbers"]
    found = {str(name): own.dropna() for name, own in numbers.groupby("case")}
    return [
        _statement(case).against(dict(zip(own["seed"], own["value"].astype(float), strict=True)))
        for case in UNDECIDED.values()
        if (own := found.get(case.name)) is not None
    ]


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The study's figure: of every case the seeds, the interval of their mean, and the threshold."""
    numbers = complete(tables, COLUMNS)["numbers"].dropna()
    there = set(numbers["case"])
    shown = {
        case.name: (case.number, case.threshold, case.form)
        for case in UNDECIDED.values()
        if case.name in there
    }
    return {"more-seeds": values_of_seeds(numbers, shown)} if shown else {}


STUDY = Study("more_seeds", __doc__, MoreSeedsSettings, planned, tables, figures, claims)
