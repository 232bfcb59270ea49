"""Robustness of the three phases.

Are there three phases whatever the learning rate, weight decay, batch size and model size, and without
attention? (Paper, section 3.)

Command: interp batch robustness --out artifacts/studies --workers 2
Duration: 43 runs of up to 1,500 steps (about 80 seconds on one core at the default size; recurrent 4 minutes)

One setting is changed at a time: learning rate, weight decay, batch size, the model's size, and
recurrence in the place of attention. The learning rate is constant, so that how long a run was meant
to be does not matter, and a run ends once it has left its plateau well behind. Only the recurrent run
goes on to the last step with all checkpoints, since it is to be looked at whole.

A loss that falls from above the baseline to below it always takes some steps from (1 + δ) to (1 - δ)
times the baseline, plateau or not. So a run counts as showing the three phases only if its loss falls
more slowly in between than right before and right after (see `shows_phases`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.phases import DELTA
from interp.plateau import FACTS
from interp.plots.robustness import family_curves, plateau_ends, recurrent_phases
from interp.studies.power import Number
from interp.studies.rules import Claim, Rule, Statement, Verdict
from interp.studies.study import Study, Tables
from interp.studies.variants import DEFAULT, FAMILIES, RECURRENT, RobustnessSettings, runs, tables

PHASES = {"above": 1 + DELTA, "below": 1 - DELTA, "delta": DELTA} | {
    "measurements": 3, "within": 0.9, "hardly_any": 0.1, "slower": 1.5,
}  # fmt: skip
"""The numbers of the rule of one run."""


def shows_phases(row: Mapping[Any, Any], **numbers: float | int) -> bool | None:
    """Whether a run shows the three phases, as the rule says; None where it cannot tell.

    It cannot if it is missing, or ended before the statistics phase or the plateau did, or as soon as
    the plateau did.

    Args:
        row: A row of `runs`.
        numbers: Those of the rule, `PHASES`.
    """
    if any(pd.isna(row[name]) for name in ("statistics_end", "plateau_end", "last_step")):
        return None
    if row["plateau_end"] >= row["last_step"]:
        return None
    if not _has_plateau(row, numbers["measurements"]):
        return False
    slow = numbers["slower"] * max(row["speed_on_plateau"], 0)
    return bool(
        row["within"] >= numbers["within"]
        and row["accuracy"] < numbers["hardly_any"]
        and min(row["speed_before"], row["speed_after"]) > 0
        and min(row["speed_before"], row["speed_after"]) >= slow
    )


def _has_plateau(row: Mapping[Any, Any], measurements: float | int) -> bool:
    """Whether there are enough measurements to look at what lies between the ends of the phases."""
    return bool(row["measured"] >= measurements and not pd.isna(row["speed_before"]))


def _times_as_fast(row: Mapping[Any, Any]) -> float:
    """The lower speed of before and after, in times that on the plateau; NaN if there is no fall there."""
    slow = row["speed_on_plateau"]
    return min(row["speed_before"], row["speed_after"]) / slow if slow > 0 else nan


def figures(tables: Tables) -> dict[str, go.Figure]:
    """Curves for each family, the recurrent run with its phases, and the plateau's ends."""
    empty = pd.DataFrame()
    table, curves = tables.get("runs", empty), tables.get("curves", empty)
    if table.empty or curves.empty:
        return {}
    table = table[table["last_step"].notna()]
    drawn = {}
    ends = table[table["variant"] != RECURRENT]
    if len(ends):
        drawn["robustness-ends"] = plateau_ends(ends)
    batches = table[table["family"].isin([DEFAULT, "batch size"])]
    if "batch size" in set(batches["family"]):
        drawn["robustness-biographies"] = plateau_ends(batches, "biographies")
    for family in FAMILIES[:-1]:
        names = table[table["family"] == family]["variant"].unique()
        if len(names):
            shown = curves[curves["variant"].isin([DEFAULT, *names])]
            drawn[f"robustness-{family.replace(' ', '-')}"] = family_curves(family, shown)
    recurrent = table[table["variant"] == RECURRENT]
    if len(recurrent):
        shown = curves[curves["variant"].isin([DEFAULT, RECURRENT])]
        drawn["robustness-recurrence"] = recurrent_phases(recurrent, shown)
    return drawn


@dataclass(frozen=True)
class _Family:
    """What a claim is held against: all runs, of which those of a family count."""

    name: str
    table: pd.DataFrame

    @property
    def variants(self) -> dict[str, list[dict[Any, Any]]]:
        """The runs of each variant."""
        own = self.table[self.table["family"] == self.name].groupby("variant", sort=False)
        return {str(variant): rows.to_dict("records") for variant, rows in own}

    def shown(self, numbers: Mapping[str, float | int]) -> dict[str, list[bool | None]]:
        """Of each variant, which of its runs show the phases."""
        return {
            variant: [shows_phases(row, **numbers) for row in rows]
            for variant, rows in self.variants.items()
        }

    def values(self, read: Callable[[Mapping[Any, Any]], float]) -> dict[str, list[float]]:
        """Of each variant, a number of each of its runs that can tell."""
        return {
            variant: [float(read(row)) for row in rows if shows_phases(row, **PHASES) is not None]
            for variant, rows in self.variants.items()
        }


def _decide(of: _Family, enough: int = 1, **numbers: float | int) -> Verdict:
    shown = list(of.shown(numbers).values())
    whole = [of_variant for of_variant in shown if len(of_variant) >= enough]
    if any(all(one is False for one in of_variant) for of_variant in whole):
        return "disagree"
    complete = bool(shown) and len(whole) == len(shown) and all(map(all, whole))
    return "agree" if complete else "cannot tell"


def _measured(of: _Family) -> str:
    def place(variant: str) -> str:
        return _plateau(of.table[of.table["variant"] == variant], of.name)

    parts = [
        f"{variant}: {place(variant)}, shown by {shown.count(True)} of {len(shown)}"
        for variant, shown in of.shown(PHASES).items()
    ]
    if not parts:
        return "not measured"
    if (of.table["variant"] == DEFAULT).any():
        parts.append(f"for comparison, the default: {place(DEFAULT)}")
    people = int(of.table["n_individuals"].iloc[0])
    return f"{'; '.join(parts)} (means of seeds, N = {people:,})"


def _plateau(rows: pd.DataFrame, family: str) -> str:
    """Where the plateau lies, as a mean of seeds."""
    done = rows[rows["last_step"].notna()]
    reached = done[done["plateau_end"].notna() & done["statistics_end"].notna()]
    if done.empty:
        return "not trained"
    if reached.empty:
        return f"plateau's end not reached by step {int(done['last_step'].max()):,}"
    start, end = reached["statistics_end"].mean(), reached["plateau_end"].mean()
    words = f"plateau from step {start:,.0f} to {end:,.0f}"
    if family == "batch size":
        words += f" ({reached['biographies'].mean():,.0f} biographies)"
    return words + (f" in {len(reached)} of {len(rows)} runs" if len(reached) < len(rows) else "")


def _read(
    what: str, threshold: str, read: Callable[[Mapping[Any, Any]], float], **shown: Any
) -> Number[_Family]:
    """A number of runs with enough measurements on their plateau, against one of the rule's."""

    def of_run(row: Mapping[Any, Any]) -> float:
        return read(row) if _has_plateau(row, PHASES["measurements"]) else nan

    return Number(what, lambda of: of.values(of_run), (PHASES[threshold],), **shown)


_NUMBERS = (
    Number[_Family](
        "measurements between the statistics phase and the plateau's end",
        lambda of: of.values(lambda row: row["measured"]),
        (PHASES["measurements"],),
        ".0f",
        least=0.0,
    ),
    _read(
        f"share of these within {PHASES['delta']:.0%} of the baseline",
        "within",
        lambda row: row["within"],
        form=".0%",
        least=0.0,
        most=1.0,
    ),
    _read(
        "highest accuracy up to the plateau's end",
        "hardly_any",
        lambda row: row["accuracy"],
        least=0.0,
        most=1.0,
    ),
    _read(
        "speed at which the loss falls before or after the plateau, whichever is lower, in times that on it",
        "slower",
        _times_as_fast,
    ),
)
"""What the rule of one run reads."""


def _statement(
    family: str, claim: str, paper: str, seeds: str, **enough: int
) -> Statement[_Family]:
    rule = Rule[_Family](
        "A run shows the three phases if between the first step with a loss of at most {above:g} baselines "
        "and the one from which it stays below {below:g} there are at least {measurements} measurements, "
        "{within:.0%} of them within {delta:.0%} of the baseline, with an accuracy below {hardly_any:g} up "
        "to the end, and the loss falls at least {slower:g} times as fast as there in as many steps before "
        "and after. A run that does not get that far cannot tell. "
        f"Agree: every value of the {family} shows them in {seeds}. Disagree: some value "
        "shows them in none of as many. Cannot tell: anything else, such as a run that is missing.",
        _decide,
        PHASES | enough,
    )
    claim = f"The three phases are there {claim}"
    return Statement(claim, f"robust, {paper} (section 3)", rule, _measured, _NUMBERS)


_VALUES = {
    "learning rate": "for learning rates of 1e-4 to 1.6e-3",
    "weight decay": "for weight decays of 0.01 to 1",
    "batch size": "for batches of 32 to 512 sequences",
    "model size": "for models of 44M, 163M and 400M parameters",
}
STATEMENTS = {
    family: _statement(
        family, f"whatever the {family}", paper, "all seeds, {enough} at least", enough=2
    )
    for family, paper in _VALUES.items()
}
STATEMENTS["recurrence"] = _statement(
    "recurrence",
    "with a recurrence in place of attention, too",
    "also in a model with a gated linear recurrence in place of attention",
    "its runs (one is enough: it is costly)",
)


def claims(tables: Tables) -> list[Claim]:
    """One for each family: the three phases are there at all its values."""
    table = tables.get("runs", pd.DataFrame(columns=["family", "variant", "seed", *FACTS]))
    return [statement.against(_Family(name, table)) for name, statement in STATEMENTS.items()]


STUDY = Study("robustness", __doc__, RobustnessSettings, runs, tables, figures, claims)
