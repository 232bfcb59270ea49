"""Hallucination: known against held-out people over training, and a detector of the unknown.

Tables are those of `interp.studies.hallucination`; tables read back from CSV will do. Every function
raises `InterpError` where a column or every row to draw is missing. Source: paper, Fig. 5 left, M.
"""

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    PALETTE,
    ROOT_AXIS,
    ROOT_STEPS,
    Axis,
    Level,
    Look,
    chosen,
    curves,
    describe,
    looks_of,
    rows,
)
from interp.phases import Phases

_PEOPLE = {
    "evaluation": Look(PALETTE["blue"], width=2.5, name="known people"),
    "held_out": Look(PALETTE["orange"], "dash", name="held-out people"),
}
_METRICS = {
    "attribute_loss": Axis("loss (nats)", "nats"),
    "attribute_accuracy": Axis("accuracy (share)"),
    "top_probability": Axis("top probability"),
    "entropy": Axis("entropy (nats)", "nats"),
}
_SCORES = {
    "top probability": Look(PALETTE["blue"], width=2.5),
    "entropy": Look(PALETTE["orange"], "dash"),
}
_UNITS = {"prediction": "single predictions", "person": "people (mean of six)"}


def hallucination_curves(table: pd.DataFrame, phases: pd.DataFrame) -> go.Figure:
    """Known against held-out people over training: loss, accuracy, top probability, entropy.

    What to look for: at the plateau's end the loss on held-out people turns upwards from the baseline
    while the model grows surer of them, though less than of known people.

    Args:
        table: Columns `seed`, `step`, `split`, `metric`, `value`.
        phases: Columns `seed`, `baseline`, `statistics_end`, `plateau_end`.
    """
    found = rows(table, ("seed", "step", "split", "metric", "value"), "curves")
    for metric in _METRICS:
        for split in _PEOPLE:
            chosen(found, "curves", metric=metric, split=split)
    found = found[found["metric"].isin(_METRICS) & found["split"].isin(_PEOPLE)]
    baseline = float(phases["baseline"].mean())
    level = f"no-knowledge baseline ({baseline:.2f} nats)"
    figure = curves(
        found, line="split", looks=_PEOPLE, facet="metric", axis=_METRICS, x_axis=ROOT_STEPS,
        phases=_typical(phases), seeds=True,
        levels=[Level(level, baseline, ("attribute_loss",), width=2)],
    )  # fmt: skip
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
    """
    columns = ("seed", "moment", "step", "unit", "score", "false_alarms", "found")
    table = chosen(rows(roc, columns, "ROC curves"), "ROC curves", score=score)
    moments = list(dict.fromkeys(table.sort_values("step")["moment"]))
    dashes = ("12px,3px", "dash", "solid")[-len(moments) :]
    looks = {
        moment: Look(look.colour, dash, 1.8)
        for (moment, look), dash in zip(
            looks_of(moments, ordered=True).items(), dashes, strict=True
        )
    }
    figure = curves(
        table, x="false_alarms", y="found", line="moment", looks=looks, column="unit", titles=_UNITS,
        x_axis=Axis("false alarms (share)", range=(-0.02, 1.02)), seeds=True, spread="each",
        axis=Axis("unknown people found (share)", form=".2f", range=(-0.02, 1.02)), heights=[290],
        levels=[Level("chance", pd.Series([0.0, 1.0], index=[0.0, 1.0]), width=2)],
    )  # fmt: skip
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
    """
    found = rows(detector, ("seed", "step", "unit", "score", "value"), "detectors")
    for unit in _UNITS:
        chosen(found, "detectors", unit=unit)
    figure = curves(
        found, line="score", looks=_SCORES, facet="unit", titles=_UNITS, x_axis=ROOT_STEPS,
        axis=Axis("area under ROC", range=(0.3, 1.08)), phases=_typical(phases), seeds=True,
        levels=[Level("chance", 0.5, width=2)],
    )  # fmt: skip
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
