"""Plateau and population.

How does the plateau grow with the number of individuals? (Paper, section 3, Fig. 2.)

Command: interp batch plateau --out artifacts/studies --workers 2
Duration: 18 runs of up to 6,000 steps (about 80 seconds for each 1,500 on one core), or to the plateau's end

The paper finds 0.43 · N^0.81 for N from 4k to 256k. Here a run ends once it has left the plateau,
and the learning rate is constant, so that how long a run was meant to be does not matter.

The paper calls it the plateau's *length* and prints neither where it begins nor where it ends. Taken
at its word, a length is counted from the end of the statistics phase (`plateau_length`). The step at
which the plateau ends (`plateau_end`) counts the statistics phase too. At the paper's sizes that may
make little difference; at ours it makes a large one. So both are held against the paper, apart.
"""

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from interp.errors import InterpError
from interp.phases import DELTA, PAPER_COEFFICIENT, PAPER_EXPONENT, PowerLawFit
from interp.plateau import fit_of
from interp.plots import scaling as scaling_figure
from interp.studies.plateau_laws import BEND, LAW_COLUMNS, OFFSET, STRAIGHT
from interp.studies.rules import Claim, Rule, Statement, Verdict
from interp.studies.sizes import COLUMNS, STEPS, PlateauSettings, runs, tables
from interp.studies.study import Study, Tables


@dataclass(frozen=True)
class _Measured:
    """What the claims are held against: the runs at the default δ, and the power laws of all δ."""

    runs: pd.DataFrame
    fits: pd.DataFrame
    laws: pd.DataFrame

    def fit(self, measure: str) -> PowerLawFit | None:
        """The power law; None where too few sizes have left the plateau."""
        try:
            return fit_of(self.runs, measure)
        except InterpError:
            return None

    def whole_fit(self, measure: str) -> PowerLawFit | None:
        """The power law, unless the longest or the shortest plateaus are missing from it."""
        known = (self.runs[measure] > 0).fillna(value=False)
        return self.fit(measure) if known.all() else None

    @property
    def not_reached(self) -> str:
        missing = int(self.runs["plateau_end"].isna().sum())
        return (
            f"; {missing} of {len(self.runs)} runs did not leave their plateau" if missing else ""
        )


def _measured(tables: Tables) -> _Measured:
    table = tables.get("runs", pd.DataFrame(columns=COLUMNS))
    # In a CSV file steps may have become floats.
    at_delta = table[table["delta"] == DELTA].astype(dict.fromkeys(STEPS, "Int64"))
    laws = tables.get("laws", pd.DataFrame(columns=list(LAW_COLUMNS)))
    return _Measured(at_delta, tables.get("fits", pd.DataFrame()), laws)


def figures(tables: Tables) -> dict[str, go.Figure]:
    """The plateau's length and end against N; without a line where there are fewer than three sizes."""
    of = _measured(tables)
    return {
        measure.replace("_", "-"): scaling_figure(of.runs, of.fit(measure), measure)
        for measure in ("plateau_length", "plateau_end")
        if (of.runs[measure] > 0).any()
    }


_TOO_FEW = "fewer than three sizes have left their plateau"


def _law(of: _Measured, measure: str, since: str) -> str:
    fit = of.fit(measure)
    if fit is None:
        return _TOO_FEW
    means = of.runs.groupby("n_individuals")[measure].mean().dropna()
    low, high = means.index[0], means.index[-1]
    others = of.fits[(of.fits["measure"] == measure) & (of.fits["delta"] != DELTA)]["exponent"]
    return (
        f"{fit.coefficient:.3g} · N^{fit.exponent:.2f} (95% interval {fit.low:.2f} to {fit.high:.2f}; "
        f"{others.min():.2f} to {others.max():.2f} for other δ), in steps from the {since}: "
        f"{means[low]:,.0f} at N = {low:,}, {means[high]:,.0f} at N = {high:,}, "
        f"{_means(of.runs['seed'].nunique())}{of.not_reached}"
    )


def _means(n_seeds: int) -> str:
    return f"means of {n_seeds} seeds" if n_seeds > 1 else "1 seed"


def _straightness(of: _Measured) -> str:
    length, end = of.fit("plateau_length"), of.fit("plateau_end")
    if length is None or end is None:
        return _TOO_FEW
    sizes = of.runs["n_individuals"]
    return (
        f"R² {length.r_squared:.3f} for the length, {end.r_squared:.3f} for the end ({length.n_points} and "
        f"{end.n_points} runs, N = {sizes.min():,} to {sizes.max():,}){of.not_reached}"
    )


def _near(fit: PowerLawFit | None, exponent: float, widest: float, straight: float) -> Verdict:
    if fit is None:
        return "cannot tell"
    if not fit.low <= exponent <= fit.high:
        return "disagree"
    narrow = fit.high - fit.low <= widest
    return "agree" if narrow and fit.r_squared > straight else "cannot tell"


def _straight(fit: PowerLawFit | None, straight: float, bent: float) -> Verdict:
    if fit is None or bent <= fit.r_squared <= straight:
        return "cannot tell"
    return "agree" if fit.r_squared > straight else "disagree"


def _predicts(of: _Measured, within: float | int, times: float | int) -> Verdict:
    off = of.laws.set_index("law")["off"].astype(float)
    if off.empty:
        return "cannot tell"
    if off[OFFSET] >= off[STRAIGHT]:
        return "disagree"
    good = off[OFFSET] <= within and times * off[OFFSET] <= off[STRAIGHT]
    return "agree" if good and off[OFFSET] <= off[BEND] else "cannot tell"


def _predictions(of: _Measured) -> str:
    if of.laws.empty:
        return f"no law was fitted{of.not_reached or ': that takes five numbers of people'}"
    laws = of.laws.set_index("law")
    first, offset = laws.iloc[0], laws.loc[OFFSET]
    said = ", ".join(f"{name} {row['predicted']:,.0f}" for name, row in laws.iterrows())
    return (
        f"fitted to fewer people, for N = {int(first['n_individuals']):,}: {said}; measured "
        f"{first['measured']:,.0f}. Fitted to all: {offset['constant']:,.0f} steps and a power law of "
        f"exponent {offset['exponent']:.2f} (95% of resamples {offset['exponent_low']:.2f} to "
        f"{offset['exponent_high']:.2f})"
    )


_PAPER = f"{PAPER_COEFFICIENT} · N^{PAPER_EXPONENT}, R² 0.998, for N = 4,000 to 256,000, 5 seeds (Fig. 2)"
_INCOMPLETE = (
    "Cannot tell: fewer than three sizes, a run that has not left its plateau or whose plateau "
    "is too short to be measured (the longest or shortest would be missing)"
)
_STRAIGHT = 0.98  # of R²; the paper's is 0.998


def _exponent(words: str, measure: str) -> Rule[_Measured]:
    return Rule(
        f"{words} Agree: the 95% interval of the exponent contains {{exponent}} and is at most {{widest}} "
        "wide, and R² is above {straight}: points on a bend have no exponent. Disagree: it does not "
        f"contain it. {_INCOMPLETE}, a wider interval that contains it, or a smaller R².",
        lambda of, **numbers: _near(of.whole_fit(measure), **numbers),
        {"exponent": PAPER_EXPONENT, "widest": 0.4, "straight": _STRAIGHT},
    )


STATEMENTS = (
    Statement[_Measured](
        f"The plateau's length grows with the number of individuals as N^{PAPER_EXPONENT}",
        _PAPER,
        _exponent(
            "Length is counted from the end of the statistics phase, which is what the word says; the "
            "paper prints no definition.",
            "plateau_length",
        ),
        lambda of: _law(of, "plateau_length", "end of the statistics phase"),
    ),
    Statement[_Measured](
        f"The step at which the plateau ends grows as N^{PAPER_EXPONENT}",
        f"{_PAPER}, if its length counts from the start of training",
        _exponent("The other reading of the same law.", "plateau_end"),
        lambda of: _law(of, "plateau_end", "start of training"),
    ),
    Statement[_Measured](
        "The plateau's length is a power law of the number of individuals",
        _PAPER,
        Rule(
            "Agree: R² of the line through log length and log N, a point a run, above {straight}. "
            f"Disagree: below {{bent}}. {_INCOMPLETE}, or an R² in between.",
            lambda of, **numbers: _straight(of.whole_fit("plateau_length"), **numbers),
            {"straight": _STRAIGHT, "bent": 0.95},
        ),
        _straightness,
    ),
    Statement[_Measured](
        "The plateau ends after a constant number of steps and a power law of the number of individuals",
        "a question of this project: why ends lie on a bend, as was known up to 4,096 people",
        Rule(
            "Laws are fitted to all numbers of people but the largest, and asked for that. Agree: a "
            "constant and a power law are at most {within} off (in logarithms), at least {times:g} times "
            "nearer than a power law, and no further off than a parabola. Disagree: no nearer than a power "
            "law. Cannot tell: else, or with fewer than five numbers of people, or if a plateau did not end.",
            _predicts,
            {"within": 0.1, "times": 2},
        ),
        _predictions,
    ),
)


def claims(tables: Tables) -> list[Claim]:
    """The paper's power law, held against the plateau's length and against its end."""
    of = _measured(tables)
    return [statement.against(of) for statement in STATEMENTS]


STUDY = Study("plateau", __doc__, PlateauSettings, runs, tables, figures, claims)
