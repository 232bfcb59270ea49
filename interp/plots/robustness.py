"""The three phases under other settings of training."""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, STEPS, Axis, Level, Look, bars, curves, describe, looks_of
from interp.charts.style import see_through
from interp.phases import DELTA, Phases

_DEFAULT = "default"
_LOSS = Axis("attribute loss (baselines)", "baselines")
_ENDS = {
    "statistics_end": Look(PALETTE["blue"], symbol="square", name="statistics end"),
    "plateau_end": Look(PALETTE["orange"], name="plateau end"),
    "last_step": Look(PALETTE["grey"], symbol="x", name="not ended by the last step"),
}


def family_curves(family: str, table: pd.DataFrame) -> go.Figure:
    """Attribute loss over training, as a share of the baseline, a line a run.

    What to look for: every line bends at the baseline, stays close to it for a while, and falls away.

    Args:
        family: What differs, e.g. "learning rate".
        table: Columns `variant` (one is "default"), `seed`, `step`, `loss` (a share of the
            baseline).
    """
    # The default first: it is drawn below the others.
    names = [_DEFAULT, *(str(name) for name in table["variant"].unique() if name != _DEFAULT)]
    figure = curves(
        table, y="loss", line="variant", seeds=True, spread="each", axis=_LOSS, heights=[290],
        looks=looks_of(names, ordered=True, first=Look(PALETTE["grey"], width=2.4)),
    )  # fmt: skip
    figure.add_hrect(
        y0=1 - DELTA, y1=1 + DELTA, line_width=0, fillcolor=see_through(PALETTE["grey"], 0.25)
    )
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
    ends = table.assign(
        **{name: (pd.to_numeric(table[name]) * factor).astype("Float64") for name in _ENDS}
    )
    ends["last_step"] = ends["last_step"].where(ends["plateau_end"].isna())
    names = [str(name) for name in ends["variant"].unique()]
    figure = bars(
        ends.melt(["variant", "seed"], list(_ENDS), "end").dropna(subset=["value"]),
        place="variant", group="end", looks=_ENDS, mean=False, places={n: n for n in names},
        axis=Axis(f"training ({unit})", unit, ",.0f"), place_axis="setting",
    )  # fmt: skip
    means = ends.groupby("variant")[["statistics_end", "plateau_end"]].mean().loc[names]
    both = means.notna().all(axis=1).to_numpy()
    starts = means["statistics_end"][both].astype(float)
    figure.add_bar(
        y=[place for place, there in enumerate(both) if there], base=list(starts),
        x=list(means["plateau_end"][both].astype(float) - starts), orientation="h", width=0.7,
        name="plateau (mean)", hoverinfo="skip",
        marker={"color": see_through(PALETTE["orange"], 0.3), "line_width": 0},
    )  # fmt: skip
    return describe(
        figure,
        title,
        f"""From the end of the statistics phase to the end of the plateau, in {unit}; a point for
        each seed, a bar for the mean. One setting is changed at a time; the rest is as in the default
        (top). {look}""",
    )


def recurrent_phases(row: pd.DataFrame, table: pd.DataFrame) -> go.Figure:
    """Loss and accuracy of the recurrent variant over training, with its phases.

    What to look for: the same three phases as with attention, which is drawn beside it.

    Args:
        row: Runs of the recurrent variant: `seed`, `statistics_end`, `plateau_end` (steps or NA);
            the phases are those of the first.
        table: Columns `variant` ("recurrent", "default"), `seed`, `step`, `loss` (a share of the
            baseline) and `accuracy` (a share).
    """
    first = row.iloc[0]
    start, end = (
        None if pd.isna(first[name]) else int(first[name])
        for name in ("statistics_end", "plateau_end")
    )
    looks = {
        "recurrent": Look(PALETTE["blue"], width=2.5),
        _DEFAULT: Look(PALETTE["grey"], "dash", 1.6, name="attention (default; ends early)"),
    }
    figure = curves(
        table.melt(["variant", "seed", "step"], ["loss", "accuracy"], "metric"), line="variant",
        looks=looks, facet="metric", seeds=True, spread="each", x_axis=STEPS, heights=[264, 176],
        axis={"loss": _LOSS, "accuracy": Axis("accuracy (share)", range=(-0.02, 1.04))},
        phases=Phases(start, end, 1.0, DELTA),
        levels=[Level("baseline", 1.0, ("loss",), legend=False)],
    )  # fmt: skip
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
