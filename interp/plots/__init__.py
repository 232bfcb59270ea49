"""Plotly figures of a run: each function returns a figure and shows nothing.

    run = interp.Run.load("runs/tiny")
    interp.plots.learning_curves(run).show()
    interp.plots.caption(interp.plots.learning_curves(run))    # what to look for

The report and the notebooks show the same figures with the same captions.
"""

from interp.charts.style import PALETTE, TEMPLATE, caption, describe, title
from interp.phases import phase_bands
from interp.plots.attention import (
    SCORE_NAMES,
    attention_by_head,
    attention_to_names,
    head_roles,
    knockout_by_head,
    knockout_costs,
    knockout_rows,
    sharpness,
)
from interp.plots.circuits import circuit_graph, faithfulness
from interp.plots.comparison import (
    compared_curves,
    compared_gains,
    compared_panels,
    compared_rows,
)
from interp.plots.curves import attribute_curves, known_and_held_out, learning_curves
from interp.plots.emergence import emergence, strength_curves
from interp.plots.equations import (
    capacity_curves,
    interference_graph,
    interference_heatmap,
    residual_distribution,
)
from interp.plots.fact import located_fact
from interp.plots.forms import form_curves
from interp.plots.interventions import attribution_error, patch_heatmap
from interp.plots.memory import (
    key_selectivity,
    key_similarity,
    key_value_agreement,
    promoted_values,
)
from interp.plots.merging import line_curves
from interp.plots.patched_runs import fixed_steps, patching_rows
from interp.plots.patching import (
    freezing_curve,
    loss_by_reference,
    patched_parts,
    patching_curves,
    patching_figures,
    start_of_patching,
)
from interp.plots.paths import path_heatmap
from interp.plots.plateau import phase_sensitivity, scaling
from interp.plots.probes import probe_curves, probe_sites
from interp.plots.sites import residual_sites, site_name
from interp.plots.swaps import mlp_ablation, recall_edges, swap_rows, swap_sites, swap_success
from interp.plots.tracing import causal_trace, logit_lens

__all__ = [
    "PALETTE",
    "SCORE_NAMES",
    "TEMPLATE",
    "attention_by_head",
    "attention_to_names",
    "attribute_curves",
    "attribution_error",
    "capacity_curves",
    "caption",
    "causal_trace",
    "circuit_graph",
    "compared_curves",
    "compared_gains",
    "compared_panels",
    "compared_rows",
    "describe",
    "emergence",
    "faithfulness",
    "fixed_steps",
    "form_curves",
    "freezing_curve",
    "head_roles",
    "interference_graph",
    "interference_heatmap",
    "key_selectivity",
    "key_similarity",
    "key_value_agreement",
    "knockout_by_head",
    "knockout_costs",
    "knockout_rows",
    "known_and_held_out",
    "learning_curves",
    "line_curves",
    "located_fact",
    "logit_lens",
    "loss_by_reference",
    "mlp_ablation",
    "patch_heatmap",
    "patched_parts",
    "patching_curves",
    "patching_figures",
    "patching_rows",
    "path_heatmap",
    "phase_bands",
    "phase_sensitivity",
    "probe_curves",
    "probe_sites",
    "promoted_values",
    "recall_edges",
    "residual_distribution",
    "residual_sites",
    "scaling",
    "sharpness",
    "site_name",
    "start_of_patching",
    "strength_curves",
    "swap_rows",
    "swap_sites",
    "swap_success",
    "title",
]
