"""A graph whose edges are signed: what pulls together in blue, what pulls apart in orange."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.charts.looks import Axis, axis_of
from interp.charts.style import DASHES, INK, PALETTE, plain, two_lines
from interp.errors import ArgumentError

_WIDEST = 7.0
_STRONG = 0.3  # the magnitude from which the strongest edge is as wide as that
_SIDE = 460
_WIDE = 2.0  # about how much wider than high a figure is


def signed_graph(
    matrix: pd.DataFrame, *, axis: str | Axis, unit: str = "", least: float | int = 0.0
) -> go.Figure:
    """A symmetric matrix as a graph: a node for each row, an edge for each pair, as wide as it is strong.

    Nodes that positive edges join stand together (the layout of Kamada & Kawai 1989). Positive edges are
    blue and solid, negative ones orange and dashed.

    Args:
        matrix: Labels as its index and columns, in one order.
        axis: What edges are, with the unit.
        unit: Behind a value under the pointer.
        least: Edges of this magnitude or less are not drawn.

    Returns:
        The figure, without title and caption. Edges are called "positive" and "negative", nodes "groups".

    Raises:
        ArgumentError: rows and columns differ, or there are fewer than two nodes.
    """
    if list(matrix.index) != list(matrix.columns) or len(matrix) < 2:
        raise ArgumentError(
            "A graph needs a square matrix of at least two nodes, with the same labels down and across."
        )
    what = axis_of(axis, unit, ".2f")
    values = matrix.to_numpy(dtype=float)
    places = _places(values)
    strengths = np.abs(values[np.triu_indices(len(values), 1)])
    strongest = max(_STRONG, *strengths[np.isfinite(strengths)].tolist())
    figure = go.Figure()
    shown: set[str] = set()
    names = [str(label) for label in matrix.index]
    for i, j in combinations(range(len(values)), 2):
        value = float(values[i, j])
        if not abs(value) > least:  # also what was not measured
            continue
        name = "positive" if value > 0 else "negative"
        figure.add_scatter(
            x=_way(places[[i, j], 0]), y=_way(places[[i, j], 1]), mode="lines", name=name,
            legendgroup=name, showlegend=name not in shown, opacity=0.75,
            line={
                "color": PALETTE["blue" if value > 0 else "orange"],
                "dash": DASHES[0 if value > 0 else 1],
                "width": 0.6 + (_WIDEST - 0.6) * abs(value) / strongest,
            },
            hovertemplate=(
                f"{plain(names[i])}, {plain(names[j])}: {what.words} "
                f"{what.said(value)}<extra></extra>"
            ),
        )  # fmt: skip
        shown.add(name)
    figure.add_scatter(
        x=places[:, 0].tolist(), y=places[:, 1].tolist(), mode="markers+text", name="groups",
        text=[two_lines(name) for name in names], textposition=_label_sides(places, values, least),
        textfont={"color": INK, "size": 12}, showlegend=False,
        marker={"color": PALETTE["grey"], "size": 13, "line": {"color": INK, "width": 1}},
        customdata=[what.said(v) for v in values.diagonal()],
        hovertemplate=f"%{{text}}: {what.words} with itself %{{customdata}}<extra></extra>",
    )  # fmt: skip
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(visible=False, range=[-1.25, 1.25])
    figure.update_layout(height=_SIDE, hovermode="closest")
    return figure


def _way(ends: np.ndarray) -> list[float]:
    """Points along an edge: the pointer finds an edge at its points only."""
    return [float(place) for place in np.linspace(ends[0], ends[1], 9)]


def _label_sides(places: np.ndarray, values: np.ndarray, least: float) -> list[str]:
    """Whether the label of each node stands above or below it: on the side away from edges that are drawn."""
    found = []
    for i, place in enumerate(places):
        drawn = np.abs(values[i]) > least
        drawn[i] = False
        ways = (places[drawn] - place) * (_WIDE, 1.0)
        ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
        up, down = ways[:, 1].max(initial=0.0), -ways[:, 1].min(initial=0.0)
        found.append("top center" if up <= down + 1e-6 else "bottom center")
    return found


def _places(values: np.ndarray) -> np.ndarray:
    """Where nodes stand, from -1 to 1: the nearer, the higher the edge is, against the strongest."""
    import networkx  # here, as no other chart needs it

    n = len(values)
    off = np.where(np.eye(n, dtype=bool) | ~np.isfinite(values), 0.0, values)
    far = 1 - 0.8 * off / max(float(np.abs(off).max()), 1e-9)
    distances = {i: {j: float(far[i, j]) for j in range(n) if j != i} for i in range(n)}
    graph: Any = networkx.complete_graph(n)
    found = networkx.kamada_kawai_layout(graph, distances, networkx.circular_layout(graph))
    places = np.array([found[node] for node in range(n)], dtype=float)
    places -= (places.max(axis=0) + places.min(axis=0)) / 2
    return places / max(float(np.abs(places).max()), 1e-9)
