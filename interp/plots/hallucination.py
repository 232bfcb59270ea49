"""Hallucination: known against held-out people over training, and a detector of the unknown.

Tables are those of `interp.studies.hallucination`; tables read back from CSV will do. Source:
paper, Fig. 5 left, M.
"""

from math import sqrt
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.style import PALETTE, describe, ramp
from interp.phases import Phases
from interp.plots.panels import ROOT_AXIS, Line, Panel, chosen, over_steps, rows

_PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "evaluation": ("known people", {"color": PALETTE["blue"], "width": 2.5}),
    "held_out": ("held-out people", {"color": PALETTE["orange"], "dash": "dash", "width": 2}),
}
_METRICS = {
    "attribute_loss": "loss (nats)",
    "attribute_accuracy": "accuracy (share)",
    "top_probability": "top probability",
    "entropy": "entropy (nats)",
}
_BASELINE = {"color": PALETTE["grey"], "dash": "dot", "width": 2}
_SCORES = {
    "top probability": {"color": PALETTE["blue"], "width": 2.5},
    "entropy": {"color": PALETTE["orange"], "dash": "dash", "width": 2},
}
_UNITS = {"prediction": "single predictions", "person": "people (mean of six)"}


def hallucination_curves(curves: pd.DataFrame, phases: pd.DataFrame) -> go.Figure:
    """Known against held-out people over training: loss, accuracy, top probability, entropy.

    What to look for: at the plateau's end the loss on held-out people turns upwards from the baseline
    while the model grows surer of them, though less than of known people.

    Args:
        curves: Columns `seed`, `step`, `split`, `metric`, `value`.
        phases: Columns `seed`, `baseline`, `statistics_end`, `plateau_end`.

    Raises:
        InterpError: a column is missing, or there is no such row.
    """
    found = rows(curves, ("seed", "step", "split", "metric", "value"), "curves")
    panels = []
    for metric, title in _METRICS.items():
        lines = []
        for split, (name, style) in _PEOPLE.items():
            own = chosen(found, "curves", metric=metric, split=split)
            lines.append(_mean_line(own, name, style))
        if metric == "attribute_loss":
            level = pd.Series(phases["baseline"].mean(), index=lines[0].values.index)
            lines.append(
                Line(f"no-knowledge baseline ({level.iloc[0]:.2f} nats)", level, _BASELINE)
            )
        panels.append(Panel(title, lines))
    figure = over_steps(panels, _typical(phases), "", place=sqrt, band="range of seeds")
    for row, title in enumerate(_METRICS.values(), start=1):
        figure.update_yaxes(title_text=title, row=row)
    figure.update_layout(margin_t=88)  # on a phone the list of phases takes three lines
    return describe(
        figure,
        "People whom the model has never seen",
        f"""Known people in wordings never seen with them (solid) against held-out people (dashed), over
        training steps; from above the attribute loss in nats with the no-knowledge baseline (dotted), the
        share of values that are right, and, where the first token of a value is predicted, the mean
        probability of the top prediction and the entropy in nats. {_drawn(found, phases)}
        {ROOT_AXIS} Look at the end of the plateau: a loss on held-out people that leaves the baseline
        upwards, while the top probability rises and the entropy falls, is hallucination. The gap between
        the lines below shows how much less sure the model is of people it does not know.""",
    )


def roc_curves(roc: pd.DataFrame, score: str = "top probability") -> go.Figure:
    """ROC curves of a detector of unknown people, at several moments of training.

    What to look for: curves above the diagonal, and whether a person's six predictions together give
    away more than one.

    Args:
        roc: Columns `seed`, `moment`, `step`, `unit`, `score`, `false_alarms`, `found`.
        score: What the detector goes by.

    Raises:
        InterpError: a column is missing, or there is no such row.
    """
    columns = ("seed", "moment", "step", "unit", "score", "false_alarms", "found")
    table = chosen(rows(roc, columns, "ROC curves"), "ROC curves", score=score)
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06,
        subplot_titles=list(_UNITS.values()),
    )  # fmt: skip
    moments = list(dict.fromkeys(table.sort_values("step")["moment"]))
    dashes = ("12px,3px", "dash", "solid")[-len(moments) :]
    for column, unit in enumerate(_UNITS, start=1):
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", hoverinfo="skip", name="chance", legendgroup="chance",
            line=_BASELINE, showlegend=column == 1, row=1, col=column,
        )  # fmt: skip
        for moment, colour, dash in zip(moments, ramp(len(moments)), dashes, strict=True):
            own = table[(table["unit"] == unit) & (table["moment"] == moment)]
            for i, (seed, curve) in enumerate(own.groupby("seed")):
                figure.add_scatter(
                    x=list(curve["false_alarms"]), y=list(curve["found"]), mode="lines",
                    line={"color": colour, "dash": dash, "width": 1.8}, name=moment,
                    legendgroup=moment, showlegend=column == 1 and i == 0, row=1, col=column,
                    hovertemplate=f"{moment}, seed {seed}: %{{y:.2f}} found at %{{x:.2f}} false alarms"
                    "<extra></extra>",
                )  # fmt: skip
    figure.update_xaxes(title_text="false alarms (share)", range=[-0.02, 1.02], nticks=4)
    figure.update_yaxes(range=[-0.02, 1.02])
    figure.update_yaxes(title_text="unknown people found (share)", col=1)
    figure.update_annotations(font_size=12)
    figure.update_layout(height=460, margin_t=72)
    return describe(
        figure,
        "A detector of unknown people",
        f"""The detector takes a prediction (left), or a person by the mean over six predictions (right),
        for one about somebody unknown if its {score} is on the unsure side of a threshold. For every
        threshold: the share of predictions about held-out people that it finds, against the share about
        known people that it wrongly takes for unknown. A line for each seed; colours are moments of
        training. Look for the distance from the diagonal, which is chance: whether it grows as the model
        learns, and how much more six predictions give away than one.""",
    )


def auc_curves(detector: pd.DataFrame, phases: pd.DataFrame) -> go.Figure:
    """How well confidence tells known from unknown people, over training.

    What to look for: the step from which it does, and whether that is before accuracy is high.

    Args:
        detector: Columns `seed`, `step`, `unit`, `score`, `value`.
        phases: Columns `seed`, `statistics_end`, `plateau_end`.

    Raises:
        InterpError: a column is missing, or there is no such row.
    """
    found = rows(detector, ("seed", "step", "unit", "score", "value"), "detectors")
    panels = []
    for unit, title in _UNITS.items():
        of_unit = chosen(found, "detectors", unit=unit)
        lines = [
            _mean_line(of_unit[of_unit["score"] == score], score, style)
            for score, style in _SCORES.items()
            if (of_unit["score"] == score).any()
        ]
        half = pd.Series(0.5, index=lines[0].values.index)
        panels.append(Panel(title, [*lines, Line("chance", half, _BASELINE)]))
    figure = over_steps(panels, _typical(phases), "", place=sqrt, band="range of seeds")
    for row, title in enumerate(_UNITS.values(), start=1):
        figure.update_yaxes(title_text=f"{title}<br>area under ROC", range=[0.3, 1.08], row=row)
    figure.update_layout(margin_t=88)
    return describe(
        figure,
        "When the unknown can be told",
        f"""Area under the ROC curve of a detector that tells known from held-out people by what the model
        shows where the first token of a value is predicted: its top probability (solid),
        or the entropy of its prediction (dashed). 1: every
        unknown is less sure than every known; 0.5 (dotted): chance. Above for single predictions, below
        for people, by the mean over their six values. {_drawn(found, phases)} {ROOT_AXIS} Look for the
        step from which confidence tells the two apart, and whether the plateau has to end first.""",
    )


def _mean_line(table: pd.DataFrame, name: str, style: dict[str, Any]) -> Line:
    """The mean over seeds, between the lowest and the highest, at steps that all seeds have."""
    curves = table.pivot_table(values="value", index="step", columns="seed").dropna()
    if curves.shape[1] == 1:
        return Line(name, curves.mean(axis=1), style)
    return Line(name, curves.mean(axis=1), style, low=curves.min(axis=1), high=curves.max(axis=1))


def _typical(phases: pd.DataFrame) -> Phases | None:
    """Where the phases of the seeds meet in the median; None unless all seeds have all."""
    ends = phases[["statistics_end", "plateau_end"]]
    if ends.empty or ends.isna().any(axis=None):
        return None
    statistics_end, plateau_end = (round(float(ends[name].median())) for name in ends)
    return Phases(statistics_end, plateau_end, float("nan"), float("nan"))


def _drawn(table: pd.DataFrame, phases: pd.DataFrame) -> str:
    """What lines and bands are."""
    n_seeds = table["seed"].nunique()
    words = "One seed."
    if n_seeds > 1:
        words = f"Lines are means over {n_seeds} seeds, bands reach from the lowest to the highest."
    if _typical(phases) is None:
        return words
    return f"{words} Shaded: the phases{', in the median of seeds' if n_seeds > 1 else ''}."
