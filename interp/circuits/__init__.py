"""Circuits: which edges between embedding, heads, MLPs and logits an answer depends on.

scores = edge_attribution(model, pairs)                 # every edge, to first order
curve = faithfulness_curve(model, pairs, scores)        # what the strongest keep of the answer
agreement(scores, exact_edges(model, pairs, n=200))     # how far the first order is off
"""

from interp.circuits.attribution import Method, edge_attribution
from interp.circuits.edges import EDGE_COLUMNS, Attention, edges
from interp.circuits.exact import agreement, exact_edges
from interp.circuits.faithfulness import Selection, circuit_edges, faithfulness_curve
from interp.circuits.over_steps import circuits_over_steps, edge_emergence
from interp.circuits.passes import CIRCUIT_METRICS, KL_DIVERGENCE

__all__ = [
    "CIRCUIT_METRICS", "EDGE_COLUMNS", "KL_DIVERGENCE", "Attention", "Method", "Selection", "agreement",
    "circuit_edges", "circuits_over_steps", "edge_attribution", "edge_emergence", "edges", "exact_edges",
    "faithfulness_curve",
]  # fmt: skip
