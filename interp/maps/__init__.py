"""Attention maps of a training: one view for browsing them, in the report and in Jupyter.

    interp.explore(run, person=0)                                     # a widget
    interp.explore({0: early, 1000: late}, texts=texts)

Layout: `texts` labels texts for the view, `people` makes them of biographies, `record` reads a series'
attention on them at many checkpoints and packs it, `training` holds what else is known of the
training, `view` says what the view in `assets/attention.js` is given, `widget` is its home in Jupyter,
`sources` where the widget's texts come from.
"""

from interp.maps.people import map_text
from interp.maps.record import BUDGET, MapRecord, map_steps, record_maps, unpack_maps
from interp.maps.texts import Fact, MapText, Vocabulary, label_texts, words_by_id
from interp.maps.training import TrainingInfo
from interp.maps.view import asset, view_settings, view_text, words_of

__all__ = [
    "BUDGET",
    "Fact",
    "MapRecord",
    "MapText",
    "TrainingInfo",
    "Vocabulary",
    "asset",
    "label_texts",
    "map_steps",
    "map_text",
    "record_maps",
    "unpack_maps",
    "view_settings",
    "view_text",
    "words_by_id",
    "words_of",
]
