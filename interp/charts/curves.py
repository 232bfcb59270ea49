"""Curves over training, or over any other number, from a tidy table."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from interp.charts.looks import STEPS, Axes, Axis, Level, Look, axis_at, axis_of, completed
from interp.charts.panels import Line, Panel, draw, legend_key
from interp.charts.tidy import called, having, rows, values_of
from interp.errors import ArgumentError
from interp.phases import Phases
from interp.seeds import over_seeds


def curves(
    table: pd.DataFrame,
    *,
    axis: Axes,
    x: str = "step",
    y: str = "value",
    line: str | None = None,
    dash: str | None = None,
    facet: str | None = None,
    column: str | None = None,
    unit: str = "",
    x_axis: str | Axis = STEPS,
    phases: Phases | None = None,
    seeds: bool | str = False,
    spread: Literal["band", "points", "each"] = "band",
    level: str | None = None,
    levels: Sequence[Level] = (),
    looks: Mapping[Any, Look] | None = None,
    dashes: Mapping[Any, tuple[str, str]] | None = None,
    titles: Mapping[Any, str] | None = None,
    marks: bool = False,
    n_columns: int | None = None,
    heights: Sequence[float | int] | None = None,
    what: str = "curves",
) -> go.Figure:
    """Curves of a tidy table: a line for each value of a column, panels for each value of others.

    Args:
        table: Tidy. Values of one line at one x are averaged (but with `spread="each"`); rows without a
            value are not drawn.
        axis: The y axis, with its unit; or one for each value of `facet` or `column`, in the order
            of the panels.
        x: The column of the x axis.
        y: The column of values.
        line: The column that tells lines apart, by colour, dash and mark.
        dash: A column that tells them apart by dash alone; colours then go by `line`, and the legend
            names both.
        facet: The column that tells panels apart (rows of panels, if there is `column`).
        column: The column that tells columns of panels apart.
        unit: Behind values under the pointer.
        x_axis: The x axis: `STEPS`, `ROOT_STEPS`, a title, or an `Axis` ("log" for N or δ).
        phases: Shaded behind the panels; x has to be steps.
        seeds: Whether the table has several seeds: lines are their means, at the x that all of them
            have. A text names the column that stands for `seed`, e.g. "head".
        spread: Of seeds: a "band" from the lowest to the highest, "points" for each, or "each" seed as a
            line of its own, without a mean.
        level: A column to hold lines against (a control, chance), dotted in their colour.
        levels: Levels across panels.
        looks: By the value of `line`, in the order to draw; by default `looks_of`.
        dashes: By the value of `dash`: its name and plotly's dash.
        titles: By the value of `facet` or `column`; by default "layer 0", "all layers", or the word.
        marks: Whether every x has a mark, for curves of few points.
        n_columns: Panels side by side; by default 1, or all of `column`, whose others follow below.
        heights: Of the rows of panels, in pixels.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption (see `describe`). Traces are called by their line; bands
        "…, range of seeds", points "…, a seed", levels "…, control" (the name of the column).

    Raises:
        InterpError: a column is missing, or there is nothing to draw.
        ArgumentError: `spread` is unknown, or a panel has no axis.
    """
    over = seeds if isinstance(seeds, str) else "seed"
    if spread not in ("band", "points", "each"):
        raise ArgumentError(f"There is no spread {spread!r}; give band, points or each.")
    wanted = [x, y, line, dash, facet, column, level, over if seeds else None]
    found = rows(table, [name for name in wanted if name is not None], what)
    drawn = {
        "looks": completed(_order(found, line, looks), looks),
        "dashes": dashes or {},
        "x": axis_of(x_axis),
    }
    by_value = axis if isinstance(axis, Mapping) else None
    known = None if by_value is None and titles is None else {**(by_value or {}), **(titles or {})}
    panels = []
    across = _order(found, column, known)
    n_columns = min(n_columns or len(across), len(across)) if column else n_columns or 1
    for row in _order(found, facet, known):
        for col in across:
            own = having(having(found, facet, row), column, col)
            key = [v for name, v in ((facet, row), (column, col)) if name is not None]
            words = [
                called(name, v, titles)
                for name, v in ((facet, row), (column, col))
                if name is not None and (by_value is None or v not in by_value)
            ]
            panels.append(
                Panel(
                    "<br>".join(words),
                    _lines(
                        own, x, y, line, dash, level, over if seeds else None, spread, marks, drawn
                    ),
                    axis_at(axis, key, unit) if by_value is not None else None,
                    [one for one in levels if one.at(key)],
                )
            )
        if column is not None:
            panels += [Panel("")] * (-len(across) % n_columns)
    figure = draw(
        panels,
        None if by_value is not None else axis_at(axis, (), unit),
        x=drawn["x"],  # type: ignore[arg-type]
        phases=phases,
        n_columns=n_columns,
        level=(level or "level").replace("_", " "),
        band=f"range of {over}s",
        heights=heights,
    )
    if dash is not None:
        _explain(figure, found, line, dash, drawn)
    return figure


def _order(table: pd.DataFrame, name: str | None, known: Mapping[Any, Any] | None) -> list[Any]:
    return [None] if name is None else values_of(table[name], known)


def _lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    line: str | None,
    dash: str | None,
    level: str | None,
    over: str | None,
    spread: str,
    marks: bool,
    drawn: dict[str, Any],
) -> list[Line]:
    """The lines of a panel."""
    lines = []
    for value in drawn["looks"]:
        of_line = having(table, line, value)
        look: Look = drawn["looks"][value]
        name = look.name or ("mean" if line is None else called(line, value))
        for other in _order(of_line, dash, drawn["dashes"]):
            own = having(of_line, dash, other)
            own = own[own[y].notna()]
            if own.empty:
                continue
            style, words = look.line, name
            if dash is not None:
                more, pattern = drawn["dashes"].get(other, (str(other), "solid"))
                style, words = {**style, "dash": pattern}, f"{name}, {more}"
            shared: dict[str, Any] = {
                "style": style,
                "group": str(value) if line is not None else name,
                "legend": dash is None,
                "symbol": look.symbol if marks else None,
            }
            if over is not None and spread == "each":
                for seed in values_of(own[over]):
                    one = having(own, over, seed)
                    # Row by row: a curve may have several values at one x, as an ROC curve has.
                    values = pd.Series(one[y].to_numpy(float), index=one[x].to_numpy(float))
                    named = f"{words}, {over} {seed}"
                    lines.append(Line(named, values, **shared, entry=words))
                continue
            extra: dict[str, Any] = {}
            values = _mean(own, x, y)
            if over is not None:
                values, extra = _over(own, x, y, over, spread)
            if level is not None:
                extra["level"] = _mean(own, x, level)
            lines.append(Line(words, values, **shared, **extra))
    return lines


def _mean(table: pd.DataFrame, x: str, y: str) -> pd.Series:
    return table.groupby(x)[y].mean().dropna()


def _over(
    table: pd.DataFrame, x: str, y: str, over: str, spread: str
) -> tuple[pd.Series, dict[str, Any]]:
    """The mean over seeds at each x, and how it shows them."""
    own = table.assign(seed=table[over])
    means = over_seeds(own, x, y, complete=spread == "band").set_index(x)
    if own["seed"].nunique() < 2:
        return means["mean"], {}
    if spread == "band":
        return means["mean"], {"low": means["low"], "high": means["high"]}
    points = pd.DataFrame({"x": own[x], "y": own[y], "seed": own["seed"]})
    if "symbol" in own:
        points["symbol"] = own["symbol"]
    return means["mean"], {"points": points}


def _explain(
    figure: go.Figure, table: pd.DataFrame, line: str | None, dash: str, drawn: dict[str, Any]
) -> None:
    """Entries of the legend for colours, and for the dashes where there are several."""
    groups = {trace.legendgroup for trace in figure.data}
    for value, look in drawn["looks"].items():
        if line is not None and str(value) in groups:
            legend_key(figure, look.name or called(line, value), str(value), color=look.colour)
    occurring = values_of(table[dash], drawn["dashes"])
    for other in occurring if len(occurring) > 1 else []:
        name, pattern = drawn["dashes"].get(other, (str(other), "solid"))
        legend_key(figure, name, dash=pattern)
