"""What figures that are not one call of `interp.charts.curves` yet take from `interp.charts`."""

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from interp.charts import panels as charts
from interp.charts.facets import Facets, headroom
from interp.charts.heatmap import SIGNED
from interp.charts.looks import COLOURS, ROOT_AXIS, ROOT_STEPS, STEPS, SYMBOLS, Axis
from interp.charts.panels import Line, Panel, legend_key
from interp.charts.tidy import at_step, by_step, chosen, in_order, rows, unit_label, whole_numbers
from interp.phases import Phases

__all__ = [
    "COLOURS", "ROOT_AXIS", "SIGNED", "SYMBOLS", "Line", "Panel", "add_line", "at_step", "by_step",
    "chosen", "headroom", "in_order", "legend_key", "over_steps", "rows", "share_steps",
    "unit_label", "whole_numbers",
]  # fmt: skip


def over_steps(
    panels: Sequence[Panel],
    phases: Phases | None,
    axis: str,
    *,
    n_columns: int = 1,
    place: Callable[[float], float] = float,
    level: str = "chance",
    band: str = "range",
    unit: str = "",
) -> go.Figure:
    """Panels of curves over training; see `interp.charts.panels.draw`."""
    x = STEPS if place is float else ROOT_STEPS
    y = Axis(axis, unit.strip())
    return charts.draw(panels, y, x=x, phases=phases, n_columns=n_columns, level=level, band=band)


def add_line(
    figure: go.Figure,
    line: Line,
    shown: set[str],
    place: Callable[[float], float],
    words: tuple[str, str, str],
    at: dict[str, int],
) -> None:
    """A curve in a panel; see `interp.charts.panels.add_line`."""
    made = Facets(figure, 1, 1, 1.0, shown)
    x, y = STEPS if place is float else ROOT_STEPS, Axis("value", words[2].strip())
    charts.add_line(made, line, at, x=x, y=y, level=words[0], band=words[1])


def share_steps(figure: go.Figure, steps: Sequence[int]) -> None:
    """The same steps on every x axis."""
    last = steps[-1] if steps[-1] > steps[0] else steps[0] + 1
    options: dict[str, Any] = {"range": [steps[0], last], "tickformat": ",d"}
    figure.update_xaxes(**options)
