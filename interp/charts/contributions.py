"""What parts add to a sum: bars from zero to both sides, their values beside them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.charts.looks import Look, completed
from interp.charts.style import INK, PALETTE
from interp.charts.tidy import having, rows, values_of
from interp.errors import InterpError


def contributions(
    table: pd.DataFrame,
    *,
    part: str,
    y: str = "contribution",
    by: str | None = None,
    looks: Mapping[Any, Look] | None = None,
    unit: str = "nats",
    above: bool = False,
    words: str | None = None,
    beside: Mapping[str, float] | None = None,
    what: str = "contributions",
) -> go.Figure:
    """A bar for each part, or one a part of what several add to it.

    Args:
        table: A row for each part, and value of `by`, with its share in `y`.
        part: The column that tells parts apart, as they are called, in the order to draw.
        y: The column of shares; they may be negative.
        by: The column that tells apart what a bar is made of; without it, bars above zero are blue and
            those below orange.
        looks: By the value of `by`, in the order to draw.
        unit: Behind a share under the pointer.
        above: Whether what parts are called stands above their bars (long names), else at the axis.
        words: A column of what the pointer adds.
        beside: For some parts, what to compare their sum with, as a diamond on the bar.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption: a trace called `y`, or one for each value of `by`.

    Raises:
        InterpError: a column is missing, or the table is empty.
    """
    found = rows(table, [name for name in (part, y, by, words) if name is not None], what)
    if found.empty:
        raise InterpError(f"The table of {what} has no row to draw.")
    order = list(dict.fromkeys(found[part]))
    shift = 0.2 if above else 0.0
    figure = go.Figure()
    of_groups = {} if by is None else completed(values_of(found[by], looks), looks)
    for group in of_groups or [None]:
        own = having(found, by, group)
        shares = [float(share) for share in own[y]]
        more = [""] * len(own) if words is None else list(own[words])
        name = y if by is None else of_groups[group].name or str(group)
        source = "" if by is None else f", {name}"
        figure.add_bar(
            orientation="h", x=shares, name=name, width=0.34 if above else 0.7,
            y=[order.index(at) + shift for at in own[part]], showlegend=by is not None,
            marker={"line_width": 0, "color": [_sign(share) for share in shares] if by is None
                    else of_groups[group].colour},
            customdata=[f"{at}{source}: {share:+.3f} {unit}{told}"
                        for at, share, told in zip(own[part], shares, more, strict=True)],
            hovertemplate="%{customdata}<extra></extra>",
        )  # fmt: skip
    every = found[y].astype(float)
    ends = pd.DataFrame(
        {part: found[part], "low": every.clip(upper=0), "high": every.clip(lower=0)}
    )
    ends = ends.groupby(part, sort=False).sum().loc[order]
    totals = ends["low"] + ends["high"]
    marked = beside or {}
    low, high = (
        pick([*ends[end], *marked.values()]) for pick, end in ((min, "low"), (max, "high"))
    )
    for at, place in marked.items():  # a sum's number goes behind a mark that would cover it
        if 0 < place - ends["high"][at] < 0.12 * (high - low):
            ends.loc[at, "high"] = place
    left = [low < 0 and not high for low, high in zip(ends["low"], ends["high"], strict=True)]
    figure.add_scatter(
        x=[low if at else high for at, low, high in zip(left, ends["low"], ends["high"], strict=True)],
        y=[i + shift for i in range(len(order))], mode="text", name=f"{y}, in all",
        text=[f" {signed(total)} " for total in totals], cliponaxis=False, showlegend=False,
        textposition=["middle left" if at else "middle right" for at in left],
        textfont={"size": 11, "color": INK}, hoverinfo="skip",
    )  # fmt: skip
    if marked:
        figure.add_scatter(
            x=list(marked.values()), y=[order.index(at) + shift for at in marked], mode="markers",
            marker={"symbol": "diamond-open", "size": 10, "color": INK, "line_width": 2},
            name="beside", showlegend=False, customdata=[f"{at}: {x:+.3f}" for at, x in marked.items()],
            hovertemplate="%{customdata} " + unit + "<extra></extra>",
        )  # fmt: skip
    _axes(figure, order, float(low), float(high), above)
    figure.update_layout(barmode="relative", height=150 + (38 if above else 20) * len(order))
    return figure


def signed(share: float) -> str:
    """With its sign, and none for what rounds to zero."""
    return f"{share:+.2f}" if abs(share) >= 0.005 else "0.00"


def _sign(share: float) -> str:
    return PALETTE["blue"] if share >= 0 else PALETTE["orange"]


def _axes(figure: go.Figure, names: list[str], low: float, high: float, above: bool) -> None:
    space = (high - low) or 1.0
    figure.update_xaxes(
        range=[low - (0.2 * space if low < 0 else 0), high + 0.2 * space], nticks=6,
        tickfont_size=11, zeroline=not above, showgrid=not above,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, showticklabels=not above, ticks="",
        showgrid=False, range=[len(names) - 0.5, -0.5], tickfont_size=12, showline=False,
    )  # fmt: skip
    # No line of the panel crosses what stands above a bar.
    for i, name in enumerate(names if above else []):
        figure.add_annotation(
            text=name, x=0, xref="x domain", xanchor="left", y=i - 0.22, yref="y", align="left",
            showarrow=False, font_size=12,
        )  # fmt: skip
