"""Maps of cells: one matrix or several that share a colour range.

Values are drawn as opacity, not lightness, so that numbers on them stay readable on light and dark
pages: orange below zero, blue above, the stronger the farther.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts.facets import Facets, facets
from interp.charts.looks import Axis, axis_of
from interp.charts.style import INK, PALETTE, see_through
from interp.charts.tidy import rows as checked
from interp.errors import ArgumentError, InterpError

SIGNED = [
    [0, see_through(PALETTE["orange"], 0.35)],
    [0.5, see_through(PALETTE["orange"], 0.02)],
    [0.5, see_through(PALETTE["blue"], 0.02)],
    [1, see_through(PALETTE["blue"], 0.35)],
]
"""A colour scale around zero: orange below, blue above, the stronger the farther."""
SEQUENTIAL = [[0, see_through(PALETTE["blue"], 0.02)], [1, see_through(PALETTE["blue"], 0.5)]]
"""A colour scale from the lowest value to the highest."""
LEGIBLE = 12
"""With more columns than these, all maps of a row together, numbers do not fit into the cells."""
CROSSED = "Crossed cells: not measured."
"""What a caption says of a figure for which `has_missing` holds."""
_CELL, _FLAT = 36.0, 30.0


def matrix(
    table: pd.DataFrame, *, row: str, column: str, value: str = "value", what: str = "cells"
) -> pd.DataFrame:
    """A tidy table as a matrix, rows and columns in the order in which they come.

    Args:
        table: A row a cell; columns `row`, `column` and `value`.
        row: Tells rows apart.
        column: Tells columns apart.
        value: What cells hold.
        what: What the table holds, for errors.

    Returns:
        [row, column]; NaN where there is no cell.

    Raises:
        InterpError: a column is missing, or a cell is there more than once.
    """
    found = checked(table, [row, column, value], what)
    twice = found[found.duplicated([row, column])]
    if len(twice):
        raise InterpError(
            f"The table of {what} has the cell {twice[row].iloc[0]}, {twice[column].iloc[0]} more "
            "than once; give one model, checkpoint and metric."
        )
    values = found.pivot(index=row, columns=column, values=value).astype(float)
    return values.reindex(index=found[row].unique(), columns=found[column].unique())


def heatmap(
    maps: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    axis: str | Axis,
    rows: str,
    columns: str,
    unit: str = "",
    signed: bool = True,
    upward: bool = False,
    until: Any = None,
    beside: bool = False,
    texts: Mapping[str, Sequence[Sequence[str]]] | None = None,
    told: bool = False,
    names: Mapping[str, str] | None = None,
    bar: bool = True,
) -> go.Figure:
    """Maps of cells, all with one colour range and one colour bar.

    Args:
        maps: A matrix with labels as its index and columns, or several by their title.
        axis: What cells hold, with the unit: at the colour bar. Its `range` is that of the colours; by
            default as far as values reach.
        rows: Title of the rows' axis.
        columns: Title of the columns' axis.
        unit: Behind a value under the pointer.
        signed: A scale around zero, else one from the lowest value to the highest.
        upward: The first row at the bottom (layers), else at the top.
        until: The last column to draw (the position that is read: what comes after it cannot change
            what is read); by default the last that has a value in some map.
        beside: Maps side by side with the same rows, else one below the other with the same columns.
        texts: What cells say, by the title of the map; by default their numbers, where columns are few.
        told: Whether the pointer tells texts too, in place of values.
        names: What a map is called in `name` and under the pointer; by default its title.
        bar: Whether there is a colour bar.

    Returns:
        The figure, without title and caption. Cells that were not measured are crossed.

    Raises:
        ArgumentError: there is no map, no value, or no column `until`.
    """
    every = {"": maps} if isinstance(maps, pd.DataFrame) else dict(maps)
    shown = {title: _until(values.astype(float), until) for title, values in every.items()}
    cells = [values.to_numpy() for values in shown.values()]
    measured = np.concatenate([part.ravel() for part in cells]) if cells else np.array([])
    measured = measured[np.isfinite(measured)]
    if not len(measured):
        raise ArgumentError("A heatmap needs at least one map with a value.")
    shown = _used(shown, beside) if until is None else shown
    of_cells = axis_of(axis, unit, ".3f")
    made = _panels(shown, beside, texts is not None)
    figure = made.figure
    high = max(1e-9, float(abs(measured).max()) if signed else float(measured.max()))
    low = -high if signed else float(measured.min())
    low, high = of_cells.range or (low, high)
    in_row = [len(v.columns) for v in shown.values()]
    legible = (sum(in_row) if beside else max(in_row)) <= LEGIBLE
    for panel, (title, values) in enumerate(shown.items()):
        name = (names or {}).get(title, title) or of_cells.words
        text = texts.get(title) if texts is not None else None
        pointer = f"{of_cells.words} %{{text}} {of_cells.unit}" if told else of_cells.text("%{z")
        figure.add_heatmap(
            z=values.to_numpy().tolist(), x=list(values.columns), y=list(values.index), name=name,
            coloraxis="coloraxis", xgap=2, ygap=2, text=text, hoverongaps=False,
            texttemplate="%{text}" if text is not None else "%{z:.2f}" if legible else None,
            textfont={"color": INK, "size": 11},
            hovertemplate=f"{name}, %{{y}}, %{{x}}: {pointer}<extra></extra>",
            **made.at(panel),
        )  # fmt: skip
        _cross(figure, values, made.at(panel))
    figure.update_layout(
        coloraxis={
            "cmin": low, "cmax": high, "colorscale": SIGNED if signed else SEQUENTIAL,
            "showscale": bar,
            "colorbar": {"title": {"text": of_cells.title, "side": "right", "font_size": 12},
                         "thickness": 12, "outlinewidth": 0, "nticks": 5, "xpad": 6,
                         "tickfont_size": 11},
        }
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, type="category", tickfont_size=11)
    figure.update_yaxes(showgrid=False, type="category", tickfont_size=11)
    figure.update_yaxes(autorange=True if upward else "reversed")
    figure.update_xaxes(title_text=columns or None, **({} if beside else {"row": made.n_rows}))
    figure.update_yaxes(title_text=rows or None, **({"col": 1} if beside else {}))
    return figure


def has_missing(figure: go.Figure) -> bool:
    """Whether a heatmap has cells that were not measured; a caption then tells `CROSSED`."""
    return any(shape.name == "not measured" for shape in figure.layout.shapes)


def _until(values: pd.DataFrame, until: Any) -> pd.DataFrame:
    if until is None:
        return values
    if until not in values:
        raise ArgumentError(f"There is no column {until!r} to stop at; there is {list(values)}.")
    return values.iloc[:, : list(values.columns).index(until) + 1]


def _used(shown: Mapping[str, pd.DataFrame], beside: bool) -> dict[str, pd.DataFrame]:
    """Maps without columns behind the last that has a value, in any of those below one another."""
    last = {title: _last(values) for title, values in shown.items()}
    if not beside:
        last = dict.fromkeys(last, max(last.values()))
    return {title: values.iloc[:, : last[title]] for title, values in shown.items()}


def _last(values: pd.DataFrame) -> int:
    with_value = np.flatnonzero(values.notna().any(axis=0).to_numpy())
    return int(with_value[-1]) + 1 if len(with_value) else 0


def _panels(shown: Mapping[str, pd.DataFrame], beside: bool, tall: bool) -> Facets:
    counts = [len(values) for values in shown.values()]
    cell = _CELL if tall else _FLAT
    if beside:
        return facets(
            list(shown), n_columns=len(shown), heights=[cell * max(counts)], size=12,
            widths=[len(values.columns) for values in shown.values()], margin=180, share_x=False,
            beside=0.12 / len(shown),
        )  # fmt: skip
    return facets(
        list(shown), heights=[cell * count for count in counts], gap=24, size=12, margin=180
    )


def _cross(figure: go.Figure, values: pd.DataFrame, at: Mapping[str, int]) -> None:
    """Crosses out the cells that were not measured."""
    missing = np.argwhere(values.isna().to_numpy())
    if not len(missing):
        return
    strokes = [
        f"M{x - 0.18} {y - sign * 0.18}L{x + 0.18} {y + sign * 0.18}"
        for y, x in missing.tolist()
        for sign in (1, -1)
    ]
    figure.add_shape(
        type="path", path="".join(strokes), name="not measured", layer="above",
        line={"color": see_through(PALETTE["grey"], 0.6), "width": 1}, **at,
    )  # fmt: skip
