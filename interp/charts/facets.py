"""Small multiples: panels in rows and columns, with their titles, axes and height."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

_ROW = 118.0
"""Pixels of a row of panels with titles above them."""


@dataclass
class Facets:
    """A figure of panels, and where each of them stands.

    Attributes:
        figure: The figure.
        n_columns: Panels side by side.
        n_panels: All of them, row by row.
        inner: Pixels from the top of the first row to the bottom of the last.
        shown: Entries that stand in the legend already.
    """

    figure: go.Figure
    n_columns: int
    n_panels: int
    inner: float
    shown: set[str] = field(default_factory=set)

    @property
    def n_rows(self) -> int:
        """Rows of panels."""
        return -(-self.n_panels // self.n_columns)

    def at(self, panel: int) -> dict[str, int]:
        """Plotly's `row` and `col` of a panel."""
        return {"row": panel // self.n_columns + 1, "col": panel % self.n_columns + 1}

    def __iter__(self) -> Iterator[dict[str, int]]:
        return iter([self.at(i) for i in range(self.n_panels)])

    def title(self, panel: int, text: str, size: int = 11) -> None:
        """Writes a title above a panel, at its left edge."""
        if text:
            self.figure.add_annotation(
                text=f"<b>{text}</b>", showarrow=False, x=0, xanchor="left", y=1, yanchor="bottom",
                font_size=size, align="left", xref="x domain", yref="y domain", **self.at(panel),
            )  # fmt: skip

    def legend(self, group: str, wanted: bool = True) -> bool:
        """Whether a trace brings the entry of a group: the first that wants to."""
        first = wanted and group not in self.shown
        if first:
            self.shown.add(group)
        return first


def facets(
    titles: Sequence[str],
    *,
    n_columns: int = 1,
    heights: Sequence[float | int] | None = None,
    widths: Sequence[float | int] | None = None,
    share_x: bool = True,
    share_y: bool = True,
    margin: int = 210,
    size: int = 11,
    gap: float | int = 28,
    beside: float = 0.08,
) -> Facets:
    """Panels with titles above them, as high as their rows need.

    Args:
        titles: One a panel, row by row; lines apart by `<br>`, "" for none.
        n_columns: Panels side by side.
        heights: Of the rows, in pixels.
        widths: Of the columns, against one another.
        share_x: One x axis for all panels.
        share_y: One y axis for the panels of a row.
        margin: Pixels above and below the panels together.
        size: Of the titles.
        gap: Pixels between two rows, without the title.
        beside: Space between two columns, as a share of the width.
    """
    n_rows = -(-len(titles) // n_columns)
    lines = max((title.count("<br>") + 1 if title else 0) for title in titles)
    space = gap + (size + 3) * lines
    rows = list(heights or [_ROW] * n_rows)
    inner = sum(rows) + space * (n_rows - 1)
    figure = make_subplots(
        rows=n_rows, cols=n_columns, row_heights=rows, column_widths=widths,
        shared_xaxes="all" if share_x else False, shared_yaxes=share_y and n_columns > 1,
        vertical_spacing=space / inner if n_rows > 1 else 0, horizontal_spacing=beside,
    )  # fmt: skip
    made = Facets(figure, n_columns, len(titles), float(inner))
    for panel, title in enumerate(titles):
        made.title(panel, title, size)
    top = 48 + (size + 3) * lines
    figure.update_layout(height=round(inner) + margin, margin_t=top)
    return made


def headroom(figure: go.Figure, row: int = 1, n_columns: int = 1, *, column: int = 0) -> None:
    """Room above the lines of a row of panels, in the first for the numbers of the phases.

    Where lines go below zero, zero gets a line.

    Args:
        figure: Of panels with linear y axes.
        row: The row, from 1.
        n_columns: Panels side by side.
        column: Only this one, from 1; by default all of the row together.
    """
    numbers = range((row - 1) * n_columns + 1, row * n_columns + 1)
    if column:
        numbers = range(numbers[column - 1], numbers[column - 1] + 1)
    axes = {f"y{number}" if number > 1 else "y" for number in numbers}
    values = [
        value
        for trace in figure.data
        if (trace.yaxis or "y") in axes
        for value in trace.y
        if value is not None and not isnan(value)
    ]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    space, above = (high - low) or 1.0, 0.16 if row == 1 else 0.06
    at: dict[str, Any] = {"row": row, "col": column or None}
    ends = [low - 0.04 * space if low < 0 else 0, high + above * space]
    figure.update_yaxes(range=ends, zeroline=low < 0, **at)
