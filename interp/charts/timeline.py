"""What holds from when to when: bars along the steps of training, a row for each place."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts.bands import shade_phases, spread_steps
from interp.charts.looks import STEPS, Axis, Look, axis_of, completed
from interp.charts.tidy import called, having, rows, values_of, whole_numbers
from interp.errors import InterpError
from interp.phases import Phases

_FULL = 0.82
"""Of a row's height that its bars take."""
_ROOM = 0.035
"""Of the axis that a stretch needs to have a sign."""


def timeline(
    table: pd.DataFrame,
    *,
    place: str,
    start: str,
    end: str,
    group: str,
    lane: str | None = None,
    words: str | None = None,
    x_axis: str | Axis = STEPS,
    place_axis: str = "",
    phases: Phases | None = None,
    signs: bool = False,
    looks: Mapping[Any, Look] | None = None,
    places: Mapping[Any, str] | None = None,
    what: str = "stretches",
) -> go.Figure:
    """Bars from a step to another, in the colour of what holds there.

    Args:
        table: A row a bar.
        place: The column that tells places apart, each a row.
        start: The column of first steps.
        end: The column of steps that bars reach to.
        group: The column of what holds there, by colour.
        lane: A column that tells bars of a place apart, one below the other (seeds).
        words: A column of what the pointer says; by default place, group and steps.
        x_axis: `STEPS`, `ROOT_STEPS`, or another axis.
        place_axis: Title of the axis of places.
        phases: Shaded behind the bars.
        signs: Whether every unbroken stretch with room for it has the mark of its group in its middle,
            so that colour is not all that tells it; a group whose look has the mark "" has none.
        looks: By the value of `group`, in the order of the legend.
        places: What places are called, in the order to draw; by default as they come.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption. Traces are called by their group, signs "…, sign".

    Raises:
        InterpError: a column is missing, or the table is empty.
    """
    wanted = [place, start, end, group, lane, words]
    found = rows(table, [name for name in wanted if name is not None], what)
    if found.empty:
        raise InterpError(f"The table of {what} has no row to draw.")
    x, order = axis_of(x_axis), values_of(found[place], places)
    lanes = [None] if lane is None else values_of(found[lane])
    first, last = float(found[start].min()), float(found[end].max())
    width = _FULL / len(lanes) * (1 if len(lanes) == 1 else 0.6)
    figure = go.Figure()
    for value, look in completed(values_of(found[group], looks), looks).items():
        own = having(found, group, value)
        name = look.name or called(group, value)
        at = [
            order.index(row) + (lanes.index(part) - (len(lanes) - 1) / 2) * _FULL / len(lanes)
            for row, part in zip(own[place], [None] * len(own) if lane is None else own[lane],
                                 strict=True)
        ]  # fmt: skip
        begins, ends = ([x.place(step) for step in own[column]] for column in (start, end))
        told = [
            f"{called(place, row, places)}: {name}, {a:,.0f} to {b:,.0f}"
            for row, a, b in zip(own[place], own[start], own[end], strict=True)
        ]
        if len(own):
            figure.add_bar(
                orientation="h", base=begins, y=at, name=name, legendgroup=name, showlegend=True,
                x=[b - a for a, b in zip(begins, ends, strict=True)], width=width,
                marker={"color": look.colour, "line_width": 0},
                customdata=told if words is None else list(own[words]),
                hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
        if signs and look.symbol:
            least = _ROOM * (x.place(last) - x.place(first))
            held = [(y, a, b) for y, a, b in _unbroken(at, begins, ends) if b - a >= least]
            figure.add_scatter(
                x=[(a + b) / 2 for _, a, b in held], y=[y for y, _, _ in held], mode="markers",
                name=f"{name}, sign", legendgroup=name, showlegend=False, hoverinfo="skip",
                marker={"symbol": look.symbol, "size": 9, "color": "#F2F4F6",
                        "line": {"color": "#22272E", "width": 1.2}},
            )  # fmt: skip
    figure.update_yaxes(
        title_text=place_axis, tickvals=list(range(len(order))), showgrid=False,
        ticktext=[called(place, value, places) for value in order],
        range=[len(order) - 0.5, -0.5 if phases is None else -0.95],
    )  # fmt: skip
    if x.scale == "root":
        spread_steps(figure, whole_numbers(found[start]), phases)
    figure.update_xaxes(
        title_text=x.title, showgrid=False, range=[x.end(first), x.end(last)],
        tickformat=",d" if x == STEPS else None,
    )  # fmt: skip
    if phases is not None:
        shade_phases(figure, phases, int(first), round(last), "y domain", place=x.place)
    figure.update_layout(
        height=(190 if phases is None else 210) + max(26, 12 * len(lanes)) * len(order),
        barmode="overlay",
        margin_t=48 if phases is None else 68,
    )
    return figure


def _unbroken(
    at: Sequence[float], begins: Sequence[float], ends: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Bars that touch in one row as one: row, beginning, end."""
    found: list[tuple[float, float, float]] = []
    for y, begin, end in sorted(zip(at, begins, ends, strict=True)):
        if found and found[-1][0] == y and found[-1][2] == begin:
            found[-1] = (y, found[-1][1], end)
        else:
            found.append((y, begin, end))
    return found
