"""Several runs in one figure: a line, a mark or a row for each.

Tables have a column `run`, the run's label, and `step`, `value`; what else they need is said with each
function. Lines of runs differ in colour and dashes, marks in shape; both go by the run's place, so that
a run looks the same in every figure. Up to a dozen runs stay readable.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import sqrt

import pandas as pd
import plotly.graph_objects as go

from interp.charts import (
    INK,
    PALETTE,
    ROOT_AXIS,
    ROOT_STEPS,
    Axis,
    Level,
    Look,
    bars,
    curves,
    describe,
    looks_of,
    plain,
    rows,
)
from interp.charts.panels import legend_key
from interp.charts.style import see_through, two_lines
from interp.errors import InterpError
from interp.phases import Phases

_STRIP = 30.0
"""Pixels of a run's strip of phases: its label, and its marks below."""
_ENDS = {
    "statistics_end": ("end of the statistics phase", "diamond-open"),
    "plateau_end": ("end of the plateau", "circle"),
}
_PHASES = "phases"


_LISTED = 6
"""So many runs stand in the legend of curves too; more are named by their strips alone."""
_AVERAGED = (
    "The wide grey line is the mean of the seeds of one configuration, the band their range."
)


def compared_curves(
    panels: Mapping[str, pd.DataFrame],
    phases: Mapping[str, Phases],
    levels: Mapping[str, Mapping[str, float]] | None = None,
    groups: Sequence[Sequence[str]] = (),
) -> go.Figure:
    """Learning curves of several runs on the same axes, with a strip of phases for each below.

    What to look for: how far apart the lines leave the plateau, next to how far apart the marks are.

    Args:
        panels: Tables by the title of their y axis, from the top; columns `run`, `step`, `value`.
        phases: Of each run, in the order of the runs.
        levels: For a panel, each run's own level to hold its curve against.
        groups: Runs that are seeds of one configuration. Of a single group the mean is drawn as well,
            with the range as a band; several would hide the lines.

    Raises:
        InterpError: there is nothing to draw.
    """
    tables = [rows(table, ("run", "step", "value"), title) for title, table in panels.items()]
    found = pd.concat([t.assign(panel=title) for title, t in zip(panels, tables, strict=True)])
    if found.empty:
        raise InterpError("No run has a measured value to draw a curve of.")
    labels, looks = list(phases), _looks(phases)
    averaged = list(groups[0]) if len(groups) == 1 and len(groups[0]) > 1 else []
    for label in averaged:
        looks[label] = replace(looks[label], width=1.3)
    # The mean is the line of no run, and is drawn below the others.
    name = "mean" if len(averaged) == len(labels) else f"mean of {len(averaged)} seeds"
    mean = found[found["run"].isin(averaged)].rename(columns={"run": "seed"}).assign(run=None)
    # A strip is a run's place, as long as it was measured.
    places = {label: place for place, label in enumerate(labels)}
    measured = found.groupby("run")["step"].agg(["min", "max"]).reindex(labels)
    strips = measured.reset_index().melt("run", value_name="step").assign(panel=_PHASES)
    strips["value"] = strips["run"].map(places)
    axes = {
        title: Axis(title, range=(-0.02, 1.04) if table["value"].max() <= 1 else None)
        for title, table in zip(panels, tables, strict=True)
    }
    figure = curves(
        pd.concat([mean, found, strips]).assign(seed=lambda t: t["seed"].fillna("")), line="run",
        looks={None: Look(PALETTE["grey"], width=4, name=name), **looks}, facet="panel",
        axis={**axes, _PHASES: Axis(_PHASES, range=(len(labels) - 0.5, -0.95))}, seeds=True,
        levels=[
            Level(f"{plain(label)}, level", value, (title,), "dot", looks[label].colour, 1.5, False,
                  label)
            for title, own in (levels or {}).items() for label, value in own.items()
        ],
        heights=[230, *[170] * (len(panels) - 1), _STRIP * len(labels) + 12],
        x_axis=ROOT_STEPS,
    )  # fmt: skip
    if len(labels) > _LISTED:
        figure.for_each_trace(lambda t: t.update(showlegend=t.showlegend and t.name == name))
    _mark_strips(figure, phases, looks, measured["min"], len(axes) + 1)
    legend = _legend_height(labels if len(labels) <= _LISTED else [], 3)
    figure.update_layout(height=figure.layout.height + legend - 40)
    return describe(
        figure,
        "Learning curves of all runs",
        f"""Evaluation biographies (known people, new wordings), a line for each run, against training
        steps. {ROOT_AXIS} Dotted: the no-knowledge baseline of each run's own people.
        {_AVERAGED if averaged else ""} Below, a strip for each run, with its name, as long as it was
        measured: the diamond is the end of
        its statistics phase, the circle the end of its plateau; a missing mark was not reached.
        Look for how far apart the circles are, and whether runs that leave the plateau first are
        ahead in the end.""",
    )


def compared_panels(
    panels: Mapping[str, pd.DataFrame],
    labels: Sequence[str],
    axis: str,
    title: str,
    look: str,
    *,
    n_columns: int = 2,
    levels: Mapping[str, pd.Series] | None = None,
    unit: str = "",
    marks: bool = False,
) -> go.Figure:
    """A grid of panels over training steps, with a line for each run in all of them.

    Args:
        panels: Tables by the title of their panel; columns `run`, `step`, `value`. Runs may be missing
            from some.
        labels: All runs, in their order.
        axis: Title of the y axes, with the unit.
        title: Of the figure.
        look: The caption: what is drawn, and what to look for.
        n_columns: Columns of panels.
        levels: For a panel, a level to hold the lines against, by step.
        unit: Behind a value under the pointer, e.g. " nats".
        marks: Whether every measured step has a mark, for curves of few.

    Raises:
        InterpError: there is nothing to draw.
    """
    tables = [rows(t, ("run", "step", "value"), title).assign(panel=p) for p, t in panels.items()]
    figure = curves(
        pd.concat(tables), line="run", looks=_looks(labels), facet="panel",
        titles={name: name for name in panels}, axis=Axis(axis, unit.strip()), n_columns=n_columns,
        levels=[Level("chance", values, (name,)) for name, values in (levels or {}).items()],
        marks=marks, x_axis=ROOT_STEPS,
    )  # fmt: skip
    figure.update_layout(height=figure.layout.height + _legend_height(labels, bool(levels)) - 40)
    return describe(figure, title, f"{look} {ROOT_AXIS}")


def compared_rows(
    table: pd.DataFrame,
    labels: Sequence[str],
    axis: str,
    title: str,
    look: str,
    *,
    of_steps: bool = False,
    unit: str = "",
) -> go.Figure:
    """A row for each measure, with a mark for each run.

    Args:
        table: Columns `run`, `row` (in the order to draw) and `value`; NaN is not drawn.
        labels: All runs, in their order.
        axis: Title of the x axis, with the unit.
        title: Of the figure.
        look: The caption.
        of_steps: Whether values are training steps, which go on a square-root axis.
        unit: Behind a value under the pointer.

    Raises:
        InterpError: there is nothing to draw.
    """
    typed = rows(table, ("run", "row", "value"), title)
    typed = typed[typed["value"].notna()]
    if typed.empty:
        raise InterpError(f"{title}: there is no value to draw.")
    places = list(dict.fromkeys(table["row"]))
    figure = bars(
        typed[["run", "row", "value"]], place="row", group="run", looks=_looks(labels),
        axis=replace(ROOT_STEPS, title=axis) if of_steps else Axis(axis, unit.strip(), "+.3f"),
        places={place: two_lines(place) for place in places}, zero=of_steps,
    )  # fmt: skip
    for edge in range(1, len(places)):
        figure.add_hline(y=edge - 0.5, line={"color": see_through(INK, 0.3), "width": 1})
    if not of_steps:
        figure.update_xaxes(zeroline=True, zerolinecolor=INK, zerolinewidth=1)
    figure.update_layout(height=figure.layout.height + _legend_height(labels) - 40)
    return describe(figure, title, look)


def compared_gains(gains: pd.DataFrame, labels: Sequence[str], step: int) -> go.Figure:
    """What attention of reference checkpoints changes in each run, against the reference step.

    What to look for: lines that cross zero at the same reference step.

    Args:
        gains: Columns `run`, `reference_step`, `gain` (nats; above 0 where patching lowers the loss).
        labels: All runs, in their order.
        step: The training step at which patched and unpatched runs are compared.

    Raises:
        InterpError: there is nothing to draw.
    """
    table = rows(gains, ("run", "reference_step", "gain"), "gains")
    if table.empty:
        raise InterpError("The table of gains has no row to draw.")
    figure = curves(
        table, x="reference_step", y="gain", line="run", looks=_looks(labels), marks=True,
        x_axis=replace(ROOT_STEPS, title="reference checkpoint (steps, square-root scale)",
                       hover="reference step"),
        axis=Axis("gain (nats)", "nats", "+.3f"), levels=[Level("no gain", 0.0, legend=False)],
    )  # fmt: skip
    figure.update_layout(height=figure.layout.height + _legend_height(labels))
    return describe(
        figure,
        f"What attention of a reference checkpoint gains, step {step:,}",
        f"""By how much the attribute loss at training step {step:,} is lower, in nats, if a run is
        trained again with the attention of one of its own checkpoints (in all layers and heads, from
        the start), against the step of that checkpoint; a line for each run. Above zero attention
        helps, below it hurts. Look for where lines cross zero, and for runs in which they do
        elsewhere.""",
    )


def _looks(labels: Iterable[str]) -> dict[str, Look]:
    """The look of each run: five colours and four dashes go round, so that twenty runs differ."""
    labels = list(labels)
    return looks_of(labels, {label: plain(label) for label in labels})


def _mark_strips(
    figure: go.Figure,
    phases: Mapping[str, Phases],
    looks: Mapping[str, Look],
    first: pd.Series,
    row: int,
) -> None:
    """Marks where the phases of each run meet, and its name."""
    at = {"row": row, "col": 1}
    for y, (label, found) in enumerate(phases.items()):
        for end, (words, symbol) in _ENDS.items():
            step = getattr(found, end)
            if step is not None:
                figure.add_scatter(
                    x=[sqrt(step)], y=[y], mode="markers", name=f"{plain(label)}, {words}",
                    legendgroup=label, showlegend=False,
                    marker={"symbol": symbol, "size": 11, "color": looks[label].colour,
                            "line_width": 2 if symbol.endswith("open") else 0},
                    hovertemplate=f"{plain(label)}: {words} at step {step:,}<extra></extra>", **at,
                )  # fmt: skip
        figure.add_annotation(
            text=plain(label), x=sqrt(first[label]), xanchor="left", y=y, yanchor="bottom",
            yshift=3, showarrow=False, font={"size": 11, "color": looks[label].colour}, **at,
        )  # fmt: skip
    for words, symbol in _ENDS.values():
        legend_key(figure, words, symbol=symbol)
    figure.update_yaxes(showticklabels=False, ticks="", showgrid=False, **at)


def _legend_height(labels: Sequence[str], n_others: int = 0) -> int:
    """Pixels of a legend below a figure on a phone, where one or two entries go on a line."""
    on_a_line = 1 if max(map(len, labels), default=0) > 14 else 2
    return 23 * (-(-len(labels) // on_a_line) + n_others)
