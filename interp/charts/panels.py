"""Lines in panels that share an x axis: what `curves` draws from a table, for lines made otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts.bands import shade_phases, spread_steps
from interp.charts.facets import Facets, facets, headroom
from interp.charts.looks import STEPS, Axis, Level
from interp.charts.style import PALETTE, see_through
from interp.charts.tidy import whole_numbers
from interp.errors import InterpError
from interp.phases import Phases

_ROW, _GAP = 195.0, 30.0
"""Pixels of a panel whose title stands at its y axis, and between two of them."""


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        name: For the legend and the pointer; lines of one group may have names of their own.
        values: Its values, by x.
        style: Plotly's `line`: colour, dash, width.
        level: What to hold it against (chance, a control), by x; drawn dotted in its colour.
        low: Lower edge of a band around it, by x; with `high`.
        high: Upper edge.
        group: Entry of the legend that switches it; its name by default.
        legend: Whether it stands in the legend (once for all panels).
        symbol: Mark at every x, for curves of few points.
        points: What it is the mean of, each drawn as a point: columns `x`, `y`, `seed` and, where
            some look different, `symbol`.
        entry: What the legend calls it; its name by default.
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
    points: pd.DataFrame | None = None
    entry: str | None = None


@dataclass(frozen=True)
class Panel:
    """Curves that share a panel.

    Attributes:
        title: What sets it apart from the other panels.
        lines: Its curves.
        axis: Its y axis, where panels differ in theirs.
        levels: Drawn across it.
    """

    title: str
    lines: Sequence[Line] = field(default_factory=list)
    axis: Axis | None = None
    levels: Sequence[Level] = ()


def draw(
    panels: Sequence[Panel],
    axis: Axis | None = None,
    *,
    x: Axis = STEPS,
    phases: Phases | None = None,
    n_columns: int = 1,
    level: str = "chance",
    band: str = "range",
    heights: Sequence[float | int] | None = None,
) -> go.Figure:
    """Panels of lines, with the phases behind them where x is steps.

    Args:
        panels: Row by row. With one column their titles stand at the y axes, else above them.
        axis: The y axis of panels that have none of their own.
        x: The x axis. On a square-root scale values stand at their roots, with true ones as ticks.
        phases: Of the run; None where lines are of several runs, whose phases differ.
        n_columns: Columns of panels; those of a row share their y axis if they all have `axis`.
        level: What the dotted lines are.
        band: What the bands are.
        heights: Of the rows, in pixels.

    Raises:
        InterpError: there is no line to draw.
    """
    places = sorted({float(at) for p in panels for line in p.lines for at in line.values.index})
    if not places:
        raise InterpError("There is no measured value to draw a curve of.")
    titled = n_columns > 1
    own = any(panel.axis is not None for panel in panels)
    named = Axis("value") if axis is None else axis
    if titled:
        titles = [_above(panel) for panel in panels]
        made = facets(titles, n_columns=n_columns, heights=heights, share_y=not own)
    else:
        rows = list(heights or [_ROW] * len(panels))
        # Many low panels stand close together.
        gap = min(_GAP, 0.15 * min(rows))
        made = facets([""] * len(panels), heights=rows, gap=gap, margin=170)
        made.figure.update_layout(margin_t=68)
    figure = made.figure
    for panel, at in zip(panels, made, strict=True):
        of_panel = panel.axis or named
        for line in panel.lines:
            add_line(made, line, at, x=x, y=of_panel, level=level, band=band)
        for one in panel.levels:
            add_level(made, one, at, (places[0], places[-1]), x, of_panel)
        if not titled:
            words = [panel.title, of_panel.title] if panel.title else [of_panel.title]
            figure.update_yaxes(title_text="<br>".join(words), **at)
    figure.update_yaxes(rangemode="tozero", nticks=4 if titled else 6)
    if titled and not own:
        figure.update_yaxes(title_text=named.title, col=1)
    _x_axes(made, places, x, phases, titled)
    for i, (panel, at) in enumerate(zip(panels, made, strict=True)):
        of_panel = panel.axis or named
        figure.update_yaxes(**of_panel.options, **at)
        scaled = of_panel.range is not None or of_panel.scale == "log"
        if not scaled and (own or i % n_columns == 0):
            headroom(figure, at["row"], n_columns, column=at["col"] if own and titled else 0)
    if phases is not None and titled:
        # The titles of the first panels stand between them and the list of phases.
        lines = max(title.count("<br>") + 1 for title in titles)
        figure.update_layout(legend2_y=1 + (6 + 14 * lines) / made.inner, margin_t=96 + 14 * lines)
    return figure


def add_line(
    made: Facets,
    line: Line,
    at: Mapping[str, int],
    *,
    x: Axis = STEPS,
    y: Axis,
    level: str = "chance",
    band: str = "range",
) -> None:
    """A curve with its band below, its level beside it, and the points it is the mean of.

    Args:
        made: The panels.
        line: The curve.
        at: The panel: `row` and `col`.
        x: The x axis.
        y: The y axis.
        level: What the dotted line is.
        band: What the band is.
    """
    figure = made.figure
    group = line.group or line.name
    shared: dict[str, Any] = {"legendgroup": group, **at}
    colour = line.style.get("color", PALETTE["grey"])

    def placed(values: Sequence[Any] | pd.Index | pd.Series) -> list[float]:
        return [x.place(value) for value in values]

    def told(values: Sequence[Any] | pd.Index | pd.Series) -> list[str]:
        return [f"{x.words} {_number(value, x)}" for value in values]

    if line.low is not None and line.high is not None:
        edges = placed(line.low.index)
        figure.add_scatter(
            x=[*edges, *edges[::-1]], y=[*line.high, *line.low[::-1]], mode="lines", line_width=0,
            fill="toself", fillcolor=see_through(colour, 0.13), hoverinfo="skip",
            name=f"{line.name}, {band}", showlegend=False, **shared,
        )  # fmt: skip
    if line.level is not None and len(line.level):
        figure.add_scatter(
            x=placed(line.level.index), y=list(line.level), mode="lines",
            name=f"{line.name}, {level}", showlegend=False,
            line={"color": colour, "dash": "dot", "width": 1.5},
            hovertemplate=f"{line.name}, {level}: {y.text()}<extra></extra>", **shared,
        )  # fmt: skip
    if line.points is not None:
        seeds, mark = line.points["seed"], f"{line.symbol or 'circle'}-open"
        figure.add_scatter(
            x=placed(line.points["x"]), y=list(line.points["y"]), mode="markers",
            name=f"{line.name}, a seed", showlegend=False,
            marker={"color": see_through(colour, 0.55), "size": 6, "line_width": 1.5,
                    "symbol": list(line.points.get("symbol", [mark] * len(seeds)))},
            customdata=[f"{where}, seed {seed}"
                        for where, seed in zip(told(line.points["x"]), seeds, strict=True)],
            hovertemplate=f"{line.name}, %{{customdata}}: {y.text()}<extra></extra>", **shared,
        )  # fmt: skip
    figure.add_scatter(
        x=placed(line.values.index), y=list(line.values), name=line.entry or line.name,
        mode="lines" if line.symbol is None else "lines+markers",
        showlegend=made.legend(group, line.legend), line=line.style,
        marker={"size": 7, "symbol": line.symbol or "circle"},
        customdata=told(line.values.index),
        hovertemplate=f"{line.name}: {y.text()} at %{{customdata}}<extra></extra>", **shared,
    )  # fmt: skip
    if y.best is not None and len(line.values):
        best = line.values[line.values == getattr(line.values, y.best)()]
        figure.add_scatter(
            x=placed(best.index), y=list(best), mode="markers", name=f"{line.name}, best mean",
            showlegend=False, marker={"color": colour, "size": 15, "symbol": "star"},
            customdata=told(best.index),
            hovertemplate=f"{line.name}: best mean at %{{customdata}}, {y.text()}<extra></extra>",
            **shared,
        )  # fmt: skip


def add_level(
    made: Facets,
    level: Level,
    at: Mapping[str, int],
    ends: tuple[float, float],
    x: Axis,
    y: Axis,
    *,
    upright: bool = True,
) -> None:
    """A level across a panel, or along the x that it is given for.

    Args:
        made: The panels.
        level: The level.
        at: The panel: `row` and `col`.
        ends: How far it reaches along x.
        x: The axis that it goes along.
        y: The axis of its value.
        upright: Whether y is plotly's y.
    """
    value = level.value
    if not isinstance(value, pd.Series):
        value = pd.Series([value, value], index=ends)
    group = level.group or level.name
    along, values = [x.place(place) for place in value.index], [y.place(one) for one in value]
    made.figure.add_scatter(
        x=along if upright else values, y=values if upright else along, mode="lines",
        name=level.name, legendgroup=group, showlegend=made.legend(group, level.legend),
        line=level.line, customdata=[f"{level.name}: {y.said(one)}" for one in value],
        hovertemplate="%{customdata}<extra></extra>", **at,
    )  # fmt: skip


def _x_axes(
    made: Facets, places: list[float], x: Axis, phases: Phases | None, titled: bool
) -> None:
    figure = made.figure
    first, last = places[0], places[-1]
    title = x.title
    if x.scale == "root":
        ends = phases or Phases(None, None, 0.0, 0.0)
        steps = whole_numbers(places)
        spread_steps(figure, _few(steps, ends) if titled else steps, ends)
        # A narrow panel has no room for more.
        title = title.replace(", square-root scale", "") if titled else title
    elif x == STEPS:
        figure.update_xaxes(range=[first, last if last > first else first + 1], tickformat=",d")
    else:
        figure.update_xaxes(**x.options)
    figure.update_xaxes(title_text=title, row=made.n_rows)
    if phases is not None:
        shade_phases(figure, phases, int(first), int(last), "y domain", made.n_columns, x.place)


def _above(panel: Panel) -> str:
    """The title above a panel; a y axis of its own is told there too."""
    words = [panel.title] if panel.title else []
    return "<br>".join([*words, panel.axis.title] if panel.axis is not None else words)


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


def _number(value: Any, axis: Axis) -> str:
    return f"{float(value):{axis.form}}" if axis.form != ".3f" else f"{float(value):,g}"


def legend_key(
    figure: go.Figure,
    name: str,
    group: str | None = None,
    *,
    symbol: str | None = None,
    **line: Any,
) -> None:
    """An entry of the legend that says what a colour, a dash or a mark means, whatever else differs."""
    figure.add_scatter(
        x=[None], y=[None], mode="lines" if symbol is None else "markers", name=name,
        hoverinfo="skip", legendgroup=group, showlegend=True,
        line={"color": PALETTE["grey"], "width": 2, **line},
        marker={"symbol": symbol, "size": 10, "color": PALETTE["grey"]},
    )  # fmt: skip
