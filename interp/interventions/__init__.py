"""Interventions: edit activations of a model at some positions, and see what becomes of its answer."""

from interp.interventions.attribution import attribution
from interp.interventions.cells import Cell, How, Units
from interp.interventions.metrics import METRICS, Answers
from interp.interventions.pairs import (
    Pairs,
    first_value_tokens,
    swapped_attributes,
    swapped_people,
)
from interp.interventions.patch import patch
from interp.interventions.path import RECEIVERS, SENDERS, path_patch
from interp.interventions.positions import (
    EACH,
    POSITIONS,
    control_positions,
    position_labels,
    resolve_positions,
)
from interp.interventions.sites import SITES, Site, read_activations

__all__ = [
    "EACH",
    "METRICS",
    "POSITIONS",
    "RECEIVERS",
    "SENDERS",
    "SITES",
    "Answers",
    "Cell",
    "How",
    "Pairs",
    "Site",
    "Units",
    "attribution",
    "control_positions",
    "first_value_tokens",
    "patch",
    "path_patch",
    "position_labels",
    "read_activations",
    "resolve_positions",
    "swapped_attributes",
    "swapped_people",
]
