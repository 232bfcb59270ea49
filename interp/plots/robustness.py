"""The three phases under other settings of training."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.bands import shade_phases
from interp.charts.style import DASHES, PALETTE, describe, ramp, see_through
from interp.phases import DELTA, Phases

_DEFAULT = "default"


def family_curves(family: str, curves: pd.DataFrame) -> go.Figure:
    """Attribute loss over training, as a share of the baseline, a line a run.

    What to look for: every line bends at the baseline, stays close to it for a while, and falls away.

    Args:
        family: What differs, e.g. "learning rate".
        curves: Columns `variant` (one is "default"), `seed`, `step`, `loss` (a share of the
            baseline).
    """
    figure = go.Figure()
    figure.add_hrect(
        y0=1 - DELTA, y1=1 + DELTA, line_width=0, fillcolor=see_through(PALETTE["grey"], 0.25)
    )
    names = [str(name) for name in curves["variant"].unique() if name != _DEFAULT]
    # The default first: it is drawn below the others.
    looks = {_DEFAULT: {"color": PALETTE["grey"], "dash": "solid", "width": 2.4}} | {
        name: {"color": colour, "dash": DASHES[i % len(DASHES)], "width": 1.8}
        for i, (name, colour) in enumerate(zip(names, ramp(len(names)), strict=True))
    }
    for name, look in looks.items():
        _add_runs(figure, curves[curves["variant"] == name], name, look, "loss")
    figure.update_xaxes(title_text="training (steps)", rangemode="tozero", tickformat=",d")
    figure.update_yaxes(title_text="attribute loss (baselines)")
    figure.update_layout(height=460, legend_tracegroupgap=0)
    steps_differ = (
        "Steps of different batch sizes are not comparable: a step of twice the batch shows twice as "
        "many biographies."
    )
    return describe(
        figure,
        f"Three phases and the {family}",
        f"""Attribute loss on evaluation biographies against training steps, as a share of the
        no-knowledge baseline; a line for each seed. The grey band is the baseline within
        {DELTA:.0%}. Look for a bend: each line falls into the band, crosses it more slowly than it fell
        before and than it falls afterwards, and only the steps at which this happens differ. A line
        ends once the loss is below half of the baseline, or at the last step.
        {steps_differ if family == "batch size" else ""}""",
    )


_UNITS = {
    "steps": (
        "Ends of the plateau under other settings",
        "Compare the lengths of the bars; steps of different batch sizes are not comparable.",
    ),
    "biographies": (
        "Biographies until the plateau ends",
        """With the batch size, steps hold more biographies. Look for whether the bars line up: then
        the plateau takes a number of biographies and not of steps.""",
    ),
}
"""Of each unit of `plateau_ends`: title, and what to look for."""


def plateau_ends(table: pd.DataFrame, unit: str = "steps") -> go.Figure:
    """Where each variant's plateau begins and ends, a point a seed.

    What to look for: a bar in every row: there is a plateau between the two phases. How far to the
    right it lies is how long learning takes.

    Args:
        table: A run a row: `variant`, `seed`, `batch_size`, `last_step`, `statistics_end` and
            `plateau_end` (steps; NA where not reached).
        unit: "steps", or "biographies": steps times batch size.
    """
    title, look = _UNITS[unit]
    factor = table["batch_size"] if unit == "biographies" else 1
    table = table.assign(
        **{
            name: (pd.to_numeric(table[name]) * factor).astype("Float64")
            for name in ("statistics_end", "plateau_end", "last_step")
        }
    )
    names = [str(name) for name in table["variant"].unique()]
    figure = go.Figure()
    means = table.groupby("variant")[["statistics_end", "plateau_end"]].mean()
    bars = [name for name in names if means.loc[name].notna().all()]
    figure.add_bar(
        y=bars, base=[float(means["statistics_end"][name]) for name in bars],
        x=[float(means["plateau_end"][name] - means["statistics_end"][name]) for name in bars],
        orientation="h", width=0.45, name="plateau (mean)", hoverinfo="skip",
        marker={"color": see_through(PALETTE["orange"], 0.3), "line_width": 0},
    )  # fmt: skip
    for column, name, colour, symbol in (
        ("statistics_end", "statistics end", PALETTE["blue"], "square-open"),
        ("plateau_end", "plateau end", PALETTE["orange"], "circle-open"),
    ):
        _add_points(figure, table[table[column].notna()], column, name, colour, symbol, unit)
    stuck = table[table["plateau_end"].isna()]
    if len(stuck):
        _add_points(
            figure, stuck, "last_step", "not ended by the last step", PALETTE["grey"], "x", unit
        )
    figure.update_xaxes(title_text=f"training ({unit})", rangemode="tozero", tickformat=",d")
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], showgrid=False)
    figure.update_layout(height=150 + 30 * len(names), bargap=0.2)
    return describe(
        figure,
        title,
        f"""From the end of the statistics phase to the end of the plateau, in {unit}; a point for
        each seed, a bar for the mean. One setting is changed at a time; the rest is as in the default
        (top). {look}""",
    )


def recurrent_phases(row: pd.DataFrame, curves: pd.DataFrame) -> go.Figure:
    """Loss and accuracy of the recurrent variant over training, with its phases.

    What to look for: the same three phases as with attention, which is drawn beside it.

    Args:
        row: Runs of the recurrent variant: `seed`, `statistics_end`, `plateau_end` (steps or NA);
            the phases are those of the first.
        curves: Columns `variant` ("recurrent", "default"), `seed`, `step`, `loss` (a share of the
            baseline) and `accuracy` (a share).
    """
    first = row.iloc[0]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.6, 0.4]
    )
    looks = {
        "recurrent": {"color": PALETTE["blue"], "dash": "solid", "width": 2.5},
        _DEFAULT: {"color": PALETTE["grey"], "dash": "dash", "width": 1.6},
    }
    names = {"recurrent": "recurrent", _DEFAULT: "attention (default; ends early)"}
    for name, look in looks.items():
        own = curves[curves["variant"] == name]
        for place, metric in enumerate(("loss", "accuracy"), start=1):
            _add_runs(figure, own, names[name], look, metric, place)
    figure.add_hline(y=1, line={"color": PALETTE["grey"], "dash": "dot", "width": 1.5}, row=1)
    own = curves[curves["variant"] == "recurrent"]
    start, end = (
        None if pd.isna(first[name]) else int(first[name])
        for name in ("statistics_end", "plateau_end")
    )
    last = int(own["step"].max())
    shade_phases(figure, Phases(start, end, 1.0, DELTA), int(own["step"].min()), last, "y domain")
    figure.update_yaxes(title_text="attribute loss (baselines)", rangemode="tozero", row=1)
    figure.update_yaxes(title_text="accuracy (share)", range=[-0.02, 1.04], row=2)
    figure.update_xaxes(title_text="training (steps)", tickformat=",d", row=2)
    figure.update_xaxes(range=[0, last])
    figure.update_layout(height=620, margin_t=84, legend_tracegroupgap=0)
    return describe(
        figure,
        "Phases of the recurrent variant",
        f"""Above: attribute loss on evaluation biographies as a share of the no-knowledge baseline
        (dotted), with RecurrentGemma's recurrent block in place of attention. Below: the share of values
        predicted entirely right. The shading is the phases of the
        recurrent variant, seed {int(first["seed"])}, whose learning rate is constant like that of all
        runs of this study. Look for the same three phases as with attention (dashed, which ends
        once its loss is below half of the baseline), and for the steps at which they meet.""",
    )


def _add_runs(
    figure: go.Figure,
    curves: pd.DataFrame,
    name: str,
    look: dict[str, object],
    metric: str,
    row: int | None = None,
) -> None:
    """A line for each seed of a variant, with one entry in the legend."""
    for i, (seed, own) in enumerate(curves.groupby("seed")):
        figure.add_scatter(
            x=list(own["step"]), y=list(own[metric]), mode="lines", line=look, name=name,
            legendgroup=name, showlegend=i == 0 and row in (None, 1),
            hovertemplate=f"{name}, seed {seed}<br>step %{{x:,d}}: %{{y:.3f}}<extra></extra>",
            row=row, col=None if row is None else 1,
        )  # fmt: skip


def _add_points(
    figure: go.Figure,
    table: pd.DataFrame,
    column: str,
    name: str,
    colour: str,
    symbol: str,
    unit: str,
) -> None:
    figure.add_scatter(
        x=[float(value) for value in table[column]], y=list(table["variant"]), mode="markers",
        name=name, customdata=[str(seed) for seed in table["seed"]],
        marker={"color": colour, "symbol": symbol, "size": 8, "line": {"color": colour, "width": 2}},
        hovertemplate=f"%{{y}}, seed %{{customdata}}: {name} at %{{x:,d}} {unit}<extra></extra>",
    )  # fmt: skip
