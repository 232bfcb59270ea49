"""Disagreements explained.

Where a result differs from what others measured, is it because of a setting in which we differ from them?

Command: interp batch explained --out artifacts/studies --workers 2
Duration: 60 runs of 100 to 2,510 steps, and 6 that some start from (about 40 minutes on two cores)

For each disagreement the setting that is most likely to cause it is changed, and nothing else; then the rule
of its own study decides again, on tables made as that study makes them. Both cases are trained here, with the
same seeds, so that what is compared is made alike. Which setting, and which value, was written down before
any of these runs was trained; for questions after pilots of seed 0, which is none of the seeds here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import field_validator

from interp.config import Settings
from interp.engine.store import address_of
from interp.errors import ConfigError
from interp.studies.changes import AFTER, BEFORE, CASES, CHANGES, Case, Change
from interp.studies.rules import Claim, Rule, Statement, Verdict
from interp.studies.study import Planned, Study, StudySettings, Tables, each_known

PRESETS: tuple[str, ...] = ("tiny",)
"""The presets whose numbers the words of changes have."""
_APART = ("change", "case")


class ExplainedSettings(StudySettings):
    """Settings of the study of disagreements."""

    seeds: tuple[int, ...] = (1, 2)
    """One run of each kind for each seed. Two are what the rules ask for; pilots were of seed 0."""
    changes: tuple[str, ...] = tuple(CHANGES)
    """What is changed, by name."""

    varies: ClassVar[frozenset[str]] = frozenset(
        {"population.n_individuals", "training.batch_size", "model.n_layers"}
    ).union(*(change.varies for change in CHANGES.values()))

    @field_validator("preset")
    @classmethod
    def _words_fit(cls, preset: str) -> str:
        if preset not in PRESETS:
            raise ConfigError(
                f"preset={preset!r}: the changes are said in the numbers of {', '.join(PRESETS)} (512 "
                "people, 2 layers, ...), so that with others the words would be wrong; for another preset "
                "run the studies themselves, with and without the change."
            )
        return preset

    @field_validator("changes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return each_known("changes", names, CHANGES)

    def cases(self) -> Iterator[tuple[Change, Case, Settings]]:
        """Every change, with each of its cases and the settings of its study for that."""
        given: dict[str, Any] = {"preset": self.preset, "seeds": self.seeds}
        for name in self.changes:
            change = CHANGES[name]
            for case in CASES:
                settings = change.settings(case)
                settings["run"] = self.run | settings.get("run", {})
                yield change, case, change.study.settings(**given, **settings)


def planned(settings: ExplainedSettings) -> list[Planned]:
    """The runs that settings ask for: those of every case's own study."""
    return [one for change, _, of_case in settings.cases() for one in change.study.runs(of_case)]


def tables(settings: ExplainedSettings, runs: Sequence[Any]) -> dict[str, pd.DataFrame]:
    """The tables of each case's own study, one below the other.

    Returns:
        Tables named "robustness_runs", ...: the study's name and its table's. They begin with `change` and
        `case` ("before", "after"); the other columns are as that study has them.
    """
    finished = {address_of(run.config): run for run in runs}
    parts: dict[str, list[pd.DataFrame]] = {}
    for change, case, of_case in settings.cases():
        own = dict.fromkeys(address_of(one.config) for one in change.study.runs(of_case))
        made = change.study.tables(of_case, [finished[a] for a in own if a in finished])
        for name in change.tables:
            table = made[name].copy()
            table.insert(0, "case", case)
            table.insert(0, "change", change.name)
            parts.setdefault(f"{change.study.name}_{name}", []).append(table)
    return {name: _below_each_other(found) for name, found in parts.items()}


def _below_each_other(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the same columns; those without rows, whose columns have no type, add none."""
    some = [table for table in tables if len(table)]
    return pd.concat(some, ignore_index=True) if some else tables[0]


def of_case(tables: Tables, change: Change, case: Case) -> dict[str, pd.DataFrame]:
    """The tables of one case, as its own study made them."""
    prefix = f"{change.study.name}_"
    return {
        name.removeprefix(prefix): table[(table["change"] == change.name) & (table["case"] == case)]
        .drop(columns=list(_APART))
        .reset_index(drop=True)
        for name, table in tables.items()
        if name.startswith(prefix) and name.removeprefix(prefix) in change.tables
    }


_Found = Mapping[Case, Claim]
"""The claim that is to be explained, as found in each case."""


def _found(tables: Tables, change: Change, claim: str) -> _Found:
    found: dict[Case, Claim] = {}
    for case in CASES:
        own = of_case(tables, change, case)
        if own and all(map(len, own.values())):
            found[case] = next(one for one in change.study.claims(own) if one.claim == claim)
    return found if len(found) == len(CASES) else {}


def _decide(found: _Found) -> Verdict:
    if not found or found[BEFORE].verdict != "disagree":
        return "cannot tell"
    return found[AFTER].verdict


def _said(change: Change, found: _Found) -> str:
    return "; ".join(
        f"{change.words[case]}: {found[case].verdict} ({found[case].measured})" for case in CASES
    )


def _statement(change: Change, claim: str, because: str) -> Statement[_Found]:
    before, after = (change.words[case] for case in CASES)
    rule = Rule[_Found](
        f"The rule of the study `{change.study.name}` for its claim “{claim}” is applied to {before} and to "
        f"{after}, all else equal. Where it does not disagree for {before}, there is nothing to explain: "
        f"cannot tell. Otherwise its verdict for {after} is the verdict here: agree, if the change makes the "
        "claim hold; disagree, if the claim fails as before; else cannot tell.",
        _decide,
    )
    return Statement(because, change.others, rule, partial(_said, change))


def claims(tables: Tables) -> list[Claim]:
    """One for each disagreement and change, held against tables as made or read back from CSV.

    Its numbers are those that the rule of the claim reads after the change.
    """
    made = []
    for change in CHANGES.values():
        for claim, because in change.claims.items():
            found = _found(tables, change, claim)
            one = _statement(change, claim, because).against(found)
            if found:
                after = found[AFTER]
                one = replace(one, power=after.power, readings=after.readings)
            made.append(one)
    return made


def figures(tables: Tables) -> dict[str, go.Figure]:
    """Of each change one figure of its study, before and after."""
    drawn: dict[str, go.Figure] = {}
    for change in CHANGES.values():
        for case in CASES:
            own = of_case(tables, change, case)
            if own and all(map(len, own.values())):
                draw: Callable[[Tables], Mapping[str, go.Figure]] = change.study.figures
                figure = draw(own).get(change.figure)
                if figure is not None:
                    title = f"{figure.layout.title.text}: {change.words[case]}"
                    figure.update_layout(title_text=title)
                    drawn[f"explained-{change.name.replace(' ', '-')}-{case}"] = figure
    return drawn


STUDY = Study("explained", __doc__, ExplainedSettings, planned, tables, figures, claims)
