"""A graph whose nodes stand in levels, from the bottom up: who passes what on to whom."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts.style import INK, PALETTE
from interp.charts.tidy import rows
from interp.errors import InterpError

_MARK = "#6F747C"
"""Behind white text, and seen on white and near-black."""
_WIDTHS = (1.0, 1.6, 2.4, 3.4, 4.6, 6.0)
"""Of lines in pixels, from the weakest edge to the strongest: plotly has one width a trace."""
_POINTS = 17
_ROW = 64.0
_APART, _BELOW = 0.035, 0.36
"""Where edges of other inputs enter a node: so far apart (of half the width), and so far below its middle (in
levels)."""


def layered(
    edges: pd.DataFrame,
    nodes: pd.DataFrame,
    *,
    value: str = "value",
    unit: str = "",
    signs: tuple[str, str] = ("above zero", "below zero"),
    levels: Mapping[int, str] | None = None,
    ports: Sequence[str] = (),
    what: str = "edges",
) -> go.Figure:
    """Nodes in levels and the edges between them: width by magnitude, colour by sign.

    Args:
        edges: A row for each edge: `start` and `end` (nodes), its number in `value`; with `ports`, by which
            `port` it enters its end (NA for none); `words` that the pointer adds, if there are any.
        nodes: A row for each node: `node` (what edges call it), `level` (0 at the bottom), `name` (its text),
            `symbol` (of plotly's) and `place` from left to right, in columns, 0 in the middle.
        value: The column of numbers.
        unit: Behind a number under the pointer.
        signs: What a positive and a negative edge is called in the legend.
        levels: What levels are called at the axis.
        ports: The inputs of a node from left to right.
        what: What the table holds, for errors.

    Returns:
        The figure, without title and caption. Traces: one for each width and sign, "edges" with the text
        under the pointer, "inputs" (the ports that are entered), and "nodes".

    Raises:
        InterpError: a column is missing, there is no edge to draw, or one leads to no node.
    """
    columns = ["start", "end", value, *(["port"] if ports else [])]
    drawn = rows(edges, columns, what)
    known = rows(nodes, ["node", "level", "name", "symbol", "place"], "nodes").set_index("node")
    if drawn.empty:
        raise InterpError(f"The table of {what} has no edge to draw.")
    ends = pd.concat([drawn["start"], drawn["end"]])
    strange = ends[~ends.isin(known.index)]
    if len(strange):
        raise InterpError(f"An edge leads to {strange.iloc[0]!r}, which is none of the nodes.")
    at = known.to_dict("index")
    sizes = drawn[value].astype(float).abs()
    if not np.isfinite(sizes).all():
        raise InterpError(f"The table of {what} has an edge without a number.")
    largest = float(sizes.max()) or 1.0
    figure = go.Figure()
    paths: dict[tuple[bool, int], tuple[list[float | None], list[float | None]]] = {}
    middles: list[tuple[float, float, str]] = []
    entries: set[tuple[float, float, str]] = set()
    half = max(1.0, float(known["place"].astype(float).abs().max())) + 0.6
    for number, row in enumerate(drawn.sort_values(value, key=abs).to_dict("records")):
        start, end = at[row["start"]], at[row["end"]]
        to = float(end["place"]), float(end["level"])
        if ports and row["port"] in ports:
            aside = list(ports).index(row["port"]) - (len(ports) - 1) / 2
            to = to[0] + _APART * half * aside, to[1] - _BELOW
            entries.add((*to, str(row["port"])))
        x, y = _curve((float(start["place"]), float(start["level"])), to, number, half)
        share = abs(float(row[value])) / largest
        width = min(int(share * len(_WIDTHS)), len(_WIDTHS) - 1)
        xs, ys = paths.setdefault((float(row[value]) >= 0, width), ([], []))
        xs += [*x.tolist(), None]
        ys += [*y.tolist(), None]
        by = f" ({row['port']})" if ports and row["port"] in ports else ""
        text = f"{start['name']} → {end['name']}{by}: {float(row[value]):+.3g} {unit}".strip()
        text += f"{row.get('words') or ''}"
        middles.append((float(x[_POINTS // 2]), float(y[_POINTS // 2]), text))
    for positive, name in zip((True, False), signs, strict=True):
        colour = PALETTE["blue" if positive else "orange"]
        widths = sorted(width for sign, width in paths if sign == positive)
        for width in widths:
            xs, ys = paths[positive, width]
            figure.add_scatter(
                x=xs, y=ys, mode="lines", name=name, legendgroup=name, hoverinfo="skip",
                showlegend=width == widths[-1], opacity=0.7 + 0.3 * width / (len(_WIDTHS) - 1),
                line={"color": colour, "width": _WIDTHS[width]},
            )  # fmt: skip
    figure.add_scatter(
        x=[x for x, _, _ in middles], y=[y for _, y, _ in middles], mode="markers", name="edges",
        marker={"size": 12, "opacity": 0}, showlegend=False, customdata=[t for *_, t in middles],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    if entries:
        across, up, names = zip(*sorted(entries), strict=True)
        figure.add_scatter(
            x=across, y=[one - 0.06 for one in up], text=names, mode="text", textposition="bottom center",
            name="inputs", showlegend=False, hoverinfo="skip", textfont={"size": 10, "color": INK},
        )  # fmt: skip
    longest = max(map(len, known["name"].astype(str)))
    figure.add_scatter(
        x=known["place"].astype(float).tolist(), y=known["level"].astype(float).tolist(), name="nodes",
        mode="markers+text", text=known["name"].tolist(), showlegend=False, hoverinfo="skip",
        textfont={"color": "#FFFFFF", "size": 11}, cliponaxis=False,
        marker={"symbol": known["symbol"].tolist(), "size": 20 + 4 * min(longest, 6), "color": _MARK,
                "line": {"color": INK, "width": 1}, "opacity": 1},
    )  # fmt: skip
    _axes(figure, half, int(known["level"].max()), levels or {})
    return figure


def _curve(
    start: tuple[float, float], end: tuple[float, float], number: int, half: float
) -> tuple[np.ndarray, np.ndarray]:
    """An edge that passes beside the nodes of the levels that it crosses, at most `half` from the middle."""
    (x0, y0), (x1, y1) = start, end
    middle = (x0 + x1) / 2
    side = np.sign(middle) or (1.0 if number % 2 else -1.0)
    bend, most = 0.28 * max(0.0, y1 - y0 - 1), 2 * (half - 0.1 - abs(middle))
    if bend > most / 2:  # the longer, the nearer to the edge of the figure, and never beyond
        bend = most * (1 - most / (4 * bend))
    bend *= side
    t = np.linspace(0, 1, _POINTS)
    x = (1 - t) ** 2 * x0 + 2 * t * (1 - t) * (middle + bend) + t**2 * x1
    y = y0 + t * (y1 - y0)
    return x, y


def _axes(figure: go.Figure, half: float, highest: int, levels: Mapping[int, str]) -> None:
    ticks = sorted(levels)
    figure.update_xaxes(visible=False, range=[-half, half])
    figure.update_yaxes(
        range=[-0.5, highest + 0.5], tickvals=ticks, ticktext=[levels[level] for level in ticks],
        showgrid=False, ticks="", showline=False, zeroline=False,
    )  # fmt: skip
    figure.update_layout(height=130 + _ROW * (highest + 1))
