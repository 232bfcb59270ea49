"""Values of named places, with the range of seeds: dots or bars, in groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from interp.charts.bands import root_ticks, round_steps
from interp.charts.facets import Facets, facets
from interp.charts.looks import Axes, Axis, Level, Look, axis_at, completed, whiskers
from interp.charts.panels import add_level
from interp.charts.style import see_through
from interp.charts.tidy import called, having, rows, values_of
from interp.errors import InterpError
from interp.seeds import over_seeds

_PLACE, _GROUP = 24, 10
_LINE = 17
_PLACES = Axis("places")
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
    words: str | None = None,
    what: str = "places",
) -> go.Figure:
    """Values of named places: the mean over seeds with their range, and each seed.

    Args:
        table: Tidy; with a column `seed` where there are several. A column `symbol` marks seeds.
        axis: The axis of values, with its unit; or one for each value of `facet`.
        place: The column that tells places apart, each a row (`upright`: a column).
        y: The column of values; rows without one are not drawn.
        group: The column that tells points apart by colour and mark; side by side where a place has
            several.
        facet: The column that tells panels apart, one below the other.
        unit: Behind values under the pointer.
        place_axis: Title of the axis of places.
        kind: "dots", or "bars" from zero.
        upright: Places along the x axis, values along y.
        mean: Whether means are drawn; else seeds alone.
        zero: Whether the axis of values begins at zero.
        levels: What to compare with, across places.
        looks: By the value of `group`, in the order to draw.
        places: What places are called, in the order to draw, those without a value too; by default
            as they come.
        titles: By the value of `facet`, what panels are called, in their order.
        words: A column of what the pointer adds to a seed.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption. Traces are called by their group, and points of seeds
        "…, a seed". Places stand at 0, 1, ... of their axis, the first at the top.

    Raises:
        InterpError: a column is missing, or there is no place to draw.
        ArgumentError: a panel has no axis.
    """
    wanted = [place, y, group, facet, words]
    found = rows(table, [name for name in wanted if name is not None], what)
    found = found if "seed" in found else found.assign(seed=0)
    found = found[found[y].notna()]
    order = list(dict.fromkeys([*(places or {}), *values_of(found[place])]))
    if not order:
        raise InterpError(f"The table of {what} has no value to draw.")
    groups = [None] if group is None else values_of(found[group], looks)
    of_groups = completed(groups, looks)
    by_value = axis if isinstance(axis, Mapping) else None
    parts = [None] if facet is None else values_of(found[facet], titles or by_value)
    crowded = group is not None and found.groupby(place)[group].nunique().max() > 1
    n_beside = len(groups) if crowded else 1
    names = [called(place, value, places) for value in order]
    size = max(_PLACE, _GROUP * n_beside + 14, _LINE * max(n.count("<br>") + 1 for n in names))
    made = facets(
        ["" if facet is None or (by_value and v in by_value) else called(facet, v, titles)
         for v in parts],
        heights=[(300 if upright else size * len(order) + 12)] * len(parts), margin=170,
        gap=64 if by_value or upright else 44, size=12, share_x=by_value is None, share_y=False,
    )  # fmt: skip
    chart = _Chart(made, place, y, order, upright, kind, mean, 0.6 / n_beside, words)
    for panel, part in enumerate(parts):
        own = found if facet is None else having(found, facet, part)
        of_panel = axis_at(axis, [part], unit)
        for i, value in enumerate(groups):
            offset = 0.6 * ((i + 0.5) / n_beside - 0.5) if crowded else 0.0
            look = of_groups[value]
            name = look.name or ("mean" if group is None else called(group, value))
            chart.add(having(own, group, value), offset, look, name, of_panel, panel)
        for level in levels:
            if level.at([part]):
                ends = (-0.5, len(order) - 0.5)
                add_level(made, level, made.at(panel), ends, _PLACES, of_panel, upright=upright)
        highest = float(own[y].max()) if len(own) else 1.0
        chart.axes(panel, names, of_panel, place_axis, zero, highest)
    if by_value is None and not upright:
        made.figure.update_xaxes(title_text="")
        made.figure.update_xaxes(title_text=axis_at(axis, (), unit).title, row=made.n_rows)
    made.figure.update_layout(barmode="overlay")
    return made.figure


@dataclass(frozen=True)
class _Chart:
    """What all groups and panels of a chart share; see `bars`."""

    made: Facets
    place: str
    y: str
    order: Sequence[Any]
    upright: bool
    kind: str
    mean: bool
    width: float
    words: str | None

    def add(
        self, table: pd.DataFrame, offset: float, look: Look, name: str, axis: Axis, panel: int
    ) -> None:
        """The points of a group in a panel: seeds, and their means with whiskers over their range."""
        if table.empty:
            return
        figure, place, y = self.made.figure, self.place, self.y
        several = table["seed"].nunique() > 1 or not self.mean
        shared: dict[str, Any] = {
            "legendgroup": name, "hovertemplate": "%{customdata}<extra></extra>",
            **self.made.at(panel),
        }  # fmt: skip
        if self.mean:
            means = over_seeds(table, place, y).set_index(place)
            # `over_seeds` sorts; places go by the order of the chart.
            means = means.loc[[value for value in self.order if value in means.index]]
            ends = {**whiskers(means, axis, look.colour), "visible": several}
            shown: dict[str, Any] = {
                "name": name, "showlegend": self.made.legend(name),
                "error_y" if self.upright else "error_x": ends, **shared,
                **self._turned([self._at(value) + offset for value in means.index],
                               [axis.place(value) for value in means["mean"]]),
                "customdata": [
                    f"{name}, {called(place, value)}{_range(row, axis)}: {axis.said(row['mean'])}"
                    for value, row in means.iterrows()
                ],
            }  # fmt: skip
            if self.kind == "bars":
                figure.add_bar(
                    orientation="v" if self.upright else "h", width=self.width,
                    marker={"color": see_through(look.colour, 0.55), "line_width": 0}, **shown,
                )  # fmt: skip
            else:
                figure.add_scatter(
                    mode="markers",
                    marker={"color": look.colour, "size": 10, "symbol": look.symbol}, **shown,
                )  # fmt: skip
        if several:
            mark = f"{look.symbol.removesuffix('-open')}-open"
            more = (
                [""] * len(table) if self.words is None else [f", {w}" for w in table[self.words]]
            )
            figure.add_scatter(
                mode="markers", name=f"{name}, a seed" if self.mean else name,
                showlegend=False if self.mean else self.made.legend(name),
                marker={"size": 6 if self.mean else 8, "line_width": 1.5 if self.mean else 2,
                        "symbol": list(table.get("symbol", [mark] * len(table))),
                        "color": see_through(look.colour, 0.7) if self.mean else look.colour},
                customdata=[
                    f"{name}, {called(place, where)}, seed {seed}: {axis.said(value)}{added}"
                    for where, seed, value, added in zip(
                        table[place], table["seed"], table[y], more, strict=True
                    )
                ],
                **self._turned([self._at(value) + offset for value in table[place]],
                               [axis.place(value) for value in table[y]]),
                **shared,
            )  # fmt: skip

    def axes(
        self, panel: int, names: list[str], axis: Axis, place_axis: str, zero: bool, highest: float
    ) -> None:
        """Places and values of a panel."""
        ends = [-0.5, len(names) - 0.5]
        named: dict[str, Any] = {
            "tickvals": list(range(len(names))), "ticktext": names, "tickfont_size": 11,
            "showgrid": False, "title_text": place_axis, "range": ends if self.upright else ends[::-1],
        }  # fmt: skip
        valued: dict[str, Any] = {
            "title_text": axis.title, "nticks": 6, "showticklabels": True,
            "rangemode": "tozero" if zero else "normal",
            **axis.options,
        }  # fmt: skip
        if axis.scale == "root":
            first, last = axis.range or (0, highest)
            valued |= root_ticks(round_steps(first, last), margin=0.03)
        x, y = (named, valued) if self.upright else (valued, named)
        if self.upright:
            x["tickangle"] = -60 if sum(map(len, names)) > _WIDE else 0
        self.made.figure.update_xaxes(**x, **self.made.at(panel))
        self.made.figure.update_yaxes(**y, **self.made.at(panel))

    def _at(self, place: Any) -> int:
        return self.order.index(place)

    def _turned(self, places: list[float], values: list[float]) -> dict[str, list[float]]:
        return {"x": places, "y": values} if self.upright else {"x": values, "y": places}


def _range(row: pd.Series, axis: Axis) -> str:
    """The seeds behind a mean, for the pointer."""
    if row["n_seeds"] < 2:
        return ""
    return (
        f", mean of {int(row['n_seeds'])} seeds from {row['low']:{axis.form}} to "
        f"{row['high']:{axis.form}}"
    )
