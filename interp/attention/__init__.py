"""Attention: to names and other tokens over training, the roles of heads, and what cutting it costs."""

from interp.attention.by_attribute import scores_by_attribute
from interp.attention.knockout import (
    EDGES,
    edge_mask,
    knockout,
    knockout_costs,
)
from interp.attention.names import (
    ATTENTION_METRICS,
    ATTRIBUTE_METRICS,
    NAME_METRICS,
    REST_METRICS,
    TEXT_METRICS,
    Queries,
    attention_scores,
    attention_to_names,
    attribute_queries,
    averaged,
    by_layer,
    name_queries,
    sharpness,
)
from interp.attention.roles import (
    AT_ATTRIBUTE,
    LEAST_REST,
    NO_ROLE,
    ROLES,
    SINK,
    THRESHOLD,
    head_roles,
)
from interp.biographies.spans import Span, Spans
from interp.interventions import cut_edges
from interp.series import informative_steps

__all__ = [
    "ATTENTION_METRICS", "ATTRIBUTE_METRICS", "AT_ATTRIBUTE", "EDGES", "LEAST_REST", "NAME_METRICS",
    "NO_ROLE", "REST_METRICS", "ROLES", "SINK", "TEXT_METRICS", "THRESHOLD", "Queries", "Span", "Spans",
    "attention_scores", "attention_to_names", "attribute_queries", "averaged", "by_layer", "cut_edges",
    "edge_mask", "head_roles", "informative_steps", "knockout", "knockout_costs", "name_queries",
    "scores_by_attribute", "sharpness",
]  # fmt: skip
