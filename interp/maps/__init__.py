"""Attention maps of a run: one view for browsing them, in the report and in Jupyter.

    interp.explore(run, person=0)      # a widget

Layout: `record` reads a run's attention on a biography at many checkpoints and packs it, `view` says
what the view in `assets/attention.js` is given, `widget` is its home in Jupyter.
"""

from interp.maps.record import (
    BUDGET,
    MapRecord,
    MapText,
    map_steps,
    map_text,
    record_maps,
    unpack_maps,
)
from interp.maps.view import asset, view_settings, view_text, words_of

__all__ = [
    "BUDGET",
    "MapRecord",
    "MapText",
    "asset",
    "map_steps",
    "map_text",
    "record_maps",
    "unpack_maps",
    "view_settings",
    "view_text",
    "words_of",
]
