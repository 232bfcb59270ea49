"""Plotly figures of a run: each function returns a figure and shows nothing.

    run = interp.Run.load("runs/tiny")
    interp.plots.learning_curves(run).show()
    interp.plots.caption(interp.plots.learning_curves(run))    # what to look for

The report and the notebooks show the same figures with the same captions.
"""

from interp.plots.bands import phase_bands
from interp.plots.curves import attribute_curves, known_and_held_out, learning_curves
from interp.plots.plateau import phase_sensitivity, scaling
from interp.plots.style import PALETTE, TEMPLATE, caption, describe, title

__all__ = [
    "PALETTE",
    "TEMPLATE",
    "attribute_curves",
    "caption",
    "describe",
    "known_and_held_out",
    "learning_curves",
    "phase_bands",
    "phase_sensitivity",
    "scaling",
    "title",
]
