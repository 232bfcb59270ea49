"""How a model learns: curves over training."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.biographies import ATTRIBUTES
from interp.charts.bands import shade_phases
from interp.charts.style import PALETTE, describe
from interp.errors import RunError
from interp.run import Run

_LINES = {
    "train": {"color": PALETTE["green"], "dash": "dot", "width": 2},
    "evaluation": {"color": PALETTE["blue"], "width": 2.5},
    "held_out": {"color": PALETTE["orange"], "dash": "dash", "width": 2},
}
_NAMES = {
    "train": "known people, training wordings",
    "evaluation": "known people, new wordings (evaluation)",
    "held_out": "held-out people",
}
_DRAWN = {"color": PALETTE["grey"], "dash": "dash", "width": 1.5}
_THEORETICAL = {"color": PALETTE["grey"], "dash": "dot", "width": 1.5}


def learning_curves(run: Run) -> go.Figure:
    """Attribute loss (nats) and attribute accuracy (share) over training, with the phases.

    What to look for: the loss falls to the no-knowledge baseline, stays there (the plateau), then
    falls below for good, and only then does accuracy rise. Held-out people leave the baseline
    upwards: confident and wrong.

    Args:
        run: A run with metrics.

    Raises:
        RunError: nothing has been measured yet.
    """
    steps = run.curve().index
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07, row_heights=[0.6, 0.4]
    )
    for split in _splits(run):
        for row, metric in enumerate(("attribute_loss", "attribute_accuracy"), start=1):
            _add_curve(figure, run.curve(metric, split), split, row, legend=row == 1)
    _add_level(figure, steps, run.phase_baseline, "baseline of the drawn people", _DRAWN, row=1)
    _add_level(figure, steps, run.baseline, "theoretical baseline", _THEORETICAL, row=1)
    figure.update_yaxes(title_text="attribute loss (nats)", row=1)
    figure.update_yaxes(title_text="accuracy (share)", range=[-0.02, 1.04], row=2)
    _leave_headroom(figure)
    figure.update_xaxes(title_text="training (steps)", row=2)
    _share_steps(figure, steps)
    shade_phases(figure, run.phases, int(steps[0]), int(steps[-1]), "y domain")
    figure.update_layout(height=600, hovermode="x unified", margin_t=68)
    return describe(
        figure,
        "Three phases of learning",
        """Above: attribute loss, in nats, against training steps. Look for three phases: the loss
        falls to the no-knowledge baseline (1, statistics), stays there (2, plateau), then falls
        below for good (3, knowledge). Below: the share of values predicted entirely right, which
        stays near zero until the plateau ends. Held-out people, who are never trained on, part from
        the known: a loss above the baseline after the plateau is hallucination. The dashed
        baseline uses the values that the drawn people have, and is the one the phases are held
        against; the dotted one takes every value of the lists as equally likely.""",
    )


def attribute_curves(run: Run) -> go.Figure:
    """Attribute loss (nats) and accuracy (share) of each attribute on evaluation biographies.

    What to look for: whether all attributes leave their own baseline at the same step, and in
    which order they are learned.

    Args:
        run: A run with metrics.

    Raises:
        RunError: nothing has been measured yet.
    """
    steps = run.curve().index
    figure = make_subplots(
        rows=len(ATTRIBUTES), cols=2, shared_xaxes="all", vertical_spacing=0.05,
        horizontal_spacing=0.12,
    )  # fmt: skip
    baselines = run.baselines
    for row, attribute in enumerate(ATTRIBUTES, start=1):
        name = attribute.replace("_", " ")
        for column, metric in enumerate(("attribute_loss", "attribute_accuracy"), start=1):
            curve = run.curve(metric, "evaluation", attribute)
            _add_curve(figure, curve, "evaluation", row, column, legend=row == column == 1)
        for levels, label, line in (
            (baselines.statistics, "baseline of the drawn people", _DRAWN),
            (baselines.theoretical, "theoretical baseline", _THEORETICAL),
        ):
            _add_level(
                figure, steps, levels[attribute], label, line, row, legend=row == 1, value=False
            )
        figure.add_annotation(
            text=f"<b>{name}</b>", showarrow=False, x=0, xanchor="left", y=1, yanchor="bottom",
            xref="x domain", yref="y domain", row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(rangemode="tozero", nticks=4, row=row, col=1)
        figure.update_yaxes(range=[-0.04, 1.08], tickvals=[0, 0.5, 1], row=row, col=2)
    # Titles above the columns: twelve upright ones would not fit on a phone.
    for column, text in enumerate(("attribute loss (nats)", "accuracy (share)"), start=1):
        axis = "x domain" if column == 1 else "x2 domain"
        figure.add_annotation(
            text=text, showarrow=False, x=0, xanchor="left", xref=axis, y=1, yref="paper",
            yanchor="bottom", yshift=20, font_size=13,
        )  # fmt: skip
        figure.update_xaxes(title_text="training (steps)", row=len(ATTRIBUTES), col=column)
    _share_steps(figure, steps)
    figure.update_layout(height=1000, margin_t=88)
    return describe(
        figure,
        "The six attributes",
        """Evaluation biographies, a row for each attribute. Left: attribute loss, in nats, with the
        attribute's own no-knowledge baseline (dashed: of the drawn people, dotted: theoretical; the
        scales differ, as a birth date has three parts). Right: the share of values predicted
        entirely right. Look for whether the attributes leave their baseline together, and for the
        order in which they are learned.""",
    )


def known_and_held_out(run: Run) -> go.Figure:
    """Known (evaluation) against held-out people: loss (nats), top probability, entropy (nats).

    What to look for: after the plateau the loss on held-out people rises above the baseline while
    the top probability rises and the entropy falls: hallucination. Confidence in known people
    should rise further, so that the gap could tell the two apart.

    Args:
        run: A run with metrics and held-out people.

    Raises:
        RunError: nothing has been measured yet, or the run has no held-out people.
    """
    if "held_out" not in _splits(run):
        raise RunError(
            f"{run.path} has no held-out people to compare with; train with "
            "population.n_held_out above 0."
        )
    steps = run.curve().index
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    panels = {
        "attribute_loss": "attribute loss (nats)",
        "top_probability": "top probability",
        "entropy": "entropy (nats)",
    }
    for row, (metric, axis_title) in enumerate(panels.items(), start=1):
        for split in ("evaluation", "held_out"):
            _add_curve(figure, run.curve(metric, split), split, row, legend=row == 1)
        figure.update_yaxes(title_text=axis_title, rangemode="tozero", row=row)
    figure.update_yaxes(range=[0, 1.04], row=2)
    _leave_headroom(figure)
    _add_level(figure, steps, run.phase_baseline, "baseline of the drawn people", _DRAWN, row=1)
    figure.update_xaxes(title_text="training (steps)", row=3)
    _share_steps(figure, steps)
    shade_phases(figure, run.phases, int(steps[0]), int(steps[-1]), "y domain")
    figure.update_layout(height=700, hovermode="x unified", margin_t=68)
    return describe(
        figure,
        "Known and held-out people",
        """Known people in new wordings (solid) against people never trained on (dashed), over
        training steps. From above: attribute loss in nats; mean probability of the top prediction,
        and entropy of the prediction in nats, both at the first token of the value. Look at the end
        of the plateau: a held-out loss that rises above the baseline while the top probability
        rises and the entropy falls is hallucination, confident and wrong. The gap between the two
        lines in the lower panels shows how much less sure the model is about people it does not
        know.""",
    )


def _splits(run: Run) -> list[str]:
    """The splits that were measured, in the order of their lines."""
    metrics = run.metrics
    measured = set(metrics.loc[metrics["metric"] == "attribute_loss", "split"])
    return [split for split in _LINES if split in measured]


def _add_curve(
    figure: go.Figure, curve: pd.Series, split: str, row: int, column: int = 1, *, legend: bool
) -> None:
    """One split's line; the legend switches it in all panels."""
    figure.add_scatter(
        x=list(curve.index), y=list(curve), mode="lines", name=_NAMES[split], legendgroup=split,
        showlegend=legend, line=_LINES[split], row=row, col=column,
        hovertemplate="%{y:.3f}",
    )  # fmt: skip


def _add_level(
    figure: go.Figure,
    steps: pd.Index,
    level: float,
    name: str,
    line: dict[str, object],
    row: int,
    *,
    legend: bool = True,
    value: bool = True,
) -> None:
    """A horizontal line over all measured steps, with its level in the legend if `value`."""
    figure.add_scatter(
        x=[steps[0], steps[-1]], y=[level, level], mode="lines", line=line, legendgroup=name,
        name=f"{name} ({level:.2f} nats)" if value else name, showlegend=legend,
        hovertemplate="%{y:.3f}", row=row, col=1,
    )  # fmt: skip


def _leave_headroom(figure: go.Figure) -> None:
    """The first panel from zero to a little above its lines, for the numbers of the phases."""
    highest = max(max(trace.y) for trace in figure.data if trace.yaxis in (None, "y"))
    figure.update_yaxes(range=[0, 1.14 * highest], row=1)


def _share_steps(figure: go.Figure, steps: pd.Index) -> None:
    """The same steps on every x axis, whole and with separators."""
    last = steps[-1] if steps[-1] > steps[0] else steps[0] + 1
    figure.update_xaxes(
        range=[steps[0], last], tickformat=",d", unifiedhovertitle_text="step %{x:,d}"
    )
