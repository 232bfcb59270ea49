"""The data distribution: plateau, final loss and final accuracy against how unevenly people are shown.

Tables of runs have a row a run: `seed`, `n_individuals`, `distribution` (a name), `plateau_end` (steps),
`ended` (whether the plateau did end; if not, its end is where it counts as ending), `attribute_loss`
(nats) and `attribute_accuracy` (a share) at the last step; those of a power law have `exponent` too.
Tables of curves have `seed`, `n_individuals`, `distribution`, `step`, `metric`, `value`. Distributions
are drawn in the order in which they come; the first is the uniform one.
Source: paper, Fig. 4, G and H.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.style import DASHES, INK, PALETTE, describe, plain, ramp
from interp.errors import InterpError
from interp.plots.panels import SYMBOLS, Line, Panel, chosen, over_steps, rows, whole_numbers

_RUNS = ("seed", "n_individuals", "plateau_end", "ended", "attribute_loss", "attribute_accuracy")
_CURVES = ("seed", "n_individuals", "distribution", "step", "metric", "value")
_PAPER = "The paper trains for 16,000 steps of 128 biographies (Fig. 4, G, H)."


@dataclass(frozen=True)
class _Measure:
    """What an axis shows.

    Attributes:
        column: Of the table of runs.
        axis: Title, with the unit.
        form: How numbers are written under the pointer.
        best: The method of pandas that finds the best mean: "min" or "max".
    """

    column: str
    axis: str
    form: str
    best: str


_PLATEAU = _Measure("plateau_end", "end of the plateau (steps)", ",.0f", "min")
_LOSS = _Measure("attribute_loss", "final attribute loss (nats)", ".3f", "min")
_ACCURACY = _Measure("attribute_accuracy", "final accuracy (share)", ".3f", "max")


def plateau_against_exponent(table: pd.DataFrame) -> go.Figure:
    """The end of the plateau (steps) against the exponent α of the power law, a line for each N.

    What to look for: whether lines fall from α = 0 and rise again, and where they are lowest.

    Args:
        table: Runs; see the module.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    figure = _against_exponent(table, [_PLATEAU])
    return describe(
        figure,
        "Power law: end of the plateau",
        f"""The step at which the plateau ends, against the exponent α of the power law by which people
        are shown (0: all equally often; 1: the second half as often as the first, the third a third as
        often, ...), a line for each number of people N. Points are runs ({_seeds(table)}), lines their
        means, and stars the lowest mean of a line (several where they tie). Look for lines that fall
        from α = 0 and rise again, and for where the stars are: in the paper at 0.6 to 0.8 for every N.
        The end is found on people asked about equally often. {_never(table)} {_PAPER}""",
    )


def final_against_exponent(table: pd.DataFrame) -> go.Figure:
    """Final loss (nats) and accuracy (a share) against the exponent α of the power law, for each N.

    What to look for: whether the best α, a star, moves to the right as N grows.

    Args:
        table: Runs; see the module.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    figure = _against_exponent(table, [_LOSS, _ACCURACY])
    return describe(
        figure,
        "Power law: what is known in the end",
        f"""Attribute loss (nats, above) and accuracy (a share, below) at the last step, against the
        exponent α of the power law by which people are shown, a line for each number of people N.
        Everybody is asked about equally often. Points are runs ({_seeds(table)}), lines their means, and
        stars the best mean of a line. Look for whether the stars move to the right as N grows: the more
        people for the same training, the more uneven the best distribution. {_PAPER}""",
    )


def compared_distributions(table: pd.DataFrame) -> go.Figure:
    """Plateau end, final loss and final accuracy of distributions, one below the other.

    What to look for: points on the better side of the dotted line, which is the uniform distribution.

    Args:
        table: Runs; see the module.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    found = _runs(table, "distribution")
    names = _in_order(found)
    measures = (_PLATEAU, _LOSS, _ACCURACY)
    figure = make_subplots(rows=len(measures), vertical_spacing=0.11)
    for row, measure in enumerate(measures, 1):
        at = {"row": row, "col": 1}
        means = found.groupby("distribution")[measure.column].mean()
        for name in names:
            own = found[found["distribution"] == name]
            colour = _style(names, name)["color"]
            figure.add_scatter(
                x=list(own[measure.column]), y=[plain(name)] * len(own), mode="markers",
                name=plain(name), showlegend=False, customdata=list(own["seed"].astype(int)),
                marker={"color": colour, "size": 8, "symbol": _symbols(own), "line_width": 1.5},
                hovertemplate=f"{plain(name)}, seed %{{customdata}}: %{{x:{measure.form}}}"
                "<extra></extra>", **at,
            )  # fmt: skip
            figure.add_scatter(
                x=[means[name]], y=[plain(name)], mode="markers", showlegend=False,
                name=f"{plain(name)}, mean",
                marker={"color": colour, "size": 17, "symbol": "line-ns-open", "line_width": 2.5},
                hovertemplate=f"{plain(name)}, mean: %{{x:{measure.form}}}<extra></extra>", **at,
            )  # fmt: skip
        figure.add_vline(
            x=means[names[0]], line={"color": PALETTE["grey"], "dash": "dot", "width": 1.5}, **at
        )
        figure.update_xaxes(title_text=measure.axis, nticks=6, **at)
        figure.update_yaxes(
            title_text="who is shown", categoryorder="array",
            categoryarray=[plain(name) for name in reversed(names)], tickfont_size=11, **at,
        )  # fmt: skip
    figure.update_layout(height=170 + len(measures) * (60 + 24 * len(names)), margin_l=8)
    return describe(
        figure,
        "Celebrities and power laws",
        f"""Where the plateau ends (steps, above), and attribute loss (nats) and accuracy (a share) at the
        last step, for distributions of {_people(found)} people: all equally likely, celebrities (so many
        people shown so many times as often as anybody else), and power laws. Everybody is asked about
        equally often. Circles are runs ({_seeds(found)}), upright bars their means. Look for points on
        the better side of the dotted line, the mean of the uniform distribution (left of it above and in
        the middle, right of it below), and for whether celebrities get as far from it as power laws.
        {_never(found)} {_PAPER}""",
    )


def distribution_curves(table: pd.DataFrame) -> go.Figure:
    """Attribute loss and accuracy over training at the largest N, a line for each distribution.

    What to look for: which lines leave the plateau first, and whether they are best at the end too.

    Args:
        table: Curves; see the module.

    Raises:
        InterpError: a column is missing, or there is no row.
    """
    found = rows(table, _CURVES, "learning curves", numbers=("n_individuals", "step"))
    _not_empty(found)
    found = found[found["n_individuals"] == found["n_individuals"].max()]
    names = _in_order(found)
    panels = []
    for metric in ("attribute_loss", "attribute_accuracy"):
        of_metric = chosen(found, "learning curves", metric=metric)
        lines = []
        for name in _in_order(of_metric):
            own = of_metric[of_metric["distribution"] == name]
            seeds = own.pivot_table("value", "step", "seed").dropna()
            seeds.index = seeds.index.astype(int)
            several = seeds.shape[1] > 1
            lines.append(
                Line(
                    plain(name),
                    seeds.mean(axis=1),
                    _style(names, name),
                    low=seeds.min(axis=1) if several else None,
                    high=seeds.max(axis=1) if several else None,
                )
            )
        panels.append(
            Panel("loss (nats)" if metric == "attribute_loss" else "accuracy (share)", lines)
        )
    figure = over_steps(panels, None, "all asked equally", band="range of seeds")
    figure.update_layout(height=640)
    return describe(
        figure,
        f"Learning with {_people(found)} people",
        f"""Attribute loss (nats, above) and accuracy (a share, below) over training, in steps, with
        {_people(found)} people, for each distribution. Everybody is asked about equally often, however
        often they are shown. Lines are means over {_seeds(found)}, bands reach from the lowest to the
        highest. Look at the thick dashed grey line, the uniform distribution: which lines leave the
        plateau before it, and whether they are still ahead at the end.""",
    )


def _against_exponent(table: pd.DataFrame, measures: Sequence[_Measure]) -> go.Figure:
    """Panels of a measure against α: runs as points, means as lines, best means as stars."""
    found = _runs(table, "exponent")
    sizes = whole_numbers(found["n_individuals"])
    exponents = sorted(float(exponent) for exponent in found["exponent"].unique())
    figure = make_subplots(rows=len(measures), shared_xaxes=True, vertical_spacing=0.07)
    for row, measure in enumerate(measures, 1):
        at = {"row": row, "col": 1}
        for i, (n, colour) in enumerate(zip(sizes, ramp(len(sizes)), strict=True)):
            own = found[found["n_individuals"] == n]
            means = own.groupby("exponent")[measure.column].mean()
            name = f"N = {n:,}"
            figure.add_scatter(
                x=list(means.index), y=list(means), mode="lines", name=name, legendgroup=name,
                line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 2},
                showlegend=row == 1,
                hovertemplate=f"{name}, α = %{{x}}: mean %{{y:{measure.form}}}<extra></extra>", **at,
            )  # fmt: skip
            figure.add_scatter(
                x=list(own["exponent"]), y=list(own[measure.column]), mode="markers",
                name=f"{name}, runs", legendgroup=name, showlegend=False,
                customdata=list(own["seed"].astype(int)),
                marker={"color": colour, "size": 7, "symbol": _symbols(own, i), "line_width": 1.5},
                hovertemplate=f"{name}, α = %{{x}}, seed %{{customdata}}: "
                f"%{{y:{measure.form}}}<extra></extra>", **at,
            )  # fmt: skip
            best = means[means == getattr(means, measure.best)()]
            figure.add_scatter(
                x=list(best.index), y=list(best), mode="markers", name=f"{name}, best mean",
                legendgroup=name, showlegend=False,
                marker={"color": colour, "size": 15, "symbol": "star"},
                hovertemplate=f"{name}: best mean at α = %{{x}}, %{{y:{measure.form}}}"
                "<extra></extra>", **at,
            )  # fmt: skip
        figure.update_yaxes(title_text=measure.axis, rangemode="tozero", nticks=6, **at)
    figure.update_yaxes(tickformat=",d" if _PLATEAU in measures else None)
    figure.update_xaxes(tickvals=exponents, range=[exponents[0] - 0.06, exponents[-1] + 0.06])
    figure.update_xaxes(title_text="exponent α of the power law (0: uniform)", row=len(measures))
    figure.update_layout(height=160 + 260 * len(measures))
    return figure


def _runs(table: pd.DataFrame, own: str) -> pd.DataFrame:
    """The table of runs, checked."""
    found = rows(table, (*_RUNS, own), "runs", numbers=("n_individuals", "seed"))
    _not_empty(found)
    return found


def _not_empty(table: pd.DataFrame) -> None:
    if table.empty:
        raise InterpError("No run is finished, so that there is nothing to draw.")


def _in_order(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in dict.fromkeys(table["distribution"])]


def _style(names: Sequence[str], name: str) -> dict[str, Any]:
    """Colour and dash of a distribution: the first, the uniform one, stands out."""
    place = names.index(name)
    if place == 0:
        return {"color": INK, "dash": "dash", "width": 3}
    colour = ramp(len(names) - 1)[place - 1]
    return {"color": colour, "dash": DASHES[(place - 1) % len(DASHES)], "width": 2}


def _symbols(table: pd.DataFrame, place: int = 0) -> list[str]:
    """A mark for each run; another one where the plateau did not end."""
    mark = f"{SYMBOLS[place % len(SYMBOLS)]}-open"
    return [mark if ended else "triangle-right" for ended in table["ended"]]


def _never(table: pd.DataFrame) -> str:
    """What a caption says of plateaus that did not end."""
    never = int((~table["ended"].astype(bool)).sum())
    if not never:
        return ""
    return f"""Triangles ({never} of {len(table)} runs): the plateau did not end; they stand just above
        the last step."""


def _people(table: pd.DataFrame) -> str:
    return f"{int(table['n_individuals'].max()):,}"


def _seeds(table: pd.DataFrame) -> str:
    n_seeds = table["seed"].nunique()
    return "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
