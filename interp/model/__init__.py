"""Hooked transformers: building, running, moving between TransformerLens versions."""

from interp.model.build import bridge_config, hooked_transformer, parameter_counts
from interp.model.forward import evaluating, logits_at, training_loss
from interp.model.property_format import export_model, import_model, property_state_dict

__all__ = [
    "bridge_config",
    "evaluating",
    "export_model",
    "hooked_transformer",
    "import_model",
    "logits_at",
    "parameter_counts",
    "property_state_dict",
    "training_loss",
]
