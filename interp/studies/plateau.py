"""Plateau and population.

How does the plateau grow with the number of individuals? (Paper, section 3, Fig. 2.)

Command: interp batch plateau --out artifacts/studies --workers 2
Duration: 15 runs of up to 6,000 steps, DUR

The paper finds 0.43 · N^0.81 for N from 4k to 256k. Here a run ends once it has left the plateau,
and the learning rate is constant, so that how long a run was meant to be does not matter.

The paper calls it the plateau's *length* and prints neither where it begins nor where it ends. Taken
at its word, a length is counted from the end of the statistics phase (`plateau_length`). The step at
which the plateau ends (`plateau_end`) counts the statistics phase too. At the paper's sizes that may
make little difference; at ours it makes a large one. So both are held against the paper, apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import ClassVar

import pandas as pd
import plotly.graph_objects as go
from pydantic import Field, field_validator

from interp.config import Config
from interp.errors import ConfigError, InterpError
from interp.phases import (
    DELTA,
    DELTAS,
    PAPER_COEFFICIENT,
    PAPER_EXPONENT,
    PowerLawFit,
    fit_power_law,
)
from interp.plots import scaling as scaling_figure
from interp.run import Run
from interp.studies.rules import Claim, Verdict
from interp.studies.study import Planned, Study, StudySettings, Tables, each_once

SIZES = (256, 512, 1024, 2048, 4096)
"""Numbers of individuals that fit a CPU."""
N_STEPS = 6000
"""Where a run that does not leave its plateau gives up."""
STOP_BELOW = 0.7
"""The share of the baseline below which a run ends: the plateau is over, for every δ below 0.3."""
WIDEST = 0.4
"""A confidence interval of the exponent that is wider than this says too little to agree with."""
POWER_LAW, NO_POWER_LAW = 0.98, 0.95
"""R² above which points lie on a power law, and below which they do not; the paper's is 0.998."""

_STEPS = ["statistics_end", "plateau_end", "plateau_length"]


class PlateauSettings(StudySettings):
    """Settings of the study."""

    sizes: tuple[int, ...] = SIZES
    """Numbers of individuals, at least three."""
    n_steps: int = Field(default=N_STEPS, ge=1)
    """The last step of a run that does not leave its plateau before."""

    varies: ClassVar[frozenset[str]] = frozenset({"population.n_individuals"})

    @field_validator("sizes")
    @classmethod
    def _enough_sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if len(each_once("sizes", sizes)) < 3:
            raise ConfigError(
                f"sizes={list(sizes)}: a power law needs at least 3 different sizes; add some."
            )
        return sizes

    def cell(self, seed: int, n_individuals: int) -> Config:
        """The settings of one run."""
        return self.config(
            seed,
            **{
                "population.n_individuals": n_individuals,
                "population.n_held_out": 0,
                "optimizer.schedule": "constant",
                "training.n_steps": self.n_steps,
                "training.stop_below": STOP_BELOW,
                "training.early_checkpoints": (0,),
                "training.checkpoint_every": 500,
                "evaluation.every": 10,
                "evaluation.n_individuals": 128,
            },
        )


def runs(settings: PlateauSettings) -> list[Planned]:
    """The runs that the settings ask for."""
    return [
        Planned(settings.cell(seed, size)) for size in settings.sizes for seed in settings.seeds
    ]


def tables(settings: PlateauSettings, runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """The phases of every run, and the power laws: `runs` (of `plateau_table`), `fits`.

    Args:
        settings: Those that the runs were planned with.
        runs: The finished ones, in any order.
    """
    table = plateau_table(
        sorted(runs, key=lambda run: (run.config.population.n_individuals, run.config.seed))
    )
    return {"runs": table, "fits": plateau_fits(table).round(5)}


def plateau_table(runs: Sequence[Run], deltas: Sequence[float] = DELTAS) -> pd.DataFrame:
    """The phases of every run for every δ that it can tell about: it may have stopped early.

    Returns:
        Columns `n_individuals`, `seed`, `delta`, `statistics_end`, `plateau_end`,
        `plateau_length` (steps; NA where not reached).
    """
    rows = []
    for run in runs:
        for delta in deltas:
            if 1 - delta <= (run.config.training.stop_below or 0):
                continue
            phases = run.phases_at(delta)
            rows.append(
                {
                    "n_individuals": run.config.population.n_individuals,
                    "seed": run.config.seed,
                    "delta": delta,
                    "statistics_end": phases.statistics_end,
                    "plateau_end": phases.plateau_end,
                    "plateau_length": phases.plateau_length,
                }
            )
    columns = ["n_individuals", "seed", "delta", *_STEPS]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(_STEPS, "Int64"))


def plateau_fits(table: pd.DataFrame) -> pd.DataFrame:
    """A power law of N for every δ, of the plateau's end and of its length.

    Returns:
        Columns `delta`, `measure` (`plateau_end` or `plateau_length`), and those of `PowerLawFit`.
    """
    rows = []
    for delta, group in table.groupby("delta"):
        for measure in ("plateau_end", "plateau_length"):
            reached = group[group[measure].notna() & (group[measure] > 0)]
            if reached["n_individuals"].nunique() < 3:
                continue
            fit = fit_power_law(reached["n_individuals"].tolist(), reached[measure].tolist())
            rows.append({"delta": delta, "measure": measure, **asdict(fit)})
    columns = ["delta", "measure", *(field.name for field in fields(PowerLawFit))]
    return pd.DataFrame(rows, columns=columns)


def fit_of(table: pd.DataFrame, measure: str = "plateau_end", delta: float = DELTA) -> PowerLawFit:
    """The power law of one measure, `plateau_end` or `plateau_length`, at one δ.

    Raises:
        InterpError: fewer than three sizes have left the plateau.
    """
    chosen = table[(table["delta"] == delta) & (table[measure] > 0).fillna(value=False)]
    return fit_power_law(chosen["n_individuals"].tolist(), chosen[measure].tolist())


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The plateau's length and end against N; without a line where there are fewer than three sizes."""
    table = _at_delta(tables)
    drawn = {}
    for anchor, measure in (("plateau-length", "plateau_length"), ("plateau-end", "plateau_end")):
        if (table[measure] > 0).any():
            drawn[anchor] = scaling_figure(table, _fit(table, measure), measure)
    return drawn


def claims(tables: Tables) -> list[Claim]:
    """The paper's power law, held against the plateau's length and against its end."""
    table = _at_delta(tables)
    paper = f"{PAPER_COEFFICIENT} · N^{PAPER_EXPONENT}, R² 0.998, for N = 4,000 to 256,000, 5 seeds (Fig. 2)"
    complete = (
        "Cannot tell: fewer than three sizes, a run that has not left its plateau or whose plateau "
        "is too short to be measured (the longest or shortest would be missing)"
    )
    exponent_rule = (
        f"Agree: the 95% interval of the exponent contains {PAPER_EXPONENT} and is at most {WIDEST} "
        f"wide, and R² is above {POWER_LAW}: points on a bend have no exponent. "
        f"Disagree: it does not contain it. {complete}, a wider interval that contains it, or a smaller R²."
    )
    length, end = (_usable_fit(table, measure) for measure in ("plateau_length", "plateau_end"))
    return [
        Claim(
            claim=f"The plateau's length grows with the number of individuals as N^{PAPER_EXPONENT}",
            paper=paper,
            measured=_measured(tables, table, "plateau_length", "end of the statistics phase"),
            verdict=_near_the_paper(length),
            rule="Length is counted from the end of the statistics phase, which is what the word says; "
            f"the paper prints no definition. {exponent_rule}",
        ),
        Claim(
            claim=f"The step at which the plateau ends grows as N^{PAPER_EXPONENT}",
            paper=f"{paper}, if its length counts from the start of training",
            measured=_measured(tables, table, "plateau_end", "start of training"),
            verdict=_near_the_paper(end),
            rule=f"The other reading of the same law. {exponent_rule}",
        ),
        Claim(
            claim="The plateau's length is a power law of the number of individuals",
            paper=paper,
            measured=_straightness(table),
            verdict=_straight(length),
            rule=f"Agree: R² of the line through log length and log N, a point a run, above {POWER_LAW}. "
            f"Disagree: below {NO_POWER_LAW}. {complete}, or an R² in between.",
        ),
    ]


def _near_the_paper(fit: PowerLawFit | None) -> Verdict:
    if fit is None:
        return "cannot tell"
    if not fit.low <= PAPER_EXPONENT <= fit.high:
        return "disagree"
    straight = fit.r_squared > POWER_LAW  # else the exponent is only the mean of a bend
    return "agree" if straight and fit.high - fit.low <= WIDEST else "cannot tell"


def _straight(fit: PowerLawFit | None) -> Verdict:
    if fit is None or NO_POWER_LAW <= fit.r_squared <= POWER_LAW:
        return "cannot tell"
    return "agree" if fit.r_squared > POWER_LAW else "disagree"


def _at_delta(tables: Tables) -> pd.DataFrame:
    """The rows of the default δ, steps as whole numbers (in a CSV file they may have become floats)."""
    empty = pd.DataFrame(columns=["n_individuals", "seed", "delta", *_STEPS])
    table = tables.get("runs", empty)
    return table[table["delta"] == DELTA].astype(dict.fromkeys(_STEPS, "Int64"))


def _fit(table: pd.DataFrame, measure: str) -> PowerLawFit | None:
    try:
        return fit_of(table, measure)
    except InterpError:  # too few sizes have left the plateau
        return None


def _usable_fit(table: pd.DataFrame, measure: str) -> PowerLawFit | None:
    """The power law, unless the longest or the shortest plateaus are missing from it."""
    known = (table[measure] > 0).fillna(value=False)
    return _fit(table, measure) if known.all() else None


def _measured(tables: Tables, table: pd.DataFrame, measure: str, since: str) -> str:
    fit = _fit(table, measure)
    if fit is None:
        return "fewer than three sizes have left their plateau"
    means = table.groupby("n_individuals")[measure].mean().dropna()
    low, high = means.index[0], means.index[-1]
    fits = tables["fits"]
    of_delta = fits[(fits["measure"] == measure) & (fits["delta"] != DELTA)]["exponent"]
    return (
        f"{fit.coefficient:.3g} · N^{fit.exponent:.2f} (95% interval {fit.low:.2f} to {fit.high:.2f}; "
        f"{of_delta.min():.2f} to {of_delta.max():.2f} for other δ), in steps from the {since}: "
        f"{means[low]:,.0f} at N = {low:,}, {means[high]:,.0f} at N = {high:,}, means of "
        f"{table['seed'].nunique()} seeds{_not_reached(table)}"
    )


def _straightness(table: pd.DataFrame) -> str:
    length, end = (_fit(table, measure) for measure in ("plateau_length", "plateau_end"))
    if length is None or end is None:
        return "fewer than three sizes have left their plateau"
    sizes = sorted(table["n_individuals"].unique())
    return (
        f"R² {length.r_squared:.3f} for the length, {end.r_squared:.3f} for the end ({length.n_points} and "
        f"{end.n_points} runs, N = {sizes[0]:,} to {sizes[-1]:,}){_not_reached(table)}"
    )


def _not_reached(table: pd.DataFrame) -> str:
    missing = int(table["plateau_end"].isna().sum())
    return f"; {missing} of {len(table)} runs did not leave their plateau" if missing else ""


STUDY = Study(
    name="plateau",
    doc=__doc__,
    settings=PlateauSettings,
    runs=runs,
    tables=tables,
    figures=figures,
    claims=claims,
)
