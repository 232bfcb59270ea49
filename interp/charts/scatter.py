"""Points of two numbers: with the range of seeds, a line to compare with, log axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts.facets import Facets, facets
from interp.charts.looks import Axis, Look, axis_of, completed, whiskers
from interp.charts.panels import Line, add_line
from interp.charts.style import PALETTE, see_through
from interp.charts.tidy import called, having, rows, values_of
from interp.errors import InterpError
from interp.seeds import over_seeds

_BESIDE = ("top right", "bottom left", "bottom right", "top left")
"""Where labels stand, in turn: those of neighbours differ."""


def scatter(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    x_axis: str | Axis,
    axis: str | Axis,
    unit: str = "",
    group: str | None = None,
    label: str | None = None,
    seeds: bool = False,
    identity: bool = False,
    lines: Sequence[Line] = (),
    looks: Mapping[Any, Look] | None = None,
    text: bool = False,
    path: bool = False,
    height: int = 460,
    what: str = "points",
) -> go.Figure:
    """A point for each row, or for each label its mean over seeds with whiskers over their range.

    Args:
        table: Tidy; rows that lack one of the two numbers are not drawn.
        x: The column of the x axis.
        y: The column of the y axis.
        x_axis: The x axis, with its unit; `Axis` for log.
        axis: The y axis, with its unit; `Axis` for log.
        unit: Behind values under the pointer, of both axes.
        group: The column that tells groups apart, by colour and mark.
        label: The column that says what a point is.
        seeds: Whether points are means over the column `seed`, one for each label of a group.
        identity: A dotted line where both numbers are equal; both axes then have one range.
        lines: Fits and other lines, with their bands, by x.
        looks: By the value of `group`, in the order to draw.
        text: Whether labels stand beside their points.
        path: Whether the points of a group are connected, in the order of the table.
        height: Of the figure, in pixels.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption. Traces are called by their group.

    Raises:
        InterpError: a column is missing, or there is no point to draw.
    """
    wanted = [x, y, group, label, "seed" if seeds else None]
    found = rows(table, [name for name in wanted if name is not None], what)
    found = found[found[x].notna() & found[y].notna()]
    if found.empty:
        raise InterpError(f"The table of {what} has nothing to draw.")
    across, up = axis_of(x_axis, unit), axis_of(axis, unit)
    made = facets([""], heights=[height - 100], margin=100)
    figure = made.figure
    if identity:
        _identity(made, found, x, y, across)
    for line in lines:
        add_line(made, line, made.at(0), x=across, y=up)
    groups = [None] if group is None else values_of(found[group], looks)
    of_groups = completed(groups, looks)
    for value in groups:
        own, look = having(found, group, value), of_groups[value]
        name = look.name or (what if group is None else called(str(group), value))
        errors: dict[str, Any] = {}
        if seeds:
            own, errors = _means(own, {x: across, y: up}, label, look.colour)
        told = [""] * len(own) if label is None else [f", {v}" for v in own[label]]
        if "symbol" in own:
            symbol: Any = list(own["symbol"])
        else:
            symbol = look.symbol
        figure.add_scatter(
            x=[across.place(v) for v in own[x]], y=[up.place(v) for v in own[y]], name=name,
            mode="+".join(["markers", *(["lines"] if path else []), *(["text"] if text else [])]),
            line={"color": look.colour, "dash": look.dash, "width": 1.5},
            text=None if label is None else [str(v) for v in own[label]],
            textposition=[_BESIDE[i % len(_BESIDE)] for i in range(len(own))],
            showlegend=group is not None or bool(lines), customdata=told,
            marker={"color": see_through(look.colour, 0.75), "size": 8, "symbol": symbol},
            hovertemplate=f"{name}%{{customdata}}: {across.words} {across.text('%{x')}, "
            f"{up.words} {up.text()}<extra></extra>",
            **errors,
        )  # fmt: skip
    for update, of_axis in ((figure.update_xaxes, across), (figure.update_yaxes, up)):
        update(title_text=of_axis.title, nticks=6, **of_axis.options)
    return figure


def _means(
    table: pd.DataFrame, axes: Mapping[str, Axis], label: str | None, colour: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The mean point of each label, and whiskers from its lowest to its highest seed."""
    own = table if label is not None else table.assign(point="")
    by = label or "point"
    order = pd.Index(own[by].unique(), name=by)
    means = {name: over_seeds(own, by, name).set_index(by).reindex(order) for name in axes}
    errors = {
        end: whiskers(means[name], axis, colour)
        for end, (name, axis) in zip(("error_x", "error_y"), axes.items(), strict=True)
    }
    return pd.DataFrame(
        {name: of_one["mean"] for name, of_one in means.items()}
    ).reset_index(), errors


def _identity(made: Facets, table: pd.DataFrame, x: str, y: str, axis: Axis) -> None:
    """A dotted line where x and y are equal, over the range of both."""
    both = pd.concat([table[x], table[y]]).astype(float)
    low, high = float(both.min()), float(both.max())
    if axis.scale == "log":
        ends = [low / 1.1, high * 1.1]
    else:
        space = 0.05 * ((high - low) or 1.0)
        ends = [low - space, high + space]
    made.figure.add_scatter(
        x=ends, y=ends, mode="lines", name="equal", hoverinfo="skip",
        line={"color": PALETTE["grey"], "dash": "dot", "width": 1.5},
    )  # fmt: skip
    limits = [axis.end(end) for end in ends]
    made.figure.update_xaxes(range=limits)
    made.figure.update_yaxes(range=limits)
