"""Hooked transformers: building, running, moving between TransformerLens versions."""

from interp.model.accumulate import RunningMean, at_least_single
from interp.model.build import bridge_config, hooked_transformer, parameter_counts
from interp.model.components import native_model
from interp.model.forward import (
    alone_with,
    evaluating,
    logits_at,
    measuring,
    of_this_thread,
    require_numbers,
    require_room,
)
from interp.model.fused import TrainingPass, final_residual, has_fused_forward, training_loss
from interp.model.huggingface import export_huggingface
from interp.model.patterns import (
    NO_ATTENTION,
    AttentionPatch,
    is_recurrent,
    pattern_hook,
    read_patterns,
    valid_indices,
)
from interp.model.property_format import export_model, import_model, property_state_dict
from interp.model.weights import require_normal_weights, require_own_weights

__all__ = [
    "NO_ATTENTION",
    "AttentionPatch",
    "RunningMean",
    "TrainingPass",
    "alone_with",
    "at_least_single",
    "bridge_config",
    "evaluating",
    "export_huggingface",
    "export_model",
    "final_residual",
    "has_fused_forward",
    "hooked_transformer",
    "import_model",
    "is_recurrent",
    "logits_at",
    "measuring",
    "native_model",
    "of_this_thread",
    "parameter_counts",
    "pattern_hook",
    "property_state_dict",
    "read_patterns",
    "require_normal_weights",
    "require_numbers",
    "require_own_weights",
    "require_room",
    "training_loss",
    "valid_indices",
]
