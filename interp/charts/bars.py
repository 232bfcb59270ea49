"""Values of named places, with the range of seeds: dots or bars, in groups."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from interp.charts.facets import Facets, facets
from interp.charts.looks import Axes, Axis, Level, Look, axis_at, completed
from interp.charts.style import see_through
from interp.charts.tidy import called, having, rows, values_of
from interp.errors import InterpError
from interp.seeds import OverSeeds, over_seeds

_PLACE, _GROUP = 24, 10
_WIDE = 60
"""Letters that fit below an upright chart side by side."""


def bars(
    table: pd.DataFrame,
    *,
    axis: Axes,
    place: str,
    y: str = "value",
    group: str | None = None,
    facet: str | None = None,
    unit: str = "",
    place_axis: str = "",
    kind: Literal["dots", "bars"] = "dots",
    upright: bool = False,
    mean: bool = True,
    zero: bool = True,
    levels: Sequence[Level] = (),
    looks: Mapping[Any, Look] | None = None,
    places: Mapping[Any, str] | None = None,
    titles: Mapping[Any, str] | None = None,
    what: str = "places",
) -> go.Figure:
    """Values of named places: the mean over seeds with their range, and each seed.

    Args:
        table: Tidy; with a column `seed` where there are several. A column `symbol` marks seeds.
        axis: The axis of values, with its unit; or one for each value of `facet`.
        place: The column that tells places apart, each a row (`upright`: a column).
        y: The column of values; rows without one are not drawn.
        group: The column that tells the points of a place apart, side by side. The column `place`
            again: one point a place, in colours of their own.
        facet: The column that tells panels apart, one below the other.
        unit: Behind values under the pointer.
        place_axis: Title of the axis of places.
        kind: "dots", or "bars" from zero.
        upright: Places along the x axis, values along y.
        mean: Whether means are drawn; else seeds alone.
        zero: Whether the axis of values begins at zero.
        levels: What to compare with, across places.
        looks: By the value of `group`, in the order to draw.
        places: What places are called, in the order to draw; by default as they come.
        titles: By the value of `facet`, what panels are called, in their order.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption. Traces are called by their group, and points of seeds
        "…, a seed". Places stand at 0, 1, ... of their axis, the first at the top.

    Raises:
        InterpError: a column is missing, or there is no value to draw.
        ArgumentError: a panel has no axis.
    """
    wanted = [place, y, group, facet]
    found = rows(table, [name for name in wanted if name is not None], what)
    found = found if "seed" in found else found.assign(seed=0)
    found = found[found[y].notna()]
    if found.empty:
        raise InterpError(f"The table of {what} has no value to draw.")
    order = values_of(found[place], places)
    groups = [None] if group is None else values_of(found[group], looks)
    of_groups = completed(groups, looks)
    by_value = axis if isinstance(axis, Mapping) else None
    parts = [None] if facet is None else values_of(found[facet], titles or by_value)
    size = max(_PLACE, _GROUP * len(groups) + 14) if group != place else _PLACE
    names = [
        "" if facet is None or (by_value and v in by_value) else called(facet, v, titles)
        for v in parts
    ]
    made = facets(
        names, heights=[(300 if upright else size * len(order) + 12)] * len(parts), margin=170,
        gap=64 if by_value or upright else 44, size=12, share_x=by_value is None, share_y=False,
    )  # fmt: skip
    for panel, part in enumerate(parts):
        own = found if facet is None else having(found, facet, part)
        of_panel = axis_at(axis, [part], unit)
        for i, value in enumerate(groups):
            offset = 0.0
            if group != place and len(groups) > 1:
                offset = 0.6 * ((i + 0.5) / len(groups) - 0.5)
            _add_group(
                made, having(own, group, value), y, place, order, offset, of_groups[value],
                of_groups[value].name or ("mean" if group is None else called(group, value)),
                of_panel, panel, kind, upright, mean, 0.6 / len(groups) if group != place else 0.6,
            )  # fmt: skip
        for level in levels:
            if level.at([part]):
                _add_level(made, level, len(order), of_panel, panel, upright)
        _axes(made, panel, order, of_panel, place, place_axis, places, upright, zero)
    if by_value is None and not upright:
        made.figure.update_xaxes(title_text="")
        made.figure.update_xaxes(title_text=axis_at(axis, (), unit).title, row=made.n_rows)
    made.figure.update_layout(barmode="overlay")
    return made.figure


def _add_group(
    made: Facets,
    table: pd.DataFrame,
    y: str,
    place: str,
    order: Sequence[Any],
    offset: float,
    look: Look,
    name: str,
    axis: Axis,
    panel: int,
    kind: str,
    upright: bool,
    mean: bool,
    width: float,
) -> None:
    """The points of a group in a panel: seeds, and their means with whiskers over their range."""
    if table.empty:
        return
    figure, at = made.figure, made.at(panel)
    value_of, ends = ("%{y", "error_y") if upright else ("%{x", "error_x")

    def turned(places: list[float], values: list[float]) -> dict[str, list[float]]:
        return {"x": places, "y": values} if upright else {"x": values, "y": places}

    at_place = {value: i + offset for i, value in enumerate(order)}
    means = over_seeds(table, place, y)
    # `over_seeds` sorts; places go by the order of the chart.
    means["at"] = [at_place[value] for value in means[place]]
    means = means.sort_values("at")
    several = table["seed"].nunique() > 1 or not mean
    told = dict(zip(at_place.values(), (called(place, v) for v in order), strict=True))
    if mean:
        text = [
            f"{told[where]}{_range(row, axis)}"
            for where, (_, row) in zip(means["at"], means.iterrows(), strict=True)
        ]
        shared: dict[str, Any] = {
            "name": name, "legendgroup": name, "customdata": text, **at,
            "showlegend": made.legend(name), **turned(list(means["at"]), list(means["mean"])),
            "hovertemplate": f"{name}, %{{customdata}}: {axis.text(value_of)}<extra></extra>",
            ends: {"type": "data", "symmetric": False, "thickness": 1.2, "width": 3,
                   "array": list(means["high"] - means["mean"]), "color": look.colour,
                   "arrayminus": list(means["mean"] - means["low"]), "visible": several},
        }  # fmt: skip
        if kind == "bars":
            figure.add_bar(
                orientation="v" if upright else "h", width=width,
                marker={"color": see_through(look.colour, 0.55), "line_width": 0}, **shared,
            )  # fmt: skip
        else:
            figure.add_scatter(
                mode="markers", marker={"color": look.colour, "size": 10, "symbol": look.symbol},
                **shared,
            )  # fmt: skip
    if several:
        mark = f"{look.symbol.removesuffix('-open')}-open"
        figure.add_scatter(
            mode="markers", name=f"{name}, a seed" if mean else name, legendgroup=name,
            showlegend=False if mean else made.legend(name),
            marker={"size": 6 if mean else 8, "line_width": 1.5 if mean else 2,
                    "symbol": list(table.get("symbol", [mark] * len(table))),
                    "color": see_through(look.colour, 0.7) if mean else look.colour},
            customdata=[f"{called(place, where)}, seed {seed}"
                        for where, seed in zip(table[place], table["seed"], strict=True)],
            hovertemplate=f"{name}, %{{customdata}}: {axis.text(value_of)}<extra></extra>",
            **turned([at_place[value] for value in table[place]], [float(v) for v in table[y]]),
            **at,
        )  # fmt: skip


def _range(row: pd.Series, axis: Axis) -> str:
    """The seeds behind a mean, for the pointer."""
    seeds = OverSeeds((float(row["low"]), float(row["high"])))
    if row["n_seeds"] < 2:
        return ""
    return (
        f", mean of {int(row['n_seeds'])} seeds from {seeds.low:{axis.form}} to "
        f"{seeds.high:{axis.form}}"
    )


def _add_level(made: Facets, level: Level, n: int, axis: Axis, panel: int, upright: bool) -> None:
    """A line at a value, across all places."""
    if isinstance(level.value, pd.Series):
        across, value = [float(v) for v in level.value.index], [float(v) for v in level.value]
    else:
        across, value = [-0.5, n - 0.5], [float(level.value)] * 2
    group = level.group or level.name
    made.figure.add_scatter(
        x=across if upright else value, y=value if upright else across, mode="lines",
        name=level.name, legendgroup=group, showlegend=made.legend(group, level.legend),
        line={"color": level.colour, "dash": level.dash, "width": level.width},
        hovertemplate=f"{level.name}: {axis.text('%{y' if upright else '%{x')}<extra></extra>",
        **made.at(panel),
    )  # fmt: skip


def _axes(
    made: Facets,
    panel: int,
    order: Sequence[Any],
    axis: Axis,
    place: str,
    place_axis: str,
    places: Mapping[Any, str] | None,
    upright: bool,
    zero: bool,
) -> None:
    names = [called(place, value, places) for value in order]
    ends = [-0.5, len(order) - 0.5]
    named: dict[str, Any] = {
        "tickvals": list(range(len(order))), "ticktext": names, "tickfont_size": 11,
        "showgrid": False, "title_text": place_axis, "range": ends if upright else ends[::-1],
    }  # fmt: skip
    valued: dict[str, Any] = {
        "title_text": axis.title, "nticks": 6, "showticklabels": True,
        "rangemode": "tozero" if zero else "normal",
        "tickformat": ",d" if axis.form.endswith(".0f") else None,
        "type": "log" if axis.scale == "log" else None,
        "range": None if axis.range is None else list(axis.range),
    }  # fmt: skip
    at = made.at(panel)
    made.figure.update_xaxes(**(named if upright else valued), **at)
    made.figure.update_yaxes(**(valued if upright else named), **at)
    if upright:
        made.figure.update_xaxes(tickangle=-60 if sum(map(len, names)) > _WIDE else 0, **at)
