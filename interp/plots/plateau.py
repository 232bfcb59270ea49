"""The plateau: how its ends depend on the tolerance δ, how its length depends on N."""

from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts import PALETTE, Axis, Line, Look, curves, describe, note, scatter
from interp.charts.panels import legend_key
from interp.errors import InterpError
from interp.phases import DELTA, PAPER_COEFFICIENT, PAPER_EXPONENT, PowerLawFit
from interp.run import Run

_DELTAS = Axis("tolerance δ (share of the baseline)", form="g", hover="δ")
_ENDS = {
    "plateau_end": Look(PALETTE["blue"], name="end of the plateau"),
    "statistics_end": Look(PALETTE["orange"], symbol="square", name="end of the statistics phase"),
}


def phase_sensitivity(run: Run) -> go.Figure:
    """The ends of the statistics phase and of the plateau (steps) against the tolerance δ.

    What to look for: flat lines. Where they are steep, the phases are a matter of the threshold.

    Args:
        run: A run with metrics.

    Raises:
        RunError: nothing has been measured yet.
    """
    table = run.phase_sensitivity()
    ends = table.melt("delta", list(_ENDS), "end").dropna(subset=["value"])
    if ends.empty:
        figure = go.Figure()
        note(figure, "No δ marks an end of a phase in this run")
        figure.update_xaxes(title_text=_DELTAS.title, range=[0, table["delta"].max()])
        figure.update_yaxes(
            title_text="end of phase (steps)", range=[0, int(run.curve().index[-1])]
        )
    else:
        figure = curves(
            ends, x="delta", line="end", looks=_ENDS, marks=True,
            x_axis=replace(_DELTAS, range=(0, 1.05 * table["delta"].max())),
            axis=Axis("end of phase (steps)", "steps", ",.0f"),
        )  # fmt: skip
    for end, look in _ENDS.items():
        if end not in set(ends["end"]):
            legend_key(figure, f"{look.name} (never reached)", color=look.colour)
    figure.add_vline(
        x=DELTA, line={"color": PALETTE["grey"], "dash": "dot", "width": 1.5},
        annotation_text=f"default δ = {DELTA}", annotation_position="top right",
    )  # fmt: skip
    return describe(
        figure,
        "Sensitivity of the phases to δ",
        """When the statistics phase and the plateau end, in training steps, against the tolerance
        δ, a share of the baseline: the plateau ends at the first step from which the loss stays
        below (1 - δ) times the baseline, the statistics phase at the first step below (1 + δ) times
        it. Look for flat lines: where they are steep, the length of the plateau says as much about
        the threshold as about the model. A missing point means that this end was not reached. An
        end is only as exact as the measurements are close.""",
    )


_MEASURES = {
    "plateau_end": (
        "plateau end (step)",
        "Steps from the start of training to the end of the plateau",
    ),
    "plateau_length": (
        "plateau length (steps)",
        "Steps from the end of the statistics phase to the end of the plateau",
    ),
}
"""Axis title and description of what `scaling` draws."""


def scaling(
    table: pd.DataFrame, fit: PowerLawFit | None, measure: str = "plateau_end"
) -> go.Figure:
    """The plateau's end or length (steps) against the number of individuals, log-log, with a power law.

    What to look for: points on a straight line, little spread between seeds, and the exponent's
    interval beside the paper's 0.81. The height of the line depends on batch size and learning
    rate; only the slope is comparable.

    Args:
        table: A run a row: columns `n_individuals`, `seed`, and the measure (steps; NA where the
            plateau did not end), as well as `statistics_end` and `plateau_end`.
        fit: A power law fitted to them (`interp.phases.fit_power_law`); None draws the runs only.
        measure: `plateau_end`, or `plateau_length`: the same without the statistics phase.

    Raises:
        InterpError: the measure is unknown, or nowhere above 0.
    """
    if measure not in _MEASURES:
        raise InterpError(f"There is no measure {measure!r}; draw one of {', '.join(_MEASURES)}.")
    axis, what = _MEASURES[measure]
    length = pd.to_numeric(table[measure]).astype("Float64")
    reached = table[(length > 0).fillna(value=False)]
    if reached.empty:
        raise InterpError(
            f"No run of the table has a {measure} above 0 to draw; train for more steps."
        )
    people = reached["n_individuals"].astype(float)
    span = np.geomspace(people.min() / 1.15, people.max() * 1.15, 40)
    paper = pd.Series(PAPER_COEFFICIENT * span**PAPER_EXPONENT, index=span)
    name = f"paper: {PAPER_COEFFICIENT} · N^{PAPER_EXPONENT}"
    lines = [Line(name, paper, Look(PALETTE["grey"], "dash").line)]
    if fit is not None:
        lines.insert(0, _line(fit, span, middle=float(np.exp(np.log(people).mean()))))
    figure = scatter(
        reached.assign(run="seed " + reached["seed"].astype(str)), x="n_individuals", y=measure,
        label="run", lines=lines, what="runs",
        looks={None: Look(PALETTE["orange"], symbol="circle-open", name="a run (one point per seed)")},
        x_axis=Axis("individuals N", form=",.0f", scale="log", range=(span[0], span[-1])),
        axis=Axis(axis, "steps", ",.0f", "log"),
    )  # fmt: skip
    sizes = sorted({int(n) for n in people})
    figure.update_xaxes(tickvals=sizes, ticktext=[f"{n:,}" for n in sizes])
    n_left_out = len(table) - len(reached)
    left_out = (
        f"""Not drawn: {n_left_out} of {len(table)} runs, whose plateau did not end or was too short
        for their measurements to see."""
        if n_left_out
        else ""
    )
    return describe(
        figure,
        f"{axis.split(' (')[0].capitalize()} and number of individuals",
        f"""{what}, against the number of individuals N, both logarithmic; a point for each run. Look for
        a straight line: a power law{_described(fit)} Compare the slope with the
        dashed line of the paper, {PAPER_COEFFICIENT} · N^{PAPER_EXPONENT}, measured from 4,000 to
        256,000 individuals with another model and batch size: its height is not comparable, its
        exponent is.
        {left_out}""",
    )


def _line(fit: PowerLawFit, span: np.ndarray, middle: float) -> Line:
    """The line of a fit, and a band of the slopes of its interval."""
    # Least squares on logarithms passes through the mean point; the slope's interval turns there.
    at_middle = fit.coefficient * middle**fit.exponent
    fans = [at_middle * (span / middle) ** slope for slope in (fit.low, fit.high)]
    return Line(
        f"fit: {fit.coefficient:.2g} · N^{fit.exponent:.2f} (95%: {fit.low:.2f} to "
        f"{fit.high:.2f}; R² {fit.r_squared:.3f})",
        pd.Series(fit.coefficient * span**fit.exponent, index=span),
        Look(PALETTE["blue"]).line,
        low=pd.Series(np.minimum(*fans), index=span),
        high=pd.Series(np.maximum(*fans), index=span),
    )


def _described(fit: PowerLawFit | None) -> str:
    if fit is None:
        return ". Too few sizes have left their plateau to fit one."
    return (
        f", here with exponent {fit.exponent:.2f} (95% interval {fit.low:.2f} to {fit.high:.2f}, "
        f"{fit.n_points} runs). The band shows the slopes of that interval."
    )
