"""What is claimed of forms made for the model, and the rules by which the study's tables agree or disagree.

The rules were written down before any run of the study. Known was the study `mnemonic`, in which everybody is
met in both forms, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite

import pandas as pd

from interp.seeds import spread
from interp.studies.power import each_seed
from interp.studies.rules import Claim, Rule, Statement
from interp.studies.study import Tables

PROSE, TRIPLE, MNEMONIC = "biography", "triple", "mnemonic"
KNOWN = 0.9
FEWER, CARRIED = 0.8, 0.5
"""Thresholds of the rules: what each is, its rule says."""
_CLAIMED = "claimed by practitioners, not measured"
_WORDS = {TRIPLE: "triples", MNEMONIC: "mnemonic phrases"}


@dataclass(frozen=True)
class Seed:
    """What one seed measured.

    Attributes:
        curves: Rows of the table "curves".
        carried: Rows of the table "carried".
    """

    curves: pd.DataFrame
    carried: pd.DataFrame

    def until(self, form: str, column: str) -> float | None:
        """Exposures or tokens until 90% are known in the form itself; infinite if never, None if not run."""
        own = self.curves[(self.curves["form"] == form) & (self.curves["asked_in"] == form)]
        return first_at(own.sort_values("step"), column) if len(own) else None

    def known(self, form: str, asked_in: str = PROSE) -> float | None:
        """Accuracy at the end of people met in the form alone, of all attributes."""
        at = self.carried
        own = at[
            (at["form"] == form) & (at["people"] == "in the form") & (at["asked_in"] == asked_in)
            & (at["attribute"] == "all")
        ]  # fmt: skip
        return float(own["accuracy"].iloc[0]) if len(own) else None


def first_at(rows: pd.DataFrame, column: str) -> float:
    """Where accuracy first reaches nine in ten, on a line between two checkpoints; infinite if never."""
    at, known = rows[column].astype(float).tolist(), rows["accuracy"].astype(float).tolist()
    for i, value in enumerate(known):
        if value >= KNOWN:
            if i == 0:
                return at[0]
            share = (KNOWN - known[i - 1]) / (value - known[i - 1])
            return at[i - 1] + share * (at[i] - at[i - 1])
    return inf


def seeds_of(tables: Tables) -> list[Seed]:
    """What each seed measured."""
    curves, carried = tables["curves"], tables["carried"]
    return [
        Seed(curves[curves["seed"] == seed], carried[carried["seed"] == seed])
        for seed in sorted({*curves["seed"], *carried["seed"]})
    ]


def _sooner(seed: Seed, share: float, form: str, column: str) -> bool | None:
    own, prose = seed.until(form, column), seed.until(PROSE, column)
    if own is None or prose is None or not (isfinite(own) or isfinite(prose)):
        return None
    return own <= share * prose


def _times_prose(seed: Seed, form: str, column: str) -> float | None:
    """Exposures or tokens as a multiple of those in prose; None where either is never enough."""
    own, prose = seed.until(form, column), seed.until(PROSE, column)
    if own is None or prose is None or not (isfinite(own) and isfinite(prose)):
        return None
    return own / prose if prose else None


def _carries(seed: Seed, share: float, form: str) -> bool | None:
    own, prose = seed.known(form), seed.known(PROSE)
    return None if own is None or prose is None else own >= share * prose


def _carried(seed: Seed, form: str) -> float | None:
    own, prose = seed.known(form), seed.known(PROSE)
    return own / prose if own is not None and prose else None


def _said_until(form: str, column: str) -> Callable[[Sequence[Seed]], str]:
    def words(seeds: Sequence[Seed]) -> str:
        parts = []
        for what in (form, PROSE):
            found = [n for seed in seeds if (n := seed.until(what, column)) is not None]
            reached = [n for n in found if isfinite(n)]
            parts.append(
                f"{what}: {spread(reached, ',.0f')}, in {len(reached)} of {len(found)} seeds"
            )
        return f"{column} a person until nine facts in ten are known: {'; '.join(parts)}"

    return words


def _said_carried(form: str) -> Callable[[Sequence[Seed]], str]:
    def words(seeds: Sequence[Seed]) -> str:
        def of(what: str, asked_in: str) -> str:
            values = [seed.known(what, asked_in) for seed in seeds]
            return spread([value for value in values if value is not None])

        return (
            f"at the end, of people met as {_WORDS[form]} alone: accuracy {of(form, form)} in these, "
            f"{of(form, PROSE)} in prose; of the same people met in prose {of(PROSE, PROSE)} in prose"
        )

    return words


def _fewer(form: str, column: str, what: str) -> Statement[Seed]:
    return Statement(
        f"Facts told as {_WORDS[form]} need fewer {what} than in prose",
        _CLAIMED,
        Rule.each(
            f"{column.capitalize()} a person until {KNOWN:.0%} of the facts are known in the form they are "
            "told in, between two checkpoints on a line, are at most {share:g} times those of prose, known "
            "in wordings never seen with the person. Seeds in which neither is reached cannot tell.",
            partial(_sooner, form=form, column=column),
            share=FEWER,
        ),
        _said_until(form, column),
        each_seed(
            f"{column} until {KNOWN:.0%} are known, as a multiple of those in prose",
            partial(_times_prose, form=form, column=column),
            FEWER,
            least=0,
        ),
    )


def _in_prose(form: str) -> Statement[Seed]:
    return Statement(
        f"What was told as {_WORDS[form]} alone is known in prose",
        _CLAIMED,
        Rule.each(
            "At the end, people met in the form alone are known in prose, in wordings of evaluation, to at "
            "least {share:g} times as much as the same half of the people is in the run in which it is met "
            "in prose.",
            partial(_carries, form=form),
            share=CARRIED,
        ),
        _said_carried(form),
        each_seed(
            f"accuracy in prose of people met as {_WORDS[form]} alone, as a multiple of that of the same "
            "people met in prose",
            partial(_carried, form=form),
            CARRIED,
            least=0,
        ),
    )


STATEMENTS: tuple[Statement[Seed], ...] = (
    _fewer(TRIPLE, "exposures", "exposures"),
    _fewer(MNEMONIC, "exposures", "exposures"),
    _fewer(TRIPLE, "tokens", "tokens"),
    _fewer(MNEMONIC, "tokens", "tokens"),
    _in_prose(TRIPLE),
    _in_prose(MNEMONIC),
)


def held_against(tables: Tables) -> list[Claim]:
    """All claims, held against the study's tables."""
    seeds = seeds_of(tables)
    return [statement.against(seeds) for statement in STATEMENTS]
