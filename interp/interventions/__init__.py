"""Interventions: edit activations of a model at some positions, and see what becomes of its answer."""

from interp.biographies import POSITIONS
from interp.interventions.arrays import as_array, as_xarray, named_array
from interp.interventions.attribution import attribution
from interp.interventions.grid import (
    Add,
    Cell,
    Edit,
    Grid,
    Knockout,
    Mean,
    Replace,
    Units,
    Zero,
    layers_around,
)
from interp.interventions.knockout import cut_edges
from interp.interventions.metrics import LOGIT_DIFFERENCE, METRICS, Answers
from interp.interventions.pairs import Pairs
from interp.interventions.patch import patch
from interp.interventions.path import RECEIVERS, SENDERS, path_patch
from interp.interventions.positions import (
    EACH,
    control_positions,
    position_labels,
    resolve_positions,
)
from interp.interventions.sites import SITES, Site, read_activations
from interp.interventions.swapped import first_value_tokens, swapped_attributes, swapped_people
from interp.interventions.tracing import NOISED, TRACED, causal_trace, facts_of

__all__ = [
    "EACH", "LOGIT_DIFFERENCE", "METRICS", "NOISED", "POSITIONS", "RECEIVERS", "SENDERS", "SITES",
    "TRACED", "Add", "Answers", "Cell", "Edit", "Grid", "Knockout", "Mean", "Pairs", "Replace",
    "Site", "Units", "Zero", "as_array", "as_xarray", "attribution", "causal_trace",
    "control_positions", "cut_edges", "facts_of", "first_value_tokens", "layers_around",
    "named_array", "patch", "path_patch", "position_labels", "read_activations",
    "resolve_positions", "swapped_attributes", "swapped_people",
]  # fmt: skip
