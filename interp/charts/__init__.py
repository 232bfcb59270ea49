"""Kinds of chart: curves over training, bars, contributions, timeline, heatmap, scatter, graph; stacks.

    figure = curves(table, line="position", facet="layer", axis="cost (nats)", unit="nats",
                    phases=run.phases, seeds=True)
    describe(figure, "What it costs", "Cost in nats ... Look for ...")

A kind takes a tidy table, and gives a plotly figure with titled axes, a legend, values with their units
under the pointer, and its own height; `describe` adds the style, a title and a caption.
"""

from interp.charts.bars import bars
from interp.charts.contributions import contributions
from interp.charts.curves import curves
from interp.charts.facets import facets
from interp.charts.graph import signed_graph
from interp.charts.heatmap import CROSSED, has_missing, heatmap, matrix
from interp.charts.looks import (
    COLOURS,
    ROOT_AXIS,
    ROOT_STEPS,
    STEPS,
    SYMBOLS,
    Axis,
    Level,
    Look,
    looks_of,
)
from interp.charts.panels import Line, Panel, draw
from interp.charts.scatter import scatter
from interp.charts.stack import Part, stack
from interp.charts.style import (
    DASHES,
    INK,
    PALETTE,
    TEMPLATE,
    caption,
    describe,
    note,
    plain,
    ramp,
    title,
)
from interp.charts.tidy import at_step, chosen, rows
from interp.charts.timeline import timeline

__all__ = [
    "COLOURS",
    "CROSSED",
    "DASHES",
    "INK",
    "PALETTE",
    "ROOT_AXIS",
    "ROOT_STEPS",
    "STEPS",
    "SYMBOLS",
    "TEMPLATE",
    "Axis",
    "Level",
    "Line",
    "Look",
    "Panel",
    "Part",
    "at_step",
    "bars",
    "caption",
    "chosen",
    "contributions",
    "curves",
    "describe",
    "draw",
    "facets",
    "has_missing",
    "heatmap",
    "looks_of",
    "matrix",
    "note",
    "plain",
    "ramp",
    "rows",
    "scatter",
    "signed_graph",
    "stack",
    "timeline",
    "title",
]
