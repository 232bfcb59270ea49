"""Several runs in one figure: a line, a mark or a row for each.

Tables have a column `run`, the run's label, and `step`, `value`; what else they need is said with each
function. Lines of runs differ in colour and dashes, marks in shape; both go by the run's place, so that
a run looks the same in every figure. Up to a dozen runs stay readable.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from math import sqrt

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.charts.bands import spread_steps
from interp.charts.style import DASHES, INK, PALETTE, describe, plain, see_through
from interp.errors import InterpError
from interp.phases import Phases
from interp.plots.panels import (
    COLOURS,
    ROOT_AXIS,
    SYMBOLS,
    Line,
    Panel,
    add_line,
    by_step,
    over_steps,
    rows,
    whole_numbers,
)

_NO_PHASES = Phases(None, None, 0.0, 0.0)
_STRIP = 30.0
"""Pixels of a run's strip of phases: its label, and its marks below."""
_ENDS = (
    ("statistics_end", "end of the statistics phase", "diamond-open"),
    ("plateau_end", "end of the plateau", "circle"),
)


_LISTED = 6
"""So many runs stand in the legend of curves too; more are named by their strips alone."""
_AVERAGED = (
    "The wide grey line is the mean of the seeds of one configuration, the band their range."
)


def run_styles(labels: Sequence[str]) -> dict[str, dict[str, object]]:
    """The line of each run: five colours and four dashes go round, so that twenty runs differ.

    Example:
        >>> run_styles(["a", "b"])["b"]["dash"]
        'dash'
    """
    looks = zip(labels, cycle(COLOURS), cycle(DASHES))
    return {label: {"color": colour, "dash": dash, "width": 2} for label, colour, dash in looks}


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
    tables = {
        title: rows(table, ("run", "step", "value"), title) for title, table in panels.items()
    }
    steps = whole_numbers(step for table in tables.values() for step in table["step"])
    if not steps:
        raise InterpError("No run has a measured value to draw a curve of.")
    labels = list(phases)
    styles = run_styles(labels)
    averaged = list(groups[0]) if len(groups) == 1 and len(groups[0]) > 1 else []
    strip = _STRIP * len(labels) + 12
    heights = [230.0] + [170.0] * (len(tables) - 1) + [strip]
    figure = make_subplots(
        rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights,
        vertical_spacing=36 / (sum(heights) + 36 * (len(heights) - 1)),
    )  # fmt: skip
    shown: set[str] = set()
    words = ("level", "range of seeds", "")
    for row, (title, table) in enumerate(tables.items(), start=1):
        at = {"row": row, "col": 1}
        of_run = {label: by_step(table[table["run"] == label]) for label in labels}
        if averaged:
            add_line(figure, _mean_line(of_run, averaged), shown, sqrt, words, at)
        for label, curve in of_run.items():
            style = styles[label]
            if label in averaged:
                style = {**style, "width": 1.3}
            name, level = plain(label), (levels or {}).get(title, {}).get(label)
            of_level = None if level is None else pd.Series(level, index=[steps[0], steps[-1]])
            if len(curve):
                line = Line(name, curve, style, level=of_level, legend=len(labels) <= _LISTED)
                add_line(figure, line, shown, sqrt, words, at)
        figure.update_yaxes(title_text=title, rangemode="tozero", nticks=6, **at)
        if table["value"].max() <= 1:
            figure.update_yaxes(range=[-0.02, 1.04], **at)
    _add_strips(figure, phases, tables, len(heights))
    spread_steps(figure, steps, _NO_PHASES)
    figure.update_xaxes(title_text="training (steps, square-root scale)", row=len(heights), col=1)
    legend = _legend_height(labels if len(labels) <= _LISTED else [], 3)
    figure.update_layout(height=round(sum(heights)) + 36 * len(heights) + 70 + legend, margin_t=48)
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
    styles = run_styles(labels)
    symbols = dict(zip(labels, cycle(SYMBOLS)))
    drawn = []
    for name, table in panels.items():
        typed = rows(table, ("run", "step", "value"), title)
        lines = [
            Line(plain(label), curve, styles[label], symbol=symbols[label] if marks else None)
            for label in labels
            if len(curve := by_step(typed[typed["run"] == label]))
        ]
        level = (levels or {}).get(name)
        if level is not None and len(level):
            style = {"color": PALETTE["grey"], "dash": "dot", "width": 1.5}
            lines.append(Line("chance", level, style))
        drawn.append(Panel(name, lines))
    figure = over_steps(drawn, None, axis, n_columns=n_columns, place=sqrt, unit=unit)
    height = int(figure.layout.height) + _legend_height(labels, bool(levels)) - 40
    top = int(figure.layout.margin.t) - 30
    figure.update_layout(height=height, margin_t=top)
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
    figure = go.Figure()
    looks = zip(labels, cycle(COLOURS), cycle(SYMBOLS))
    spread = 0.35 if len(labels) > 1 else 0.0
    for i, (label, colour, symbol) in enumerate(looks):
        own = typed[typed["run"] == label]
        if own.empty:
            continue
        offset = spread * (2 * i / max(1, len(labels) - 1) - 1)
        values = [float(value) for value in own["value"]]
        form = ",.0f" if of_steps else "+.3f"
        figure.add_scatter(
            x=[sqrt(v) for v in values] if of_steps else values, mode="markers", name=plain(label),
            y=[places.index(row) + offset for row in own["row"]],
            marker={"color": colour, "symbol": symbol, "size": 9},
            customdata=[f"{row}: {value:{form}}{unit}"
                        for row, value in zip(own["row"], values, strict=True)],
            hovertemplate=f"{plain(label)}<br>%{{customdata}}<extra></extra>",
        )  # fmt: skip
    for edge in range(1, len(places)):
        figure.add_hline(y=edge - 0.5, line={"color": see_through(INK, 0.3), "width": 1})
    if of_steps:
        last = int(max(typed["value"])) + 1
        size = 10 ** max(0, len(str(last)) - 2)
        ticks = [step for step in range(0, last + 1, size) if step % (5 * size) == 0] or [0, last]
        spread_steps(figure, {0, last, *ticks}, _NO_PHASES, margin=0.03)
    else:
        figure.update_xaxes(zeroline=True, zerolinecolor=INK, zerolinewidth=1)
    figure.update_xaxes(title_text=axis)
    figure.update_yaxes(
        tickvals=list(range(len(places))), ticktext=[_broken(name) for name in places],
        range=[len(places) - 0.5, -0.5], showgrid=False, tickfont_size=12,
    )  # fmt: skip
    row = max(40, 9 * len(labels) + 14)
    figure.update_layout(height=150 + row * len(places) + _legend_height(labels))
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
    styles = run_styles(labels)
    symbols = islice(cycle(SYMBOLS), len(labels))
    figure = go.Figure()
    for label, symbol in zip(labels, symbols, strict=True):
        own = table[table["run"] == label].groupby("reference_step")["gain"].mean()
        if own.empty:
            continue
        figure.add_scatter(
            x=[sqrt(reference) for reference in own.index], y=list(own), name=plain(label),
            mode="lines+markers", line=styles[label], marker={"symbol": symbol, "size": 8},
            customdata=[f"{int(reference):,}" for reference in own.index],
            hovertemplate=f"{plain(label)}, reference step %{{customdata}}: %{{y:+.3f}} nats"
            "<extra></extra>",
        )  # fmt: skip
    spread_steps(figure, whole_numbers(table["reference_step"]), _NO_PHASES, margin=0.04)
    figure.update_xaxes(title_text="reference checkpoint (steps, square-root scale)")
    figure.update_yaxes(title_text="gain (nats)", zeroline=True, zerolinecolor=INK, zerolinewidth=1)
    figure.update_layout(height=400 + _legend_height(labels))
    return describe(
        figure,
        f"What attention of a reference checkpoint gains, step {step:,}",
        f"""By how much the attribute loss at training step {step:,} is lower, in nats, if a run is
        trained again with the attention of one of its own checkpoints (in all layers and heads, from
        the start), against the step of that checkpoint; a line for each run. Above zero attention
        helps, below it hurts. Look for where lines cross zero, and for runs in which they do
        elsewhere.""",
    )


def _mean_line(curves: Mapping[str, pd.Series], group: Sequence[str]) -> Line:
    """The mean of a group at the steps that all of its runs have, with the range."""
    table = pd.concat([curves[label] for label in group], axis=1).dropna()
    return Line(
        "mean" if len(group) == len(curves) else f"mean of {len(group)} seeds",
        table.mean(axis=1),
        {"color": PALETTE["grey"], "width": 4},
        low=table.min(axis=1),
        high=table.max(axis=1),
    )


def _add_strips(
    figure: go.Figure,
    phases: Mapping[str, Phases],
    tables: Mapping[str, pd.DataFrame],
    row: int,
) -> None:
    """A line for each run, as long as it was measured, with marks where its phases meet."""
    styles = run_styles(list(phases))
    every = pd.concat(tables.values())
    at = {"row": row, "col": 1}
    for y, (label, found) in enumerate(phases.items()):
        measured = whole_numbers(every.loc[every["run"] == label, "step"])
        name = plain(label)
        figure.add_scatter(
            x=[sqrt(measured[0]), sqrt(measured[-1])], y=[y, y], mode="lines", name=name,
            legendgroup=name, showlegend=False, hoverinfo="skip", line=styles[label], **at,
        )  # fmt: skip
        for end, words, symbol in _ENDS:
            step = getattr(found, end)
            if step is not None:
                figure.add_scatter(
                    x=[sqrt(step)], y=[y], mode="markers", name=f"{name}, {words}",
                    legendgroup=name, showlegend=False,
                    marker={"symbol": symbol, "size": 11, "color": styles[label]["color"],
                            "line_width": 2 if symbol.endswith("open") else 0},
                    hovertemplate=f"{name}: {words} at step {step:,}<extra></extra>", **at,
                )  # fmt: skip
        figure.add_annotation(
            text=name, x=sqrt(measured[0]), xanchor="left", y=y, yanchor="bottom", yshift=3,
            showarrow=False, font={"size": 11, "color": styles[label]["color"]}, **at,
        )  # fmt: skip
    for _, words, symbol in _ENDS:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=words, hoverinfo="skip",
            marker={"symbol": symbol, "size": 10, "color": PALETTE["grey"]},
        )  # fmt: skip
    figure.update_yaxes(
        range=[len(phases) - 0.5, -0.95], showticklabels=False, ticks="", showgrid=False,
        title_text="phases", **at,
    )  # fmt: skip


def _legend_height(labels: Sequence[str], n_others: int = 0) -> int:
    """Pixels of a legend below a figure on a phone, where one or two entries go on a line."""
    on_a_line = 1 if max(map(len, labels), default=0) > 14 else 2
    return 23 * (-(-len(labels) // on_a_line) + n_others)


def _broken(name: str) -> str:
    """A name of some words on two lines, so that it fits beside a figure on a phone."""
    words = name.split()
    if len(name) <= 16 or len(words) < 2:
        return plain(name)
    cuts = range(1, len(words))
    cut = min(cuts, key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))))
    return f"{plain(' '.join(words[:cut]))}<br>{plain(' '.join(words[cut:]))}"
