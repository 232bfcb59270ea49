"""MLP layers as key-value memory: keys, values, and what probes read from the residual stream."""

from interp.memory.ablation import ABLATION_POSITIONS, ablation_costs, ablations
from interp.memory.activations import (
    POSITIONS,
    CachedActivations,
    cache_activations,
    draw_batches,
    neuron_hook,
    residual_sites,
)
from interp.memory.confidence import area_under, suspicions, thinned_roc
from interp.memory.edges import RECALL_EDGES, edge_costs, recall_edges
from interp.memory.emergence import (
    MECHANISMS,
    emergence_steps,
    half_strength_step,
    mechanism_strengths,
)
from interp.memory.fact_prompt import FactPrompt
from interp.memory.facts import FactLabels, FactTexts, FirstTokens
from interp.memory.keys import (
    KEY_METRICS,
    intraclass_correlation,
    key_measures,
    key_turns,
    key_vectors,
)
from interp.memory.kind import KIND_COLUMNS, KindTexts, alikeness, kind_of_memory, memory_kind
from interp.memory.lens import OWN_DIFFERENCE, direct_logit_attribution, logit_lens
from interp.memory.locate import locate_fact, locate_facts
from interp.memory.located_fact import LocatedFact
from interp.memory.measure import FactDraws, MemoryTables, measure_memory
from interp.memory.probes import STRENGTHS, RidgeProbe, probe_accuracies, sums_of_inputs
from interp.memory.swap import (
    SWAP_COLUMNS,
    SWAP_POSITIONS,
    SWAP_SITES,
    swap_pairs,
    swap_success,
    swaps,
    whole_effect,
)
from interp.memory.transplant import transplants, weight_changes
from interp.memory.values import (
    PATHS,
    READINGS,
    VALUE_METRICS,
    output_weights,
    promoted_logits,
    top_tokens,
    value_measures,
)

__all__ = [
    "ABLATION_POSITIONS",
    "KEY_METRICS",
    "KIND_COLUMNS",
    "MECHANISMS",
    "OWN_DIFFERENCE",
    "PATHS",
    "POSITIONS",
    "READINGS",
    "RECALL_EDGES",
    "STRENGTHS",
    "SWAP_COLUMNS",
    "SWAP_POSITIONS",
    "SWAP_SITES",
    "VALUE_METRICS",
    "CachedActivations",
    "FactDraws",
    "FactLabels",
    "FactPrompt",
    "FactTexts",
    "FirstTokens",
    "KindTexts",
    "LocatedFact",
    "MemoryTables",
    "RidgeProbe",
    "ablation_costs",
    "ablations",
    "alikeness",
    "area_under",
    "cache_activations",
    "direct_logit_attribution",
    "draw_batches",
    "edge_costs",
    "emergence_steps",
    "half_strength_step",
    "intraclass_correlation",
    "key_measures",
    "key_turns",
    "key_vectors",
    "kind_of_memory",
    "locate_fact",
    "locate_facts",
    "logit_lens",
    "measure_memory",
    "mechanism_strengths",
    "memory_kind",
    "neuron_hook",
    "output_weights",
    "probe_accuracies",
    "promoted_logits",
    "recall_edges",
    "residual_sites",
    "sums_of_inputs",
    "suspicions",
    "swap_pairs",
    "swap_success",
    "swaps",
    "thinned_roc",
    "top_tokens",
    "transplants",
    "value_measures",
    "weight_changes",
    "whole_effect",
]
