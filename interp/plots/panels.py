"""Panels of curves over training, and what the figures of several topics share.

A table is checked once (`rows`), its curves become `Line`s, and `over_steps` stacks panels of them
over the phases. Values of a grid are drawn as opacity (`SIGNED`), so that numbers on them stay
readable on light and dark pages.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, sqrt
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import InterpError
from interp.phases import Phases
from interp.plots.bands import shade_phases, spread_steps
from interp.plots.style import PALETTE, see_through

COLOURS = [PALETTE[name] for name in ("blue", "orange", "green", "purple", "grey")]
"""Colours of lines that share a panel, in order."""
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "cross")
"""Marks of lines that share a panel, in order."""
SIGNED = [
    [0, see_through(PALETTE["orange"], 0.35)],
    [0.5, see_through(PALETTE["orange"], 0.02)],
    [0.5, see_through(PALETTE["blue"], 0.02)],
    [1, see_through(PALETTE["blue"], 0.35)],
]
"""A colour scale around zero: orange below, blue above, the stronger the farther."""
ROOT_AXIS = (
    "The axis goes with the square root of steps, so that the short first phases can be read."
)
"""What a caption says of an axis with `place=math.sqrt`."""
_ROW = 118.0
"""Pixels of a row of panels with titles above them."""


@dataclass(frozen=True)
class Line:
    """A curve over training.

    Attributes:
        name: For the legend and the pointer; lines of one group may have names of their own.
        values: Its values, by step.
        style: Plotly's `line`: colour, dash, width.
        level: What to hold it against (chance, a control), by step; drawn dotted in its colour.
        low: Lower edge of a band around it, by step; with `high`.
        high: Upper edge.
        group: Entry of the legend that switches it; its name by default.
        legend: Whether it stands in the legend (once for all panels).
        symbol: Mark at every step, for curves of few points.
    """

    name: str
    values: pd.Series
    style: dict[str, Any]
    level: pd.Series | None = None
    low: pd.Series | None = None
    high: pd.Series | None = None
    group: str | None = None
    legend: bool = True
    symbol: str | None = None


@dataclass(frozen=True)
class Panel:
    """Curves that share a panel.

    Attributes:
        title: What sets it apart from the other panels.
        lines: Its curves.
    """

    title: str
    lines: Sequence[Line] = field(default_factory=list)


def rows(
    table: pd.DataFrame, columns: Sequence[str], what: str, numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """A table with the types that a CSV file loses.

    Args:
        table: Tidy, as made or read back from CSV.
        columns: The columns it must have.
        what: What it holds, for the error, e.g. "knockouts".
        numbers: Columns of whole numbers that may be NA.

    Raises:
        InterpError: a column is missing, or one of whole numbers holds something else.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise InterpError(
            f"The table of {what} lacks the columns {missing}; it has {list(table.columns)}."
        )
    typed = {}
    for column in numbers:
        try:
            typed[column] = pd.to_numeric(table[column]).astype("Int64")
        except (ValueError, TypeError) as error:
            raise InterpError(
                f"The column {column} of the table of {what} has to hold whole numbers ({error})."
            ) from error
    return table.assign(**typed)


def unit_label(number: object) -> str:
    """A head or a group of neurons as text; a CSV file turns 3 beside empty cells into 3.0."""
    return str(int(number)) if isinstance(number, float) else str(number)


def chosen(
    table: pd.DataFrame, what: str, **wanted: str | int | float | Sequence[str]
) -> pd.DataFrame:
    """The rows that have these values.

    Args:
        table: Tidy.
        what: What it holds, for the error.
        wanted: A column's value, or several of which any will do.

    Raises:
        InterpError: there is no such row.
    """
    found = table
    for column, value in wanted.items():
        several = [value] if isinstance(value, str | int | float) else list(value)
        of_value = found[found[column].isin(several)]
        if of_value.empty:
            listed = " or ".join(str(one) for one in several)
            has = sorted({str(other) for other in found[column]})
            raise InterpError(f"The table of {what} has no {column} {listed}; it has {has}.")
        found = of_value
    return found


def at_step(table: pd.DataFrame, step: int | None, what: str) -> tuple[pd.DataFrame, int]:
    """The rows of one step, by default the last, and that step.

    Raises:
        InterpError: nothing was measured at that step, or at all.
    """
    measured = whole_numbers(table["step"])
    if not measured:
        raise InterpError(f"The table of {what} has no rows to draw.")
    step = measured[-1] if step is None else step
    if step not in measured:
        raise InterpError(f"There is no row of {what} at step {step}; there is {measured}.")
    return table[table["step"] == step], step


def by_step(table: pd.DataFrame, column: str = "value") -> pd.Series:
    """The mean of a column at every step that has one."""
    return table.groupby("step")[column].mean().dropna()


def over_steps(
    panels: Sequence[Panel],
    phases: Phases | None,
    axis: str,
    *,
    n_columns: int = 1,
    place: Callable[[float], float] = float,
    level: str = "chance",
    band: str = "range",
    unit: str = "",
) -> go.Figure:
    """Panels of curves over training, with the phases behind them.

    Args:
        panels: Row by row. With one column their titles stand at the y axes, else above them.
        phases: Of the run; None where lines are of several runs, whose phases differ.
        axis: Title of the y axes, with the unit.
        n_columns: Columns of panels; those of a row share their y axis.
        place: Where a step stands on the x axis: as it is, or `math.sqrt` (see `spread_steps`).
        level: What the dotted lines are.
        band: What the bands are.
        unit: Behind a value under the pointer, e.g. " nats".

    Raises:
        InterpError: there is no line to draw.
    """
    steps = whole_numbers(step for p in panels for line in p.lines for step in line.values.index)
    if not steps:
        raise InterpError("There is no measured value to draw a curve of.")
    n_rows = -(-len(panels) // n_columns)
    titled = n_columns > 1
    title = 14 * max(panel.title.count("<br>") + 1 for panel in panels)
    space = 28.0 + title
    inner = n_rows * (_ROW + space) - space
    figure = make_subplots(
        rows=n_rows, cols=n_columns, shared_xaxes="all" if titled else True, shared_yaxes=titled,
        vertical_spacing=space / inner if titled else min(0.07, 0.5 / n_rows),
        horizontal_spacing=0.08,
    )  # fmt: skip
    shown: set[str] = set()
    for i, panel in enumerate(panels):
        at = {"row": i // n_columns + 1, "col": i % n_columns + 1}
        for line in panel.lines:
            add_line(figure, line, shown, place, (level, band, unit), at)
        if titled:
            figure.add_annotation(
                text=f"<b>{panel.title}</b>", showarrow=False, x=0, xanchor="left", y=1,
                yanchor="bottom", font_size=11, align="left", xref="x domain", yref="y domain",
                **at,
            )  # fmt: skip
        else:
            figure.update_yaxes(title_text=f"{panel.title}<br>{axis}", **at)
    figure.update_yaxes(rangemode="tozero", nticks=4 if titled else 6)
    if titled:
        figure.update_yaxes(title_text=axis, col=1)
    unit_of_axis = "training (steps)"
    if place is float:
        share_steps(figure, steps)
    else:
        ends = phases or Phases(None, None, 0.0, 0.0)
        spread_steps(figure, _few(steps, ends) if titled else steps, ends)
        unit_of_axis = unit_of_axis if titled else "training (steps, square-root scale)"
    figure.update_xaxes(title_text=unit_of_axis, row=n_rows)
    if phases is not None:
        shade_phases(figure, phases, steps[0], steps[-1], "y domain", n_columns, place)
    if titled:
        for row in range(1, n_rows + 1):
            headroom(figure, row, n_columns)
        figure.update_layout(height=round(inner) + 210, margin_t=96 + title)
        if phases is not None:
            # The titles of the first panels stand between them and the list of phases.
            figure.update_layout(legend2_y=1 + (6 + title) / inner)
    else:
        headroom(figure)
        figure.update_layout(height=170 + 215 * n_rows, margin_t=68)
    return figure


def add_line(
    figure: go.Figure,
    line: Line,
    shown: set[str],
    place: Callable[[float], float],
    words: tuple[str, str, str],
    at: dict[str, int],
) -> None:
    """A curve with its band below and its level beside it."""
    level, band, unit = words
    group = line.group or line.name
    shared: dict[str, Any] = {"legendgroup": group, **at}

    def placed(series: pd.Series) -> list[float]:
        return [place(step) for step in series.index]

    if line.low is not None and line.high is not None:
        edges = placed(line.low)
        figure.add_scatter(
            x=[*edges, *edges[::-1]], y=[*line.high, *line.low[::-1]], mode="lines", line_width=0,
            fill="toself", fillcolor=see_through(line.style["color"], 0.13), hoverinfo="skip",
            name=f"{line.name}, {band}", showlegend=False, **shared,
        )  # fmt: skip
    if line.level is not None and len(line.level):
        figure.add_scatter(
            x=placed(line.level), y=list(line.level), mode="lines", name=f"{line.name}, {level}",
            line={"color": line.style["color"], "dash": "dot", "width": 1.5}, showlegend=False,
            hovertemplate=f"{line.name}, {level}: %{{y:.3f}}{unit}<extra></extra>", **shared,
        )  # fmt: skip
    figure.add_scatter(
        x=placed(line.values), y=list(line.values), name=line.name,
        mode="lines" if line.symbol is None else "lines+markers",
        showlegend=line.legend and group not in shown, line=line.style,
        marker={"size": 7, "symbol": line.symbol or "circle"},
        customdata=[f"{step:,}" for step in line.values.index],
        hovertemplate=f"{line.name}: %{{y:.3f}}{unit} at step %{{customdata}}<extra></extra>",
        **shared,
    )  # fmt: skip
    if line.legend:
        shown.add(group)


def legend_key(figure: go.Figure, name: str, group: str | None = None, **line: Any) -> None:
    """An entry of the legend that says what a colour or a dash means, whatever the other is."""
    figure.add_scatter(
        x=[None], y=[None], mode="lines", name=name, hoverinfo="skip", legendgroup=group,
        showlegend=True, line={"color": PALETTE["grey"], "width": 2, **line},
    )  # fmt: skip


def share_steps(figure: go.Figure, steps: Sequence[int]) -> None:
    """The same steps on every x axis."""
    last = steps[-1] if steps[-1] > steps[0] else steps[0] + 1
    figure.update_xaxes(range=[steps[0], last], tickformat=",d")


def headroom(figure: go.Figure, row: int = 1, n_columns: int = 1) -> None:
    """Room above the lines of a row of panels, in the first for the numbers of the phases."""
    numbers = range((row - 1) * n_columns + 1, row * n_columns + 1)
    axes = {f"y{number}" if number > 1 else "y" for number in numbers}
    values = [
        value
        for trace in figure.data
        if (trace.yaxis or "y") in axes
        for value in trace.y
        if value is not None and not isnan(value)
    ]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    space, above = (high - low) or 1.0, 0.16 if row == 1 else 0.06
    figure.update_yaxes(range=[low - 0.04 * space if low < 0 else 0, high + above * space], row=row)


def _few(steps: Sequence[int], phases: Phases) -> list[int]:
    """Steps that have room for ticks in a narrow panel: the ends, an end of a phase, one more."""
    few = {steps[0], steps[-1]}
    width = sqrt(steps[-1]) - sqrt(steps[0])
    for step in (phases.plateau_end, phases.statistics_end, *reversed(steps)):
        if step is None or step not in steps:
            continue
        if all(abs(sqrt(step) - sqrt(other)) >= 0.27 * width for other in few):
            few.add(step)
    return sorted(few)


def in_order(values: pd.Series, first: str = "last name") -> list[str]:
    """Different values as they come, one of them first."""
    return sorted(dict.fromkeys(str(value) for value in values), key=lambda v: v != first)


def whole_numbers(values: Iterable[Any]) -> list[int]:
    """Different values, in order, as Python's integers."""
    return sorted({int(value) for value in values})
